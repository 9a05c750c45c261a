from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import kopf
import pytest
from prometheus_client import CollectorRegistry

from operators import handlers
from operators.builders.pods import RUN_LABEL
from operators.handlers import Queue, Watch
from operators.metrics import Metrics
from pyfsb.errors import ClusterError
from pyfsb.resources.status import Phase

GANGS = ("TrainingRun", "Evaluation")
A, B = ("TrainingRun", "team", "a"), ("TrainingRun", "team", "b")


class Looks:
    """Notes every look and how many of one name happen at once."""

    def __init__(self, answer: Callable[[int], Phase | None] = lambda _: Phase.RUNNING) -> None:
        self.answer = answer
        self.names: list[str] = []
        self.most_at_once = 0
        self._now: dict[str, int] = {}
        self._lock = threading.Lock()

    def __call__(self, _kind: str, _namespace: str, name: str) -> Phase | None:
        with self._lock:
            self.names.append(name)
            self._now[name] = self._now.get(name, 0) + 1
            self.most_at_once = max(self.most_at_once, self._now[name])
            count = self.names.count(name)
        time.sleep(0.02)
        with self._lock:
            self._now[name] -= 1
        return self.answer(count)


def run(looks: Looks, steps: Callable[[Queue], Any], seconds: float = 0.4) -> Queue:
    """Run workers over a queue for a while."""

    async def go() -> Queue:
        queue = Queue(looks, Metrics(CollectorRegistry()))
        workers = [asyncio.create_task(queue.work()) for _ in range(4)]
        result = steps(queue)
        if asyncio.iscoroutine(result):
            await result
        await asyncio.sleep(seconds)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        return queue

    return asyncio.run(go())


def test_a_name_waits_once_however_many_events_come() -> None:
    looks = Looks()
    run(looks, lambda queue: [queue.put(key) for key in (A, A, A, B)])
    assert sorted(looks.names) == ["a", "b"]


def test_a_name_in_work_is_looked_at_once_more_and_never_twice_at_once() -> None:
    looks = Looks()

    async def steps(queue: Queue) -> None:
        queue.put(A)
        await asyncio.sleep(0.01)
        for _ in range(5):
            queue.put(A)

    run(looks, steps)
    assert looks.names == ["a", "a"]
    assert looks.most_at_once == 1


def test_failures_are_tried_again_later_and_bugs_do_not_stop_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handlers, "_BACKOFF_SECONDS", (0.05, 0.05))

    def fail(count: int) -> Phase | None:
        if count == 1:
            raise ClusterError("the API is away")
        if count == 2:
            raise ValueError("a bug")
        return Phase.RUNNING

    looks = Looks(fail)
    run(looks, lambda queue: [queue.put(A), queue.put(B)])
    assert sorted(looks.names) == ["a", "a", "a", "b", "b", "b"]


def test_what_is_gone_is_forgotten() -> None:
    queue = run(Looks(lambda _: None), lambda queue: queue.put(A))
    assert queue.known == set()


def test_a_part_wakes_only_what_is_known() -> None:
    looks = Looks()
    watch = Watch(lambda: Queue(looks, Metrics(CollectorRegistry())))

    async def go() -> float:
        await watch.start(kopf.OperatorSettings())
        await watch.on_part(
            GANGS, RUN_LABEL, name="pod", namespace="team", labels={"fengshenbang.io/run": "a"}
        )
        await watch.on_resource("TrainingRun", namespace="team", name="a", status={}, type="ADDED")
        await asyncio.sleep(0.1)
        await watch.on_part(
            GANGS, RUN_LABEL, name="pod", namespace="team", labels={"fengshenbang.io/run": "a"}
        )
        await watch.on_part(
            GANGS, RUN_LABEL, name="pod", namespace="other", labels={"fengshenbang.io/run": "a"}
        )
        await asyncio.sleep(0.1)
        await watch.on_resource(
            "TrainingRun", namespace="team", name="a", status={}, type="DELETED"
        )
        await watch.on_part(
            GANGS, RUN_LABEL, name="pod", namespace="team", labels={"fengshenbang.io/run": "a"}
        )
        await asyncio.sleep(0.1)
        age = await watch.check()
        await watch.stop()
        return age

    assert asyncio.run(go()) < 5
    assert looks.names == ["a", "a", "a"], "what a watch saw go is looked at once more"


def test_what_is_deleted_during_a_look_is_not_counted_for_ever() -> None:
    """The look began before; the one after it finds the resource gone."""
    looks = Looks(lambda count: Phase.RUNNING if count == 1 else None)
    registry = CollectorRegistry()
    watch = Watch(lambda: Queue(looks, Metrics(registry)))

    async def go() -> None:
        await watch.start(kopf.OperatorSettings())
        await watch.on_resource("TrainingRun", namespace="team", name="a", status={}, type="ADDED")
        await asyncio.sleep(0.01)
        await watch.on_resource(
            "TrainingRun", namespace="team", name="a", status={}, type="DELETED"
        )
        await asyncio.sleep(0.2)
        assert watch._queue
        assert not watch._queue.known
        await watch.stop()

    asyncio.run(go())
    labels = {"kind": "TrainingRun", "phase": "Running"}
    assert registry.get_sample_value("fsb_operator_resources", labels) == 0


def test_a_sweep_leaves_gangs_alone_that_have_ended() -> None:
    looks = Looks()
    served = ("ServedModel", "team", "s")
    phases = {A: "Succeeded", B: "Running", served: "Failed"}

    async def steps(queue: Queue) -> None:
        queue._list_phases = lambda: phases
        await queue.sweep_once()

    run(looks, steps)
    assert sorted(looks.names) == ["b", "s"]


def test_what_a_finalizer_keeps_is_no_stale_watch() -> None:
    """A resource that is being deleted is listed on and on, and the watch has told of it."""
    watch = Watch(
        lambda: Queue(Looks(lambda _: None), Metrics(CollectorRegistry()), lambda: {A: "Running"})
    )

    async def go() -> None:
        await watch.start(kopf.OperatorSettings())
        assert watch._queue
        await watch.on_resource(
            "TrainingRun", namespace="team", name="a", status={}, type="MODIFIED"
        )
        for _ in range(3):
            await asyncio.sleep(0.1)
            await watch._queue.sweep_once()
            await watch.check()
        await watch.stop()

    asyncio.run(go())


def test_a_silent_run_is_measured_while_it_runs() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)

    def silence() -> float | None:
        labels = dict(zip(("kind", "namespace", "name"), A, strict=True))
        return registry.get_sample_value("fsb_operator_silent_seconds", labels)

    metrics.note_silence(A, 90)
    metrics.note_phase(A, Phase.RUNNING)
    assert silence() == 90
    metrics.note_phase(A, Phase.BLOCKED)
    assert silence() is None
    # Prometheus sees no increase of a series that begins with one.
    labels = {"kind": "TrainingRun"}
    assert registry.get_sample_value("fsb_operator_failures_total", labels) == 0


def test_an_evaluation_that_ended_wakes_what_may_serve_it() -> None:
    looks = Looks()
    watch = Watch(lambda: Queue(looks, Metrics(CollectorRegistry())))

    async def go() -> None:
        await watch.start(kopf.OperatorSettings())
        for namespace in ("team", "other"):
            await watch.on_resource(
                "ServedModel", namespace=namespace, name=f"s-{namespace}", status={}, type="ADDED"
            )
        await asyncio.sleep(0.1)
        for phase in ("Running", "Succeeded"):
            await watch.on_resource(
                "Evaluation", namespace="team", name="e", status={"phase": phase}, type="MODIFIED"
            )
            await asyncio.sleep(0.1)
        await watch.on_part(
            ("ServedModel",), "", namespace="other", name="s-other", labels={}, type="MODIFIED"
        )
        await asyncio.sleep(0.1)
        await watch.stop()

    asyncio.run(go())
    assert looks.names == ["s-team", "s-other", "e", "e", "s-team", "s-other"]


def test_resources_are_counted_by_phase() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)

    def count(phase: str) -> float | None:
        labels = {"kind": "TrainingRun", "phase": phase}
        return registry.get_sample_value("fsb_operator_resources", labels)

    metrics.note_phase(A, Phase.RUNNING)
    metrics.note_phase(A, Phase.RUNNING)
    metrics.note_phase(B, Phase.RUNNING)
    assert count("Running") == 2
    metrics.note_phase(A, Phase.FAILED)
    metrics.note_phase(B, None)
    assert (count("Running"), count("Failed")) == (0, 1)


def test_every_kind_and_part_is_watched() -> None:
    registry = kopf.OperatorRegistry()
    Watch(lambda: Queue(Looks(), Metrics(CollectorRegistry()))).register(registry)
    watched = {str(handler.selector) for handler in registry._watching.get_all_handlers()}
    for plural in ("datapreparations", "servedmodels", "pytorchjobs", "inferenceservices", "pods"):
        assert any(plural in selector for selector in watched), plural


def test_a_sweep_finds_what_no_watch_told_of_and_the_probe_fails() -> None:
    looks = Looks()
    there = {A}
    watch = Watch(
        lambda: Queue(looks, Metrics(CollectorRegistry()), lambda: dict.fromkeys(there, "Running"))
    )

    async def go() -> None:
        await watch.start(kopf.OperatorSettings())
        queue = watch._queue
        assert queue
        await watch.on_resource("TrainingRun", namespace="team", name="a", status={}, type="ADDED")
        for _ in range(2):
            await queue.sweep_once()
            await watch.check()
        there.add(B)
        await queue.sweep_once()
        await asyncio.sleep(0.1)
        assert "b" in looks.names, "it is looked at all the same"
        await watch.check()
        await queue.sweep_once()
        with pytest.raises(kopf.PermanentError, match="no watch told of"):
            await watch.check()
        await watch.on_resource("TrainingRun", namespace="team", name="b", status={}, type="ADDED")
        await queue.sweep_once()
        await watch.check()
        queue.last_sweep -= 1000
        with pytest.raises(kopf.PermanentError, match="no sweep for"):
            await watch.check()
        await watch.stop()

    asyncio.run(go())


def test_an_operator_of_a_few_namespaces_follows_no_definitions() -> None:
    settings = kopf.OperatorSettings()
    watch = Watch(lambda: Queue(Looks(), Metrics(CollectorRegistry())), is_clusterwide=False)

    async def go() -> None:
        await watch.start(settings)
        await watch.stop()

    asyncio.run(go())
    assert settings.scanning.disabled
