from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from kubernetes import client

from operators.decide import JobState
from operators.observe import read_job, read_pod, read_result


def job(*conditions: str, suspend: bool = False, **more: Any) -> dict[str, Any]:
    return {
        "spec": {"runPolicy": {"suspend": suspend}},
        "status": {"conditions": [{"type": name, "status": "True", **more} for name in conditions]},
    }


def test_conditions_are_read_together() -> None:
    assert read_job(None) == (JobState.ABSENT, "")
    assert read_job({"spec": {}})[0] is JobState.ACTIVE
    assert read_job(job("Created", "Running"))[0] is JobState.ACTIVE
    assert read_job(job("Created", "Suspended", suspend=True))[0] is JobState.SUSPENDED
    assert read_job(job("Created", "Running", "Succeeded"))[0] is JobState.SUCCEEDED
    # A failed job stays failed, whatever else it says and however often it is suspended.
    failed = job("Running", "Succeeded", "Failed", suspend=True, message="why")
    assert read_job(failed) == (JobState.FAILED, "why")
    old = {"spec": {}, "status": {"conditions": [{"type": "Failed", "status": "False"}]}}
    assert read_job(old)[0] is JobState.ACTIVE


def pod(*, deleted: datetime | None = None, **status: Any) -> client.V1Pod:
    return client.V1Pod(
        metadata=client.V1ObjectMeta(
            name="x-master-0",
            uid="u",
            deletion_timestamp=deleted,
            owner_references=[
                client.V1OwnerReference("kubeflow.org/v1", None, None, "PyTorchJob", "x", "j")
            ],
        ),
        spec=client.V1PodSpec(containers=[], node_name="node-1"),
        status=client.V1PodStatus(**status),
    )


def container(name: str = "pytorch", **state: Any) -> client.V1ContainerStatus:
    return client.V1ContainerStatus(
        name=name, image="i", image_id="", ready=False, restart_count=0,
        state=client.V1ContainerState(**state),
    )  # fmt: skip


def test_a_running_pod() -> None:
    running = container(running=client.V1ContainerStateRunning())
    assert read_pod(pod(phase="Running", container_statuses=[running])).is_running


def test_the_end_of_a_pod_carries_code_and_last_lines() -> None:
    text = "x" * 5000 + "\nDataError: no rows\n"
    ended = container(terminated=client.V1ContainerStateTerminated(exit_code=3, message=text))
    found = read_pod(pod(phase="Failed", container_statuses=[ended]))
    assert (found.exit_code, found.is_running) == (3, False)
    assert found.message.endswith("DataError: no rows")
    assert len(found.message) == 1500


def test_an_evicted_pod_counts_as_lost() -> None:
    found = read_pod(pod(phase="Failed", reason="Evicted", message="low on memory"))
    assert (found.exit_code, found.reason, found.message) == (137, "Evicted", "low on memory")


RUNNING = container(running=client.V1ContainerStateRunning())


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("PreemptionByScheduler", "preempting to accommodate a higher priority pod"),
        ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"),
        ("TerminationByKubelet", "The node was low on resource: memory."),
    ],
)
def test_a_disrupted_pod_is_lost_though_it_still_runs(reason: str, message: str) -> None:
    condition = client.V1PodCondition(
        type="DisruptionTarget", status="True", reason=reason, message=message
    )
    found = read_pod(pod(phase="Running", container_statuses=[RUNNING], conditions=[condition]))
    assert (found.is_lost, found.reason, found.message) == (True, reason, message)
    condition.status = "False"
    found = read_pod(pod(phase="Running", container_statuses=[RUNNING], conditions=[condition]))
    assert (found.is_lost, found.is_running) == (False, True)


def test_a_disrupted_pod_keeps_its_exit_code() -> None:
    condition = client.V1PodCondition(type="DisruptionTarget", status="True", reason="Eviction")
    ended = container(terminated=client.V1ContainerStateTerminated(exit_code=1, message="x"))
    found = read_pod(pod(phase="Failed", container_statuses=[ended], conditions=[condition]))
    assert (found.is_lost, found.exit_code, found.reason) == (True, 1, "Eviction")


def test_a_deleted_pod_is_lost_and_says_by_when_it_ends() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    found = read_pod(pod(phase="Running", container_statuses=[RUNNING], deleted=moment))
    assert (found.is_lost, found.ending_by, found.reason) == (True, moment, "Deleted")


def test_a_pod_that_ended_and_is_deleted_then_keeps_its_words() -> None:
    state = client.V1ContainerStateTerminated(exit_code=3, message="DataError: no rows")
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    found = read_pod(
        pod(phase="Failed", container_statuses=[container(terminated=state)], deleted=moment)
    )
    assert (found.is_lost, found.exit_code, found.message) == (False, 3, "DataError: no rows")


@pytest.mark.parametrize(
    "status", [{"phase": "Unknown"}, {"phase": "Running", "reason": "NodeLost"}]
)
def test_a_pod_of_a_node_that_is_silent_is_lost(status: dict[str, str]) -> None:
    found = read_pod(pod(**status, container_statuses=[RUNNING]))
    assert (found.is_lost, found.reason) == (True, "NodeLost")
    assert found.message == "node node-1 does not answer"


def test_out_of_memory_says_what_to_do() -> None:
    state = client.V1ContainerStateTerminated(exit_code=137, reason="OOMKilled", message="{...}")
    found = read_pod(pod(phase="Failed", container_statuses=[container(terminated=state)]))
    assert (found.exit_code, found.reason) == (137, "OOMKilled")
    assert found.message.startswith("out of memory: raise resources.memory")


@pytest.mark.parametrize(
    ("name", "message", "expected"),
    [
        ("init-pytorch", None, "init container init-pytorch ended with exit code 1: the master's name was not there in time"),
        ("init-pytorch", "bad address", "init container init-pytorch ended with exit code 1: bad address"),
        ("other", None, "init container other ended with exit code 1"),
    ],
)  # fmt: skip
def test_an_init_container_that_failed_is_told(
    name: str, message: str | None, expected: str
) -> None:
    ended = container(
        name, terminated=client.V1ContainerStateTerminated(exit_code=1, message=message)
    )
    waiting = container(waiting=client.V1ContainerStateWaiting(reason="PodInitializing"))
    found = read_pod(
        pod(phase="Failed", init_container_statuses=[ended], container_statuses=[waiting])
    )
    assert (found.exit_code, found.reason, found.message) == (137, "InitFailed", expected)


def test_a_worker_that_waits_for_the_master_says_so() -> None:
    init = container("init-pytorch", running=client.V1ContainerStateRunning())
    waiting = container(waiting=client.V1ContainerStateWaiting(reason="PodInitializing"))
    found = read_pod(
        pod(phase="Pending", init_container_statuses=[init], container_statuses=[waiting])
    )
    assert (found.reason, found.message) == ("", "waits for the master's name")
    assert not found.is_running


@pytest.mark.parametrize("field", ["container_statuses", "init_container_statuses"])
def test_what_a_container_waits_for_is_told(field: str) -> None:
    waiting = container(
        waiting=client.V1ContainerStateWaiting(reason="ImagePullBackOff", message="no such image")
    )
    found = read_pod(pod(phase="Pending", **{field: [waiting]}))
    assert (found.reason, found.message) == ("ImagePullBackOff", "no such image")


def test_what_the_scheduler_says_is_told() -> None:
    condition = client.V1PodCondition(
        type="PodScheduled", status="False", reason="Unschedulable", message="0/2 nodes"
    )
    found = read_pod(pod(phase="Pending", conditions=[condition]))
    assert (found.reason, found.message) == ("Unschedulable", "0/2 nodes")


def test_a_container_that_is_being_made_waits_for_nothing() -> None:
    waiting = container(waiting=client.V1ContainerStateWaiting(reason="ContainerCreating"))
    assert read_pod(pod(phase="Pending", container_statuses=[waiting])).reason == ""


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        (0, '{"record": "r", "digest": "d"}', {"record": "r", "digest": "d"}),
        (1, '{"record": "r", "digest": "d"}', None),
        (0, "not json", None),
        (0, "[]", None),
        (0, None, None),
    ],
)
def test_results_are_read_from_pods_that_ended_well(
    code: int, message: str | None, expected: object
) -> None:
    ended = container(terminated=client.V1ContainerStateTerminated(exit_code=code, message=message))
    found = pod(phase="Succeeded", container_statuses=[ended])
    assert read_result([found], {"metadata": {"uid": "j"}}) == expected
    # Another job's of the same name, which is going away.
    assert read_result([found], {"metadata": {"uid": "k"}}) is None
    assert read_result([found], None) is None
