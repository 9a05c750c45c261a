"""Gangs over time: names used again, mended specs, other versions' words, what is measured."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from kubernetes import client

from pyfsb.errors import NotReadyError
from pyfsb.resources.status import Phase
from tests.unit.operators import test_reconcile
from tests.unit.operators.test_reconcile import (
    RESULT,
    Clock,
    FakeCluster,
    ended,
    look,
    make_pod,
    make_reconciler,
    status,
)

cluster = test_reconcile.cluster


def test_what_a_deleted_resource_left_is_waited_for(cluster: FakeCluster) -> None:
    """Made again under the same name, at once: neither in the way, nor done already."""
    assert cluster.resource
    look(cluster)
    cluster.resource["metadata"]["uid"] = "another"
    cluster.resource["status"] = {}
    with pytest.raises(NotReadyError, match="of the deleted TrainingRun is not gone yet"):
        look(cluster)
    assert status(cluster) == {}
    cluster.objects.clear()
    cluster.pods = [make_pod("demo-master-0", "1", terminated=ended(0, RESULT))]
    assert look(cluster) is Phase.RESTARTING
    assert "1 old pods are ending" in status(cluster)["message"]
    cluster.pods = []
    assert look(cluster) is Phase.STARTING


def test_a_changed_spec_mends_a_blocked_gang(cluster: FakeCluster) -> None:
    assert cluster.resource
    look(cluster)
    pull = client.V1ContainerStateWaiting(reason="ImagePullBackOff", message="no such image")
    cluster.pods = [make_pod("m", "1", waiting=pull), make_pod("w", "2")]
    assert look(cluster) is Phase.BLOCKED
    cluster.resource["spec"]["image"] = "mended:1"
    cluster.resource["metadata"]["generation"] = 2
    assert look(cluster) is Phase.RESTARTING
    cluster.pods = []
    assert look(cluster) is Phase.STARTING
    job = cluster.objects["PyTorchJob", "demo"]
    template = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    assert template["spec"]["containers"][0]["image"] == "mended:1"
    assert status(cluster).get("restarts", 0) == 0
    cluster.pods = [make_pod("m", "3", waiting=pull), make_pod("w", "4")]
    assert look(cluster) is Phase.BLOCKED


def test_what_has_ended_stays_so_whatever_a_later_version_thinks_of_it(
    cluster: FakeCluster,
) -> None:
    assert cluster.resource
    cluster.resource["status"] = {"phase": "Failed", "unknown": 1}
    cluster.resource["spec"]["unknown"] = 1
    assert look(cluster) is Phase.FAILED
    assert cluster.writes == []


def test_a_status_with_fields_of_another_version_keeps_the_rest(cluster: FakeCluster) -> None:
    look(cluster)
    cluster.pods = [make_pod("m", "1"), make_pod("w", "2")]
    look(cluster)
    status(cluster)["ofANewerVersion"] = "x"
    cluster.pods = [make_pod("m", "1"), make_pod("w", "3")]
    assert look(cluster) is Phase.RESTARTING, "it knows the pods of the gang that ran"


def test_failures_and_silence_are_measured(cluster: FakeCluster) -> None:
    clock = Clock()
    reconciler = replace(make_reconciler(cluster, progressUrl="http://p:8090"), clock=clock)
    reconciler.reconcile("TrainingRun", "team", "demo")
    cluster.pods = [make_pod("m", "1"), make_pod("w", "2")]
    reconciler.reconcile("TrainingRun", "team", "demo")
    clock.now += timedelta(seconds=100)
    reconciler.reconcile("TrainingRun", "team", "demo")
    silence = reconciler.metrics._silences.labels("TrainingRun", "team", "demo")
    assert silence._value.get() == 101
    status(cluster)["progress"] = {"reportedAt": clock.now.isoformat()}
    reconciler.reconcile("TrainingRun", "team", "demo")
    assert silence._value.get() == 1
    cluster.pods = [make_pod("m", "1", terminated=ended(3, "bad")), make_pod("w", "2")]
    assert reconciler.reconcile("TrainingRun", "team", "demo") is Phase.FAILED
    assert reconciler.metrics.failures.labels(kind="TrainingRun")._value.get() == 1


def test_restarts_are_counted(cluster: FakeCluster) -> None:
    reconciler = make_reconciler(cluster)
    for uid in ("2", "2", "3", "3"):
        cluster.pods = [make_pod("m", "1"), make_pod("w", uid)] if cluster.objects else []
        reconciler.reconcile("TrainingRun", "team", "demo")
    count = reconciler.metrics.restarts.labels(kind="TrainingRun")
    assert count._value.get() == 1.0  # what Prometheus reads


def test_what_has_ended_is_left_alone(cluster: FakeCluster) -> None:
    assert cluster.resource
    cluster.resource["status"] = {"phase": "Succeeded"}
    cluster.resource["spec"]["pool"] = "gone"
    assert look(cluster) is Phase.SUCCEEDED
    assert cluster.writes == []
