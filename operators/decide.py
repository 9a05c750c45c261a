# SPDX-License-Identifier: Apache-2.0
"""What to do about a gang: one pure function from everything observed to what should be.

Level-triggered: called with all conditions *and* pods each time anything moves, it gives the same
answer for the same sight, so a restarted operator goes on where it was. Knows no PyTorchJob, no
clock and no cluster.

Source: which single-pod behaviour has to be made good is in DESIGN.md's facts on PyTorchJob v1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from pyfsb.errors import EXIT_RETRY
from pyfsb.resources.kinds import RestartPolicy
from pyfsb.resources.status import Phase

FIRST_RETRYABLE: Final = 128
"""Exit codes from here on mean a lost peer or a signal: another attempt may succeed."""
BLOCKING: Final = (
    "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull",
    "CreateContainerConfigError", "CreateContainerError", "Unschedulable",
)  # fmt: skip
"""Reasons for which a pod waits that are the cluster's, not the program's."""
_CANNOT_START: Final = ("StartError", "ContainerCannotRun")
"""The image has no such command: exit code 128 of nothing that ran."""
_LAST_WORDS: Final = 300
"""Characters of a lost pod's message that go into the reason of a restart."""
_STUCK_AFTER: Final = timedelta(seconds=60)
"""So long after its time a pod that is being deleted has no kubelet any more."""
_DEFAULT_POLICY: Final = RestartPolicy()


class JobState(StrEnum):
    """What the job under a gang says of itself, all its conditions read together."""

    ABSENT = "absent"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Wish(StrEnum):
    """What the job should be."""

    RUNNING = "running"
    SUSPENDED = "suspended"
    ABSENT = "absent"
    AS_IT_IS = "as it is"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One pod of the gang."""

    name: str
    uid: str
    is_running: bool = False
    """Its container runs."""
    exit_code: int | None = None
    """Of the container, once it ended."""
    reason: str = ""
    """Why it waits or ended, in Kubernetes' word."""
    message: str = ""
    """The same in a sentence; of a container that ended, its last log lines."""
    is_lost: bool = False
    """It is taken away - preempted, evicted, deleted, its node dead - and will not come back."""
    ending_by: datetime | None = None
    """When it should be gone, once somebody deleted it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What keeps pods from being made or started, where only an event tells."""

    reason: str
    """In Kubernetes' word."""
    message: str
    """In a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """Everything that was observed."""

    now: datetime
    num_pods: int
    """Pods that the gang should have."""
    job: JobState
    pods: tuple[Pod, ...] = ()
    job_message: str = ""
    """What the job says about its failure."""
    trouble: Trouble | None = None
    """What events say about pods that are missing or do not start."""
    is_outdated: bool = False
    """The spec was changed since the job was made from it."""
    has_record: bool = False
    """The stage's record is on storage: the work is complete."""
    wants_suspension: bool = False
    stopper_ended: bool = False
    """The workflow that the work belongs to is gone or has ended."""
    policy: RestartPolicy = _DEFAULT_POLICY
    deadline_seconds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What the status remembers from one sight to the next."""

    phase: Phase = Phase.PENDING
    start_time: datetime | None = None
    """When the first gang was asked for."""
    restart_times: tuple[datetime, ...] = ()
    """Restarts within the window."""
    num_restarts: int = 0
    pod_uids: tuple[str, ...] = ()
    """Pods of the gang that runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What should be, and what to tell."""

    job: Wish
    memory: Memory
    reason: str
    message: str

    @property
    def phase(self) -> Phase:
        """Where the work stands."""
        return self.memory.phase


def decide(sight: Sight, memory: Memory) -> Decision:
    """Return what should be done about a gang.

    Args:
        sight: What was observed.
        memory: What the status remembers.
    """
    if memory.phase in (Phase.SUCCEEDED, Phase.FAILED):
        return Decision(job=Wish.AS_IT_IS, memory=memory, reason="Ended", message="")
    if sight.has_record and sight.job in (JobState.SUCCEEDED, JobState.FAILED):
        return _end(memory, Phase.SUCCEEDED, "Complete", "the record is written", job=Wish.AS_IT_IS)
    if sight.stopper_ended:
        return _end(memory, Phase.FAILED, "WorkflowEnded", "the workflow it belongs to has ended")
    overdue = _overdue(sight, memory)
    if overdue:
        return overdue
    if sight.wants_suspension:
        quiet = replace(memory, phase=Phase.SUSPENDED, pod_uids=())
        return Decision(
            job=Wish.ABSENT if sight.job is JobState.FAILED else Wish.SUSPENDED, memory=quiet,
            reason="Suspended", message="spec.suspend is true; saved states are kept",
        )  # fmt: skip
    if sight.job in (JobState.ABSENT, JobState.SUSPENDED):
        return _start(sight, memory)
    if sight.job is JobState.SUCCEEDED:
        if not sight.pods:  # their node is gone; started again they find the record and say so
            return _restart(sight, memory, "its pods are gone, and their last word with them")
        text = "the pods ended well, but left no record; see their logs"
        return _end(memory, Phase.FAILED, "NoRecord", text, job=Wish.AS_IT_IS)
    return _look_at_pods(sight, memory)


def _overdue(sight: Sight, memory: Memory) -> Decision | None:
    if sight.deadline_seconds is None or memory.start_time is None:
        return None
    if sight.now - memory.start_time < timedelta(seconds=sight.deadline_seconds):
        return None
    text = f"still going {sight.deadline_seconds} s after the start (deadlineSeconds)"
    return _end(memory, Phase.FAILED, "DeadlineExceeded", text)


def _start(sight: Sight, memory: Memory) -> Decision:
    """Start a gang, once none of its old pods is left: they have the same names."""
    if sight.pods:
        return _wait_for_old_pods(sight, memory)
    begun = replace(
        memory, phase=Phase.STARTING, start_time=memory.start_time or sight.now, pod_uids=()
    )
    return Decision(job=Wish.RUNNING, memory=begun, reason="Started", message="pods are made")


def _wait_for_old_pods(sight: Sight, memory: Memory) -> Decision:
    """Wait; a pod of a dead node goes only when somebody who knows says that it is off."""
    waiting = replace(memory, phase=Phase.RESTARTING, pod_uids=())
    stuck = sorted(
        pod.name
        for pod in sight.pods
        if pod.ending_by is not None and sight.now > pod.ending_by + _STUCK_AFTER
    )
    if not stuck:
        text = f"{len(sight.pods)} old pods are ending"
        return Decision(job=Wish.AS_IT_IS, memory=waiting, reason="Restarting", message=text)
    text = (
        f"{', '.join(stuck)} does not end: its node does not answer. When that node is surely off: "
        f"kubectl delete pod --force {' '.join(stuck)}"
    )
    return Decision(job=Wish.AS_IT_IS, memory=waiting, reason="NodeLost", message=text)


def _look_at_pods(sight: Sight, memory: Memory) -> Decision:
    """Decide about a job that is active or failed."""
    is_broken = any(pod.exit_code and not _is_permanent(pod) for pod in sight.pods)
    if sight.has_record and not is_broken:
        # The job is about to say so too, and to take away the pods that are still there.
        text = "the record is written, the pods are ending"
        return Decision(job=Wish.AS_IT_IS, memory=memory, reason="Ending", message=text)
    wrong = next((pod for pod in sight.pods if _is_permanent(pod)), None)
    if wrong:
        text = f"{wrong.name} ended with exit code {wrong.exit_code}: {wrong.message}".rstrip(": ")
        return _end(memory, Phase.FAILED, "PermanentError", text)
    lost = _what_was_lost(sight, memory)
    if lost:
        return _restart(sight, memory, lost)
    trouble = _what_blocks(sight)
    if trouble:
        return _block(sight, memory, trouble)
    num_running = sum(pod.is_running for pod in sight.pods)
    if num_running < sight.num_pods:
        phase = memory.phase if memory.phase is Phase.RUNNING else Phase.STARTING
        waits = (f"{pod.name} {pod.message}" for pod in sight.pods if pod.message)
        text = "; ".join((f"{num_running} of {sight.num_pods} pods run", *waits))
        return Decision(
            job=Wish.RUNNING, memory=replace(memory, phase=phase), reason="Starting", message=text
        )
    uids = tuple(sorted(pod.uid for pod in sight.pods))
    running = replace(memory, phase=Phase.RUNNING, pod_uids=uids)
    return Decision(
        job=Wish.RUNNING, memory=running, reason="Running", message=f"{num_running} pods run"
    )


def _what_blocks(sight: Sight) -> Trouble | None:
    """Return what keeps pods from running until somebody does something."""
    for pod in sight.pods:
        if pod.reason in BLOCKING:
            text = f"{pod.name}: {pod.reason}: {pod.message}".rstrip(": ")
            return Trouble(reason=pod.reason, message=text)
    return sight.trouble


def _block(sight: Sight, memory: Memory, trouble: Trouble) -> Decision:
    """Tell what blocks the gang; a spec that was changed meanwhile may be the remedy."""
    if sight.is_outdated:
        again = replace(memory, phase=Phase.RESTARTING, pod_uids=())
        text = f"spec was changed, the pods are made anew; before: {trouble.message}"
        return Decision(job=Wish.SUSPENDED, memory=again, reason="SpecChanged", message=text)
    return Decision(
        job=Wish.RUNNING, memory=replace(memory, phase=Phase.BLOCKED), reason=trouble.reason,
        message=trouble.message,
    )  # fmt: skip


def _is_permanent(pod: Pod) -> bool:
    """Say whether a pod's end means that another attempt would end the same way."""
    code = pod.exit_code
    if pod.reason in _CANNOT_START:
        return True
    if pod.is_lost:  # whatever it ended with, it was made to
        return False
    return code is not None and 0 < code < FIRST_RETRYABLE and code != EXIT_RETRY


def _what_was_lost(sight: Sight, memory: Memory) -> str:
    """Return what broke the gang, or an empty text."""
    for pod in sight.pods:
        words = f"{pod.reason}: {pod.message[-_LAST_WORDS:]}".strip(": ")
        if pod.is_lost and pod.exit_code != 0:
            return f"{pod.name} was taken away: {words}".rstrip(": ")
        if pod.exit_code:
            return f"{pod.name} ended with exit code {pod.exit_code}: {words}".rstrip(": ")
    if memory.pod_uids:
        known = set(memory.pod_uids)
        new = [pod.name for pod in sight.pods if pod.uid not in known]
        if new:
            return f"{', '.join(sorted(new))} was replaced"
        if len(sight.pods) < len(known):
            return f"{len(known) - len(sight.pods)} of {len(known)} pods are gone"
    if sight.job is JobState.FAILED:
        return f"the job failed: {sight.job_message}".rstrip(": ")
    return ""


def _restart(sight: Sight, memory: Memory, why: str) -> Decision:
    """Stop every pod, to start all of them from the last saved state, while the budget lasts."""
    policy = sight.policy
    since = sight.now - timedelta(seconds=policy.window_seconds)
    recent = [moment for moment in memory.restart_times if moment > since]
    if len(recent) >= policy.limit:
        text = (
            f"{why}; {len(recent)} restarts within {policy.window_seconds} s are all that "
            "spec.restart allows"
        )
        return _end(memory, Phase.FAILED, "RestartBudgetExceeded", text)
    again = replace(
        memory, phase=Phase.RESTARTING, restart_times=(*recent, sight.now), pod_uids=(),
        num_restarts=memory.num_restarts + 1,
    )  # fmt: skip
    # A job that ended stays so whatever is done to it: it is made again.
    has_ended = sight.job in (JobState.FAILED, JobState.SUCCEEDED)
    wish = Wish.ABSENT if has_ended else Wish.SUSPENDED
    return Decision(job=wish, memory=again, reason="GangRestart", message=why)


def _end(
    memory: Memory, phase: Phase, reason: str, message: str, *, job: Wish = Wish.SUSPENDED
) -> Decision:
    """End the work; a failure takes its pods with it and keeps the job for whoever looks."""
    return Decision(
        job=job, memory=replace(memory, phase=phase, pod_uids=()), reason=reason, message=message
    )
