"""The state machine, sight by sight, and as a whole against a job that behaves as v1 does."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.decide import Decision, JobState, Memory, Pod, Sight, Trouble, Wish, decide
from pyfsb.resources.kinds import RestartPolicy
from pyfsb.resources.status import Phase

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GANG = tuple(Pod(name=f"x-worker-{n}", uid=f"u{n}", is_running=True) for n in range(2))
NEW = Memory()
RUNNING = Memory(phase=Phase.RUNNING, start_time=NOW, pod_uids=("u0", "u1"))


def see(memory: Memory = NEW, **changes: object) -> Decision:
    fields: dict[str, object] = {"now": NOW, "num_pods": 2, "job": JobState.ACTIVE, "pods": GANG}
    return decide(Sight(**{**fields, **changes}), memory)  # type: ignore[arg-type]


def test_a_new_run_gets_its_job() -> None:
    found = see(job=JobState.ABSENT, pods=())
    assert (found.job, found.phase) == (Wish.RUNNING, Phase.STARTING)
    assert found.memory.start_time == NOW


def test_a_gang_runs_when_all_its_pods_do() -> None:
    waiting = replace(GANG[1], is_running=False)
    assert see(pods=(GANG[0], waiting)).phase is Phase.STARTING
    found = see()
    assert found.phase is Phase.RUNNING
    assert found.memory.pod_uids == ("u0", "u1")


def test_what_is_complete_is_never_started() -> None:
    found = see(job=JobState.FAILED, pods=(), has_record=True)
    assert (found.job, found.phase, found.reason) == (Wish.AS_IT_IS, Phase.SUCCEEDED, "Complete")
    assert see(found.memory, job=JobState.FAILED).job is Wish.AS_IT_IS


def test_success_without_a_record_is_a_failure() -> None:
    quiet = tuple(replace(pod, is_running=False, exit_code=0) for pod in GANG)
    assert see(RUNNING, job=JobState.SUCCEEDED, pods=quiet).reason == "NoRecord"
    assert see(RUNNING, job=JobState.SUCCEEDED, has_record=True).phase is Phase.SUCCEEDED


def test_a_job_whose_pods_went_before_their_word_was_read_is_made_again() -> None:
    """The record is on storage: the stage finds it and says so."""
    found = see(RUNNING, job=JobState.SUCCEEDED, pods=())
    assert (found.job, found.phase) == (Wish.ABSENT, Phase.RESTARTING)
    assert see(found.memory, job=JobState.ABSENT, pods=()).job is Wish.RUNNING


def test_what_events_tell_blocks_until_the_pods_run() -> None:
    trouble = Trouble(reason="FailedCreatePod", message="exceeded quota: gpus")
    waiting = Memory(phase=Phase.STARTING, start_time=NOW)
    found = see(waiting, pods=(), trouble=trouble)
    assert (found.phase, found.reason, found.message) == (
        Phase.BLOCKED, "FailedCreatePod", "exceeded quota: gpus",
    )  # fmt: skip
    assert see(found.memory, pods=()).phase is Phase.STARTING
    lost = replace(GANG[1], is_running=False, exit_code=137)
    assert see(waiting, pods=(lost,), trouble=trouble).phase is Phase.RESTARTING


def test_a_blocked_gang_is_made_anew_from_a_changed_spec_at_no_charge() -> None:
    stuck = replace(GANG[1], is_running=False, reason="ImagePullBackOff", message="no such image")
    pods = (GANG[0], stuck)
    found = see(Memory(phase=Phase.BLOCKED, start_time=NOW), pods=pods, is_outdated=True)
    assert (found.job, found.phase, found.reason) == (
        Wish.SUSPENDED, Phase.RESTARTING, "SpecChanged",
    )  # fmt: skip
    assert found.memory.num_restarts == 0
    assert see(RUNNING, is_outdated=True).phase is Phase.RUNNING, "what runs goes on"


@pytest.mark.parametrize("code", [1, 2, 3, 127])
def test_bad_input_fails_at_once_with_its_last_lines(code: int) -> None:
    wrong = replace(GANG[1], is_running=False, exit_code=code, message="DataError: no rows")
    found = see(RUNNING, pods=(GANG[0], wrong))
    assert (found.phase, found.reason, found.job) == (
        Phase.FAILED, "PermanentError", Wish.SUSPENDED,
    )  # fmt: skip
    assert found.message == f"x-worker-1 ended with exit code {code}: DataError: no rows"


@pytest.mark.parametrize("code", [75, 129, 137, 143])
def test_a_lost_peer_restarts_the_whole_gang(code: int) -> None:
    lost = replace(GANG[1], is_running=False, exit_code=code)
    found = see(RUNNING, pods=(GANG[0], lost))
    assert (found.phase, found.job) == (Phase.RESTARTING, Wish.SUSPENDED)
    assert found.memory.restart_times == (NOW,)
    old = see(found.memory, job=JobState.SUSPENDED, pods=(GANG[0],))
    assert old.job is Wish.AS_IT_IS
    assert old.memory.num_restarts == 1
    again = see(old.memory, job=JobState.SUSPENDED, pods=())
    assert (again.job, again.phase) == (Wish.RUNNING, Phase.STARTING)


@pytest.mark.parametrize(
    ("pods", "words"),
    [
        ((GANG[0], replace(GANG[1], uid="new")), "x-worker-1 was replaced"),
        ((GANG[0],), "1 of 2 pods are gone"),
    ],
)
def test_a_pod_that_changed_behind_our_back_restarts_the_gang(
    pods: tuple[Pod, ...], words: str
) -> None:
    found = see(RUNNING, pods=pods)
    assert (found.phase, found.message) == (Phase.RESTARTING, words)


def test_a_failed_job_is_made_again_not_resumed() -> None:
    found = see(RUNNING, job=JobState.FAILED, pods=(), job_message="evicted")
    assert (found.job, found.phase) == (Wish.ABSENT, Phase.RESTARTING)
    assert see(found.memory, job=JobState.ABSENT, pods=GANG).job is Wish.AS_IT_IS
    assert see(found.memory, job=JobState.ABSENT, pods=()).job is Wish.RUNNING


def test_the_budget_counts_restarts_within_the_window() -> None:
    policy = RestartPolicy(limit=2, window_seconds=3600)
    lost = (GANG[0], replace(GANG[1], exit_code=137))
    memory = replace(RUNNING, restart_times=(NOW - timedelta(hours=2), NOW - timedelta(minutes=5)))
    found = see(memory, pods=lost, policy=policy)
    assert found.phase is Phase.RESTARTING
    assert len(found.memory.restart_times) == 2
    spent = replace(found.memory, phase=Phase.RUNNING, pod_uids=("u0", "u1"))
    ended = see(spent, pods=lost, policy=policy)
    assert (ended.phase, ended.reason) == (Phase.FAILED, "RestartBudgetExceeded")
    assert "2 restarts within 3600 s" in ended.message


def test_suspending_keeps_the_states_and_resuming_goes_on() -> None:
    found = see(RUNNING, wants_suspension=True)
    assert (found.phase, found.job) == (Phase.SUSPENDED, Wish.SUSPENDED)
    again = see(found.memory, job=JobState.SUSPENDED, pods=())
    assert (again.phase, again.job) == (Phase.STARTING, Wish.RUNNING)
    assert again.memory.restart_times == ()


@pytest.mark.parametrize("code", [None, 0, 1, 2, 143])
def test_a_pod_that_is_taken_away_is_a_loss_whatever_its_code(code: int | None) -> None:
    taken = replace(
        GANG[1], is_lost=True, exit_code=code, reason="PreemptionByScheduler", message="for y"
    )
    found = see(RUNNING, pods=(GANG[0], taken))
    if code == 0:
        assert found.job is Wish.RUNNING  # it had done its part
    else:
        assert (found.phase, found.job) == (Phase.RESTARTING, Wish.SUSPENDED)
        assert found.message == "x-worker-1 was taken away: PreemptionByScheduler: for y"


def test_a_restart_tells_the_last_words_of_who_was_lost() -> None:
    lost = replace(GANG[1], exit_code=137, reason="OOMKilled", message="out of memory: raise it")
    found = see(RUNNING, pods=(GANG[0], lost))
    assert found.message == (
        "x-worker-1 ended with exit code 137: OOMKilled: out of memory: raise it"
    )
    long = replace(lost, message="x" * 2000 + "end")
    assert len(see(RUNNING, pods=(GANG[0], long)).message) < 400
    assert see(RUNNING, pods=(GANG[0], long)).message.endswith("end")


def test_an_image_without_the_command_is_not_tried_again() -> None:
    wrong = replace(GANG[1], exit_code=128, reason="StartError", message="no such file")
    found = see(RUNNING, pods=(GANG[0], wrong))
    assert (found.phase, found.reason) == (Phase.FAILED, "PermanentError")
    assert found.message == "x-worker-1 ended with exit code 128: no such file"


def test_pods_that_end_after_the_record_are_no_loss() -> None:
    done = replace(GANG[0], is_running=False, exit_code=0)
    ending = replace(GANG[1], is_lost=True, reason="Deleted")
    for pods in ((done, ending), (done,)):
        found = see(RUNNING, pods=pods, has_record=True)
        assert (found.phase, found.job, found.reason) == (Phase.RUNNING, Wish.AS_IT_IS, "Ending")
    # One that was killed leaves the others waiting for it: a new gang finds the record at once.
    killed = replace(GANG[1], exit_code=137)
    assert see(RUNNING, pods=(done, killed), has_record=True).phase is Phase.RESTARTING
    # One that failed by itself fails the job, which does not take the record away.
    failed = replace(GANG[1], exit_code=1)
    assert see(RUNNING, pods=(done, failed), has_record=True).reason == "Ending"
    ended = see(RUNNING, pods=(done, failed), has_record=True, job=JobState.FAILED)
    assert ended.phase is Phase.SUCCEEDED


def test_a_pod_of_a_dead_node_is_named_and_waited_for() -> None:
    old = replace(GANG[1], is_lost=True, ending_by=NOW - timedelta(seconds=61))
    found = see(RUNNING, job=JobState.SUSPENDED, pods=(GANG[0], old))
    assert (found.job, found.phase, found.reason) == (
        Wish.AS_IT_IS, Phase.RESTARTING, "NodeLost",
    )  # fmt: skip
    assert found.message.endswith("kubectl delete pod --force x-worker-1")
    soon = replace(old, ending_by=NOW - timedelta(seconds=59))
    assert see(RUNNING, job=JobState.SUSPENDED, pods=(soon,)).reason == "Restarting"


def test_what_a_starting_pod_waits_for_is_told() -> None:
    waiting = replace(GANG[1], is_running=False, message="waits for the master's name")
    found = see(pods=(GANG[0], waiting))
    assert found.message == "1 of 2 pods run; x-worker-1 waits for the master's name"


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "Unschedulable"])
def test_what_blocks_is_named(reason: str) -> None:
    stuck = replace(GANG[1], is_running=False, reason=reason, message="no such thing")
    found = see(Memory(phase=Phase.STARTING, start_time=NOW), pods=(GANG[0], stuck))
    assert (found.phase, found.reason) == (Phase.BLOCKED, reason)
    assert found.message == f"x-worker-1: {reason}: no such thing"
    assert see(found.memory).phase is Phase.RUNNING


def test_the_end_of_the_workflow_and_the_deadline_end_the_work() -> None:
    assert see(RUNNING, stopper_ended=True).reason == "WorkflowEnded"
    late = NOW + timedelta(seconds=61)
    found = see(RUNNING, now=late, deadline_seconds=60)
    assert (found.reason, found.job) == ("DeadlineExceeded", Wish.SUSPENDED)
    assert see(RUNNING, deadline_seconds=60).phase is Phase.RUNNING


class FakeJob:
    """A PyTorchJob v1 with its own ideas: replaces single pods, and never recovers when failed."""

    def __init__(self) -> None:
        self.state = JobState.ABSENT
        self.pods: dict[str, Pod] = {}
        self.made = 0

    def obey(self, wish: Wish) -> None:
        if wish is Wish.ABSENT:
            self.state = JobState.ABSENT
        elif wish is Wish.SUSPENDED and self.state is JobState.ACTIVE:
            self.state = JobState.SUSPENDED
        elif wish is Wish.RUNNING and self.state in (JobState.ABSENT, JobState.SUSPENDED):
            assert not self.pods, "a new gang beside old pods"
            self.state = JobState.ACTIVE

    def move(self, chance: random.Random) -> None:
        if self.state is not JobState.ACTIVE:
            for name in chance.sample(sorted(self.pods), chance.randint(0, len(self.pods))):
                del self.pods[name]
            return
        for name in ("m", "w"):
            pod = self.pods.get(name)
            if pod is None or (pod.exit_code or 0) >= 128:
                self.made += 1
                self.pods[name] = Pod(name=name, uid=str(self.made))
            elif pod.exit_code is None:
                self.pods[name] = replace(pod, is_running=True)


@given(
    st.integers(0, 2**32),
    st.lists(st.sampled_from(["kill", "delete", "preempt", "fail", "rest"]), max_size=12),
)
def test_whatever_is_lost_the_gang_comes_back_whole(seed: int, faults: list[str]) -> None:
    chance, job, memory = random.Random(seed), FakeJob(), Memory()
    policy = RestartPolicy(limit=1000)
    now = NOW
    for fault in [*faults, *["rest"] * 20]:
        now += timedelta(seconds=10)
        if job.pods and job.state is JobState.ACTIVE:
            name = chance.choice(sorted(job.pods))
            if fault == "kill":
                job.pods[name] = replace(job.pods[name], is_running=False, exit_code=137)
            elif fault == "delete":
                del job.pods[name]
            elif fault == "preempt":
                job.pods[name] = replace(job.pods[name], is_lost=True)
            elif fault == "fail":
                job.state = JobState.FAILED
                job.pods.clear()
        sight = Sight(
            now=now, num_pods=2, job=job.state, pods=tuple(job.pods.values()), policy=policy
        )
        found = decide(sight, memory)
        assert decide(sight, memory) == found
        memory = found.memory
        job.obey(found.job)
        job.move(chance)
        if memory.phase is Phase.RUNNING and sight.job is JobState.ACTIVE:
            assert set(memory.pod_uids) == {pod.uid for pod in sight.pods}
    assert memory.phase is Phase.RUNNING
