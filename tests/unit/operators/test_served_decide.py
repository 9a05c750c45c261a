"""What is served when: sight by sight, and what holds for every sight."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.served.decide import (
    Copy,
    Decision,
    Judgement,
    SeenService,
    Sight,
    Verdict,
    Wish,
    decide,
)
from operators.served.plan import Checkpoint
from pyfsb.resources.status import Phase

NEW = Checkpoint(uri="s3://b/new", digest="sha256:new")
OLD = Checkpoint(uri="s3://b/old", digest="sha256:old")
PASSED = Judgement(
    name="e", phase=Phase.SUCCEEDED, has_passed=True, reason="0.9 above 0.5", served=NEW
)
FAILED = replace(PASSED, has_passed=False, reason="not above the majority")
UP_NEW = SeenService(checkpoint=NEW, is_ready=True)
UP_OLD = SeenService(checkpoint=OLD, is_ready=True)
NEW_COPY = Copy(name="p-new", checkpoint=NEW, is_ready=True)
OLD_COPY = Copy(name="p-old", checkpoint=OLD, is_ready=True)


def see(**fields: object) -> Decision:
    return decide(Sight(**fields))  # type: ignore[arg-type]


def test_what_passed_is_served_as_the_evaluation_names_it() -> None:
    found = see(evaluation=PASSED)
    assert (found.wish, found.phase, found.serve) == (Wish.SERVING, Phase.STARTING, NEW)
    assert found.gate == Verdict(is_true=True, reason="GatePassed", message="0.9 above 0.5")
    ready = see(evaluation=PASSED, service=UP_NEW, copies=(NEW_COPY,))
    assert (ready.phase, ready.readiness.is_true) == (Phase.READY, True)
    assert ready.decisive.message == "1 copies answer"


@pytest.mark.parametrize("phase", [None, Phase.PENDING, Phase.RUNNING, Phase.RESTARTING])
def test_an_evaluation_that_goes_on_is_waited_for(phase: Phase | None) -> None:
    found = see(evaluation=Judgement(name="e", phase=phase))
    assert (found.wish, found.phase, found.serve) == (Wish.AS_IT_IS, Phase.PENDING, None)
    assert found.gate.is_true is None
    assert found.decisive.message.startswith("Evaluation e is")


@pytest.mark.parametrize(
    ("evaluation", "reason", "words"),
    [
        (FAILED, "GateFailed", "not above the majority"),
        (replace(FAILED, phase=Phase.FAILED, reason="no rows"), "EvaluationFailed", "no rows"),
        (replace(PASSED, phase=Phase.INVALID, reason="x"), "EvaluationFailed", "Invalid: x"),
        (replace(PASSED, served=None), "NoCheckpoint", "names no checkpoint"),
    ],
)
def test_below_the_gate_nothing_is_served(evaluation: Judgement, reason: str, words: str) -> None:
    found = see(evaluation=evaluation)
    assert (found.wish, found.phase, found.serve) == (Wish.AS_IT_IS, Phase.BLOCKED, None)
    assert (found.gate.is_true, found.gate.reason) == (False, reason)
    assert words in found.decisive.message
    assert found.readiness.is_true is False


def test_the_gate_must_be_about_what_is_asked_for() -> None:
    other = see(asked=Checkpoint(uri="s3://b/other"), evaluation=PASSED)
    assert (other.phase, other.gate.reason) == (Phase.BLOCKED, "OtherCheckpoint")
    assert "s3://b/new, not about s3://b/other" in other.gate.message
    same = see(asked=Checkpoint(uri="s3://b/new/"), evaluation=PASSED)
    assert same.serve == Checkpoint(uri="s3://b/new/", digest="sha256:new")
    copied = Checkpoint(uri="s3://b/copy", digest="sha256:new", version=3)
    assert see(asked=copied, evaluation=PASSED).serve == copied
    changed = replace(NEW, digest="sha256:else")
    assert see(asked=changed, evaluation=PASSED).gate.reason == "OtherCheckpoint"


def test_without_a_gate_what_is_asked_for_is_served() -> None:
    found = see(asked=NEW, needs_gate=False, evaluation=FAILED)
    assert (found.serve, found.gate.is_true, found.gate.reason) == (NEW, None, "GateOff")
    assert see(needs_gate=False, evaluation=FAILED).serve == NEW
    assert see(needs_gate=False, evaluation=Judgement(name="e", phase=None)).serve is None


def test_the_model_stores_gate_speaks_where_no_evaluation_is_named() -> None:
    assert see(asked=NEW, asked_gate=True).gate.reason == "VersionGatePassed"
    for known, words in ((False, "its gate did not pass"), (None, "no evaluation speaks for it")):
        found = see(asked=NEW, asked_gate=known)
        assert (found.phase, found.gate.reason) == (Phase.BLOCKED, "NoEvaluation")
        assert words in found.gate.message
    assert see().gate.reason == "NothingToServe"


def test_what_is_served_goes_on_when_something_newer_fails() -> None:
    found = see(evaluation=FAILED, service=UP_OLD, copies=(OLD_COPY,))
    assert (found.wish, found.serve, found.phase) == (Wish.SERVING, OLD, Phase.BLOCKED)
    assert found.readiness.is_true is True
    assert found.decisive.message.endswith("s3://b/old is served as before")


def test_a_rolling_update_is_ready_when_the_last_old_copy_is_gone() -> None:
    started = see(evaluation=PASSED, service=UP_OLD, copies=(OLD_COPY,))
    assert (started.phase, started.serve) == (Phase.STARTING, NEW)
    both = see(evaluation=PASSED, service=UP_NEW, copies=(OLD_COPY, NEW_COPY))
    assert (both.phase, both.readiness.reason, both.readiness.is_true) == (
        Phase.STARTING, "RollingOut", True,
    )  # fmt: skip
    assert see(evaluation=PASSED, service=UP_NEW, copies=(NEW_COPY,)).phase is Phase.READY


@pytest.mark.parametrize(("is_blocked", "phase"), [(True, Phase.BLOCKED), (False, Phase.FAILED)])
def test_a_copy_that_cannot_start_is_told(is_blocked: bool, phase: Phase) -> None:
    bad = replace(
        NEW_COPY, is_ready=False, trouble="FetchFailed", message="no such object",
        is_blocked=is_blocked,
    )  # fmt: skip
    starting = replace(UP_NEW, is_ready=False)
    found = see(evaluation=PASSED, service=starting, copies=(bad,))
    assert (found.phase, found.readiness.is_true, found.readiness.reason) == (
        phase, False, "FetchFailed",
    )  # fmt: skip
    assert found.decisive.message == "p-new: FetchFailed: no such object"
    rolling = see(evaluation=PASSED, service=UP_NEW, copies=(bad, OLD_COPY))
    assert (rolling.phase, rolling.readiness.is_true) == (phase, True)
    assert rolling.readiness.message.endswith("1 copies of what was served before answer")
    more = see(evaluation=PASSED, service=UP_NEW, copies=(NEW_COPY, bad))
    assert more.phase is Phase.READY
    assert "no such object" in more.readiness.message


def test_a_service_that_makes_no_pods_is_told() -> None:
    service = SeenService(
        checkpoint=NEW, is_ready=False, trouble="RuntimeNotRecognized", message="no runtime x"
    )
    found = see(evaluation=PASSED, service=service)
    assert (found.phase, found.readiness.message) == (Phase.FAILED, "no runtime x")


def test_the_end_of_the_workflow_ends_the_service() -> None:
    found = see(evaluation=PASSED, service=UP_NEW, copies=(NEW_COPY,), stopper_ended=True)
    assert (found.wish, found.phase, found.serve) == (Wish.ABSENT, Phase.FAILED, None)
    assert found.decisive.reason == "WorkflowEnded"


checkpoints = st.sampled_from([NEW, OLD, Checkpoint(uri="s3://b/x")])
copies = st.builds(
    Copy, name=st.just("p"), checkpoint=checkpoints, is_ready=st.booleans(),
    trouble=st.sampled_from(["", "CrashLoop"]), is_blocked=st.booleans(),
)  # fmt: skip
sights = st.builds(
    Sight,
    asked=st.none() | checkpoints,
    asked_gate=st.none() | st.booleans(),
    evaluation=st.none()
    | st.builds(
        Judgement, name=st.just("e"), phase=st.none() | st.sampled_from(Phase),
        has_passed=st.booleans(), served=st.none() | checkpoints,
    ),
    needs_gate=st.booleans(),
    service=st.none()
    | st.builds(
        SeenService, checkpoint=checkpoints, is_ready=st.booleans(),
        trouble=st.sampled_from(["", "RuntimeDisabled"]),
    ),
    copies=st.lists(copies, max_size=4).map(tuple),
)  # fmt: skip


@given(sights)
def test_nothing_new_is_served_without_consent_and_nothing_served_is_taken_away(
    sight: Sight,
) -> None:
    found = decide(sight)
    assert decide(sight) == found
    served = sight.service.checkpoint if sight.service else None
    if found.serve is not None and found.serve != served and sight.needs_gate:
        assert found.gate.is_true is True
        judged = sight.evaluation
        if judged is not None:
            assert judged.has_passed
            assert judged.served is not None
            assert judged.served.is_same(found.serve)
        else:
            assert sight.asked_gate is True
    if sight.service is not None:
        assert found.wish is Wish.SERVING
        assert found.serve is not None
    if found.phase is Phase.READY:
        assert found.readiness.is_true is True
        assert all(c.checkpoint.is_same(found.serve) for c in sight.copies if c.is_ready)  # type: ignore[arg-type]
    if found.readiness.is_true:
        assert any(copy.is_ready for copy in sight.copies)
