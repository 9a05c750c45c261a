"""The progress server over real HTTP: who may report, what is written, what Prometheus sees."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from operators.progress.__main__ import build_tls
from operators.progress.server import ProgressServer
from pyfsb.errors import ClusterError, ConfigError
from pyfsb.training.meters import StepMetrics
from pyfsb.training.progress import Part, Target, Work
from pyfsb.training.progress import Progress as Reporting

RUN = ("TrainingRun", "team", "demo")
STAMP = "2026-01-01T00:00:00+00:00"


class FakeCluster:
    """A cluster with one run and one pod of it."""

    def __init__(self) -> None:
        self.labels = {"fengshenbang.io/run": "demo", "fengshenbang.io/kind": "TrainingRun"}
        self.review: dict[str, Any] = {
            "authenticated": True,
            "audiences": ["aud"],
            "user": {
                "username": "system:serviceaccount:team:fengshenbang-run",
                "extra": {
                    "authentication.kubernetes.io/pod-name": ["demo-master-0"],
                    "authentication.kubernetes.io/pod-uid": ["u"],
                },
            },
        }
        self.has_run = True
        self.is_away = False
        self.reviews: list[tuple[str, str]] = []
        self.patches: list[tuple[tuple[str, str, str], dict[str, Any]]] = []

    def review_token(self, token: str, audience: str) -> dict[str, Any]:
        self.reviews.append((token, audience))
        if token != "good":
            return {"authenticated": False}
        return self.review

    def get(self, _version: str, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        if kind == "Pod" and (namespace, name) == ("team", "demo-master-0"):
            return {"metadata": {"uid": "u", "labels": self.labels}}
        return {} if self.has_run and (kind, namespace, name) == RUN else None

    def patch_status(self, kind: str, namespace: str, name: str, status: dict[str, Any]) -> None:
        if self.is_away:
            raise ClusterError("away")
        self.patches.append(((kind, namespace, name), status))


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Running:
    """A server on a thread of its own."""

    def __init__(self, cluster: FakeCluster, clock: Clock) -> None:
        self.clock = clock
        self.cluster = cluster
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.server, self.runners, self.port, self.metrics_port = self.call(self._start())

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    async def _start(self) -> tuple[ProgressServer, list[web.AppRunner], int, int]:
        server = ProgressServer(self.cluster, audience="aud", clock=self.clock)
        runners, ports = [], []
        for app in (server.build_app(), server.build_metrics_app()):
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            runners.append(runner)
            ports.append(runner.addresses[0][1])
        return server, runners, ports[0], ports[1]

    def stop(self) -> None:
        for runner in self.runners:
            self.call(runner.cleanup())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def post(
        self, body: Any = None, *, run: tuple[str, str, str] = RUN, token: str | None = "good"
    ) -> tuple[int, dict[str, Any]]:
        data = body if isinstance(body, bytes) else json.dumps(body or a_report()).encode()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/{'/'.join(run)}", data=data, headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as exc:
            return exc.code, json.load(exc)

    def metrics(self) -> list[str]:
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=20) as response:
            text = response.read().decode()
        return [line for line in text.split("\n") if line and not line.startswith("#")]


def a_report(percentage: int | None = 50, eta: int | None = 7500, **metrics: str) -> dict[str, Any]:
    status: dict[str, Any] = {
        "metrics": [{"name": name, "value": value} for name, value in metrics.items()],
        "lastUpdatedTime": STAMP,
    }
    if percentage is not None:
        status["progressPercentage"] = percentage
    if eta is not None:
        status["estimatedRemainingSeconds"] = eta
    return {"trainerStatus": status}


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def tick_seconds() -> float:
    """Seconds until late reports are written: never, in most tests."""
    return 3600.0


@pytest.fixture
def running(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, tick_seconds: float
) -> Iterator[Running]:
    monkeypatch.setattr("operators.progress.server._TICK_SECONDS", tick_seconds)
    running = Running(cluster, Clock())
    yield running
    running.stop()


def test_a_pod_reports_about_its_own_run(running: Running, cluster: FakeCluster) -> None:
    assert running.post(a_report(step="5", total_steps="10", loss="2.5")) == (200, {})
    ((run, status),) = cluster.patches
    assert run == RUN
    progress = status["progress"]
    assert progress.pop("reportedAt")
    assert progress == {
        "step": 5, "totalSteps": 10, "loss": "2.5000", "percentage": 50, "etaSeconds": 7500,
        "eta": "2h05m",
    }  # fmt: skip
    assert cluster.reviews == [("good", "aud")]


def test_a_run_is_written_now_and_then_and_the_newest_wins(
    running: Running, cluster: FakeCluster
) -> None:
    for step in ("1", "2", "3"):
        assert running.post(a_report(step=step, eta=None))[0] == 200
    assert [status["progress"]["step"] for _, status in cluster.patches] == [1]
    assert cluster.patches[0][1]["progress"]["eta"] is None  # removes an old one
    running.clock.now += 3
    running.post(a_report(step="4"))
    assert [status["progress"]["step"] for _, status in cluster.patches] == [1, 4]
    running.post(a_report(step="5"))
    running.call(running.server.flush())  # as at the end of the server
    assert [status["progress"]["step"] for _, status in cluster.patches] == [1, 4, 5]


@pytest.mark.parametrize("tick_seconds", [0.01])
def test_a_late_report_is_written_without_another_one(
    running: Running, cluster: FakeCluster
) -> None:
    running.post(a_report(step="1"))
    running.post(a_report(step="2"))
    running.clock.now += 3
    deadline = time.monotonic() + 20
    while len(cluster.patches) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [status["progress"]["step"] for _, status in cluster.patches] == [1, 2]


def test_answers_are_kept_for_a_minute(running: Running, cluster: FakeCluster) -> None:
    running.post()
    running.post()
    assert len(cluster.reviews) == 1
    cluster.review = {"authenticated": False}
    running.clock.now += 61
    assert running.post()[0] == 401
    assert len(cluster.reviews) == 2


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"token": None}, 401, "no bearer token"),
        ({"token": "bad"}, 401, "not a valid token for aud"),
        ({"run": ("TrainingRun", "team", "other")}, 403, "does not belong to this run"),
        ({"run": ("TrainingRun", "spy", "demo")}, 403, "does not belong to this run"),
        ({"run": ("Evaluation", "team", "demo")}, 403, "does not belong to this run"),
        ({"run": ("ServedModel", "team", "demo")}, 404, "unknown kind 'ServedModel'"),
        ({"run": ("TrainingRun", "team", "UP")}, 404, "no such run"),
        ({"body": b"{"}, 400, "not JSON"),
        ({"body": b"[" * 30000}, 400, "not JSON"),
        ({"body": b"[]"}, 400, "not a JSON object"),
        ({"body": {"x": 1}}, 400, "trainerStatus"),
        ({"body": {"trainerStatus": {"progressPercentage": 101}}}, 400, "progressPercentage"),
        ({"body": b" " * 70000}, 413, "Too Large"),
    ],
)
def test_what_is_refused_says_why(
    running: Running, cluster: FakeCluster, change: dict[str, Any], status: int, words: str
) -> None:
    found, body = running.post(**change)
    assert (found, words in body["error"]) == (status, True), body
    assert cluster.patches == []


@pytest.mark.parametrize(
    ("spoil", "status", "words"),
    [
        (lambda c: c.review.update(audiences=["other"]), 401, "not a valid token"),
        (lambda c: c.review["user"].update(extra={}), 403, "not bound to a pod"),
        (lambda c: c.review["user"].update(username="jane"), 403, "not bound to a pod"),
        (
            lambda c: c.review["user"].update(username="system:serviceaccount:spy:x"),
            403, "pod is gone",
        ),
        (
            lambda c: c.review["user"]["extra"].update(
                {"authentication.kubernetes.io/pod-uid": ["older"]}
            ),
            403, "pod is gone",
        ),
        (lambda c: c.labels.clear(), 403, "belongs to no run"),
        (
            lambda c: c.labels.update({"fengshenbang.io/kind": "Nonsense"}),
            403, "belongs to no run",
        ),
        (lambda c: setattr(c, "has_run", False), 404, "there is no TrainingRun team/demo"),
    ],
)  # fmt: skip
def test_a_token_is_worth_what_its_pod_is(
    running: Running, cluster: FakeCluster, spoil: Any, status: int, words: str
) -> None:
    spoil(cluster)
    found, body = running.post()
    assert (found, words in body["error"]) == (status, True), body
    assert cluster.patches == []


def test_an_api_server_that_is_away_is_tried_again(running: Running, cluster: FakeCluster) -> None:
    cluster.is_away = True
    assert running.post(a_report(step="7"))[0] == 503
    cluster.is_away = False
    running.call(running.server.flush())
    assert [status["progress"]["step"] for _, status in cluster.patches] == [7]


def test_other_methods_and_paths_are_answered_in_json(running: Running) -> None:
    base = f"http://127.0.0.1:{running.port}"
    for path, method, status in (("/v1/x", "POST", 404), (f"/v1/{'/'.join(RUN)}", "GET", 405)):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(urllib.request.Request(base + path, method=method), timeout=20)
        assert caught.value.code == status
        assert "error" in json.load(caught.value)


def test_gauges_live_as_long_as_a_run_reports(running: Running) -> None:
    running.post(a_report(step="5", total_steps="10", loss="2.5", tokens_per_second="99"))
    labels = '{kind="TrainingRun",name="demo",namespace="team"}'
    assert running.metrics() == [
        f"fsb_run_step{labels} 5.0", f"fsb_run_total_steps{labels} 10.0",
        f"fsb_run_loss{labels} 2.5", f"fsb_run_tokens_per_second{labels} 99.0",
        f"fsb_run_eta_seconds{labels} 7500.0",
    ]  # fmt: skip
    running.server.board.forget_silent(now=running.clock.now + 599)
    assert running.metrics()
    running.server.board.forget_silent(now=running.clock.now + 601)
    assert running.metrics() == []


def test_health_fails_when_late_reports_are_not_written(running: Running) -> None:
    url = f"http://127.0.0.1:{running.metrics_port}/healthz"
    with urllib.request.urlopen(url, timeout=20) as response:
        assert json.load(response) == {"status": "ok"}
    running.server._last_tick = running.clock.now - 61
    with pytest.raises(urllib.error.HTTPError, match="503"):
        urllib.request.urlopen(url, timeout=20)


def test_the_files_of_https_belong_together(tmp_path: Path) -> None:
    assert build_tls(None, None) is None
    with pytest.raises(ConfigError, match="belong together"):
        build_tls(tmp_path / "c", None)
    with pytest.raises(ConfigError, match="cannot use"):
        build_tls(tmp_path / "c", tmp_path / "k")


def point_at(running: Running, token: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    token.write_text("good\n")
    url = f"http://127.0.0.1:{running.port}/v1/{'/'.join(RUN)}"
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", url)
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_TOKEN", str(token))
    monkeypatch.delenv("KUBEFLOW_TRAINER_SERVER_CA_CERT", raising=False)
    return url


def test_our_trainer_reports(running: Running, tmp_path: Path, cluster: FakeCluster) -> None:
    token = tmp_path / "token"
    token.write_text("good")
    url = f"http://127.0.0.1:{running.port}/v1/{'/'.join(RUN)}"
    work = Work(
        num_steps=4, num_parameters=10, peak_flops=1e6,
        part=Part(task="tnews", number=1, num_parts=2),
    )  # fmt: skip
    reporting = Reporting(work, Target(url=url, token_path=token), step=0)
    metrics = StepMetrics(
        step=4, loss=1.5, gradient_norm=1.0, learning_rate=0.1, epoch=0, num_samples=1,
        num_tokens=10, num_targets=1, seconds=0.5, tokens_per_second=2000.0,
    )  # fmt: skip
    reporting.note(
        step=metrics["step"], loss=metrics["loss"], seconds=metrics["seconds"],
        tokens_per_second=metrics["tokens_per_second"],
    )  # fmt: skip
    reporting.close()
    running.call(running.server.flush())
    progress = cluster.patches[-1][1]["progress"]
    del progress["reportedAt"]
    assert progress == {
        "step": 4, "totalSteps": 4, "percentage": 100, "loss": "1.5000", "tokensPerSecond": 2000,
        "mfu": "0.120", "etaSeconds": 0, "eta": "0s", "task": "tnews",
    }  # fmt: skip


def test_transformers_own_callback_reports(
    running: Running, tmp_path: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at(running, tmp_path / "token", monkeypatch)
    from transformers.integrations.integration_utils import KubeflowCallback

    assert os.environ["KUBEFLOW_TRAINER_SERVER_URL"]
    callback = KubeflowCallback()
    state = SimpleNamespace(is_world_process_zero=True, max_steps=40, global_step=0, epoch=0.0)
    callback.on_train_begin(None, state, None)
    running.call(running.server.flush())
    assert cluster.patches[-1][1]["progress"]["totalSteps"] == 40
    state.global_step = 10
    callback.on_log(None, state, None, logs={"loss": 2.25, "learning_rate": 0.1})
    callback._last_update_time = 0.0
    callback.on_step_end(None, state, None)
    running.call(running.server.flush())
    progress = cluster.patches[-1][1]["progress"]
    assert (progress["step"], progress["percentage"], progress["loss"]) == (10, 25, "2.2500")
    assert progress["etaSeconds"] >= 0
    callback.on_train_end(None, state, None)
    running.call(running.server.flush())
    progress = cluster.patches[-1][1]["progress"]
    assert (progress["step"], progress["percentage"], progress["eta"]) == (40, 100, "0s")
