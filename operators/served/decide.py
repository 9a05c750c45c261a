# SPDX-License-Identifier: Apache-2.0
"""What to do about a ServedModel: one pure function from everything observed to what should be.

A checkpoint is served once its gate lets it through; what is served already goes on answering until
another one does, whatever a newer evaluation says. Knows no InferenceService and no cluster.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from operators.served.plan import Checkpoint
from pyfsb.resources.status import Phase

_ENDED = (Phase.SUCCEEDED, Phase.FAILED, Phase.INVALID)


class Wish(StrEnum):
    """What the service should be."""

    SERVING = "serving"
    ABSENT = "absent"
    AS_IT_IS = "as it is"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What an Evaluation says."""

    name: str
    phase: Phase | None
    """None: there is no such Evaluation."""
    has_passed: bool = False
    reason: str = ""
    """The gate's, or why the work failed."""
    served: Checkpoint | None = None
    """The checkpoint that the gate is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One pod of the service."""

    name: str
    checkpoint: Checkpoint
    is_ready: bool = False
    trouble: str = ""
    """What keeps it from getting ready, in one word; empty: nothing so far."""
    message: str = ""
    """The same in a sentence; of a container that ended, its last log lines."""
    is_blocked: bool = False
    """The trouble is the cluster's (image, room), not the program's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenService:
    """The service as it is."""

    checkpoint: Checkpoint
    is_ready: bool
    """It says so about its present settings."""
    trouble: str = ""
    """Why it cannot come about at all, in one word."""
    message: str = ""
    """What it says of itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """Everything that was observed."""

    asked: Checkpoint | None = None
    """The checkpoint that is named, a reference resolved."""
    asked_gate: bool | None = None
    """What the model store says about it: its gate passed or not; None: nothing."""
    evaluation: Judgement | None = None
    """The Evaluation that is named."""
    needs_gate: bool = True
    num_copies: int = 1
    """Copies at least."""
    service: SeenService | None = None
    copies: tuple[Copy, ...] = ()
    refusal: str = ""
    """Why copies that are missing are not made: a quota, Pod Security Standard."""
    stopper_ended: bool = False
    """The workflow that the service belongs to is gone or has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A condition: whether it holds, and why."""

    is_true: bool | None
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What should be, and what to tell."""

    wish: Wish
    phase: Phase
    serve: Checkpoint | None
    """What the service serves from now on. None: there is no service."""
    gate: Verdict
    readiness: Verdict
    is_admitted: bool = False
    """What is asked for may be served."""

    @property
    def decisive(self) -> Verdict:
        """The condition that explains the phase."""
        return self.readiness if self.is_admitted else self.gate


@dataclass(frozen=True, slots=True, kw_only=True)
class _Admission:
    """Which checkpoint may be served, and by what right."""

    checkpoint: Checkpoint | None
    verdict: Verdict


def decide(sight: Sight) -> Decision:
    """Return what should be done about a ServedModel.

    Args:
        sight: What was observed.
    """
    if sight.stopper_ended:
        ended = Verdict(
            is_true=False, reason="WorkflowEnded", message="the workflow it belongs to has ended"
        )
        return Decision(
            wish=Wish.ABSENT, phase=Phase.FAILED, serve=None, gate=ended, readiness=ended
        )
    admission = _admit(sight)
    if admission.checkpoint is not None:
        readiness, phase = _look_at_service(sight, admission.checkpoint)
        return Decision(
            wish=Wish.SERVING, phase=phase, serve=admission.checkpoint, gate=admission.verdict,
            readiness=readiness, is_admitted=True,
        )  # fmt: skip
    verdict = admission.verdict
    phase = Phase.PENDING if verdict.is_true is None else Phase.BLOCKED
    if sight.service is None:
        nothing = Verdict(is_true=False, reason=verdict.reason, message=verdict.message)
        return Decision(
            wish=Wish.AS_IT_IS, phase=phase, serve=None, gate=verdict, readiness=nothing
        )
    served = sight.service.checkpoint
    readiness, _ = _look_at_service(sight, served)
    kept = f"{verdict.message}; {served.uri} is served as before"
    return Decision(
        wish=Wish.SERVING, phase=phase, serve=served, gate=replace(verdict, message=kept),
        readiness=readiness,
    )  # fmt: skip


def _admit(sight: Sight) -> _Admission:
    """Return the checkpoint that may be served, or why none may."""
    asked, evaluation = sight.asked, sight.evaluation
    if asked is not None and not sight.needs_gate:
        text = "gate is off: served without an evaluation's consent"
        return _Admission(
            checkpoint=asked, verdict=Verdict(is_true=None, reason="GateOff", message=text)
        )
    if evaluation is None:
        return _admit_by_store(sight)
    name = evaluation.name
    if evaluation.phase not in _ENDED:
        text = f"Evaluation {name} is {evaluation.phase or 'not there yet'}"
        reason = "EvaluationRunning" if evaluation.phase else "EvaluationMissing"
        return _refuse(reason, text, is_true=None)
    if evaluation.phase is not Phase.SUCCEEDED:
        why = f"Evaluation {name} is {evaluation.phase}: {evaluation.reason}".rstrip(": ")
        return _refuse("EvaluationFailed", why)
    if sight.needs_gate and not evaluation.has_passed:
        return _refuse("GateFailed", f"gate of Evaluation {name}: {evaluation.reason}")
    return _admit_by_evaluation(asked, evaluation, needs_gate=sight.needs_gate)


def _admit_by_evaluation(
    asked: Checkpoint | None, evaluation: Judgement, *, needs_gate: bool
) -> _Admission:
    served = evaluation.served
    if served is None:
        return _refuse("NoCheckpoint", f"Evaluation {evaluation.name} names no checkpoint to serve")
    if asked is not None and not asked.is_same(served):
        text = (
            f"the gate of Evaluation {evaluation.name} is about {served.uri}, not about "
            f"{asked.uri}; leave model out, or name the Evaluation of that checkpoint"
        )
        return _refuse("OtherCheckpoint", text)
    if needs_gate:
        verdict = Verdict(is_true=True, reason="GatePassed", message=evaluation.reason)
    else:
        verdict = Verdict(is_true=None, reason="GateOff", message="gate is off")
    if asked is None:
        return _Admission(checkpoint=served, verdict=verdict)
    known = replace(asked, digest=asked.digest or served.digest)
    return _Admission(checkpoint=known, verdict=verdict)


def _admit_by_store(sight: Sight) -> _Admission:
    """Return what the model store's own gate lets through."""
    if sight.asked is None:
        return _refuse("NothingToServe", "neither model nor evaluation is set")
    if sight.asked_gate:
        text = "the version's gate passed when it was registered"
        return _Admission(
            checkpoint=sight.asked,
            verdict=Verdict(is_true=True, reason="VersionGatePassed", message=text),
        )
    what = "its gate did not pass" if sight.asked_gate is False else "no evaluation speaks for it"
    text = f"{sight.asked.uri}: {what}; set evaluation, or gate to off"
    return _refuse("NoEvaluation", text)


def _refuse(reason: str, message: str, *, is_true: bool | None = False) -> _Admission:
    verdict = Verdict(is_true=is_true, reason=reason, message=message)
    return _Admission(checkpoint=None, verdict=verdict)


def _look_at_service(sight: Sight, target: Checkpoint) -> tuple[Verdict, Phase]:
    """Return whether requests are answered, and how far the service is with its target."""
    service = sight.service
    if service is None:
        text = "the InferenceService is made"
        return Verdict(is_true=False, reason="Starting", message=text), Phase.STARTING
    fresh = [copy for copy in sight.copies if copy.checkpoint.is_same(target)]
    num_fresh = sum(copy.is_ready for copy in fresh)
    num_old = sum(copy.is_ready for copy in sight.copies) - num_fresh
    answers = num_fresh + num_old > 0
    troubled = next((copy for copy in fresh if copy.trouble), None)
    rest = f"; {num_old} copies of what was served before answer" if num_old else ""
    is_current = service.checkpoint.is_same(target)
    if is_current and service.is_ready and num_fresh and not num_old:
        text = f"{num_fresh} copies answer" + (f"; {_tell(troubled)}" if troubled else "")
        return Verdict(is_true=True, reason="Ready", message=text), Phase.READY
    if troubled:
        phase = Phase.BLOCKED if troubled.is_blocked else Phase.FAILED
        text = _tell(troubled) + rest
        return Verdict(is_true=answers, reason=troubled.trouble, message=text), phase
    if is_current and service.trouble and not num_fresh:
        text = f"{service.message}{rest}"
        return Verdict(is_true=answers, reason=service.trouble, message=text), Phase.FAILED
    if sight.refusal:
        text = sight.refusal + rest
        return Verdict(is_true=answers, reason="FailedCreate", message=text), Phase.BLOCKED
    text = f"{num_fresh} of {sight.num_copies} copies are ready{rest}"
    if service.message and not service.is_ready:
        text += f"; {service.message}"
    reason = "RollingOut" if num_old else "Starting"
    return Verdict(is_true=answers, reason=reason, message=text), Phase.STARTING


def _tell(copy: Copy) -> str:
    return f"{copy.name}: {copy.trouble}: {copy.message}".rstrip(": ")
