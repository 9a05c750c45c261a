"""What only events tell: refused pods, volumes that cannot be mounted, a job nobody looks at."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from kubernetes import client

from pyfsb.resources.status import Phase
from tests.unit.operators import test_reconcile
from tests.unit.operators.test_reconcile import (
    Clock,
    FakeCluster,
    make_event,
    make_pod,
    make_reconciler,
    status,
)

cluster = test_reconcile.cluster


def test_pods_that_are_refused_are_told_with_the_refusers_words(cluster: FakeCluster) -> None:
    clock = Clock()
    reconciler = replace(make_reconciler(cluster), clock=clock)

    def again() -> Phase | None:
        return reconciler.reconcile("TrainingRun", "team", "demo")

    assert again() is Phase.STARTING
    began = clock.now
    quota = 'pods "demo-master-0" is forbidden: exceeded quota: gpus'
    old = make_event("FailedCreatePod", "of the gang before", began - timedelta(minutes=5))
    cluster.told["job-uid"] = [old]
    clock.now += timedelta(seconds=20)
    assert again() is Phase.STARTING, "an event of an earlier attempt"
    cluster.told["job-uid"] = [old, make_event("FailedCreatePod", quota, clock.now)]
    assert again() is Phase.BLOCKED
    assert status(cluster)["message"] == quota
    cluster.pods = [
        make_pod("m", "1"),
        make_pod("w", "2", waiting=client.V1ContainerStateWaiting()),
    ]
    cluster.told["2"] = [make_event("FailedMount", 'secret "fengshenbang-s3" not found', clock.now)]
    assert again() is Phase.BLOCKED
    assert status(cluster)["message"] == 'w: FailedMount: secret "fengshenbang-s3" not found'
    pulling = make_event("Pulling", "pulling image", clock.now)
    pulling.type = "Normal"
    cluster.told["2"].append(pulling)
    assert again() is Phase.STARTING, "it could be mounted in the end"
    cluster.pods = [make_pod("m", "1"), make_pod("w", "2")]
    assert again() is Phase.RUNNING


def test_a_job_that_nobody_looks_at_is_told(cluster: FakeCluster) -> None:
    clock = Clock()
    reconciler = replace(make_reconciler(cluster), clock=clock)
    reconciler.reconcile("TrainingRun", "team", "demo")
    clock.now += timedelta(seconds=70)
    assert reconciler.reconcile("TrainingRun", "team", "demo") is Phase.BLOCKED
    assert "does the Training Operator run?" in status(cluster)["message"]
