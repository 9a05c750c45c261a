"""Bad steps, early ends, adapters and recomputation in the real loop; see helpers/loop_cases.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All cases, run by one process that forks its ranks: imports cost once."""
    folder = tmp_path_factory.mktemp("loop")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.helpers.loop_cases", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=850, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


def test_a_bad_step_changes_nothing_at_any_zero_stage(cases: dict[str, Any]) -> None:
    reference = cases["bad_step"]["nan 0"]["losses"]
    for name, found in cases["bad_step"].items():
        assert "error" not in found, found["error"]
        assert (found["skipped"], found["updates"]) == ([6], 8), name
        assert found["steps"] == list(range(1, 10)), name
        others = [loss for step, loss in enumerate(found["losses"], 1) if step != 6]
        wanted = [loss for step, loss in enumerate(reference, 1) if step != 6]
        assert others == pytest.approx(wanted, abs=2e-6), name
        (line,) = found["lines"]
        assert "step 6 is left out: loss " in line
        assert "gradient norm " in line
        assert all(f" {sample}" in line for sample in found["bad_samples"]), line
    assert reference[5] is None, "no number"
    assert cases["bad_step"]["spike 1"]["losses"][5] > 1e3


def test_bad_steps_in_a_row_lead_back_and_on_behind_them(cases: dict[str, Any]) -> None:
    found = cases["rewind"]["whole"]
    assert found["rewinds"] == [8]
    assert found["steps"] == list(range(1, 15))
    assert found["updates"] == 14
    assert not found["skipped"], "they are forgotten with the lines after step 8"
    *left_out, back = found["lines"]
    assert [line.split(" is left out")[0] for line in left_out] == [
        f"toy: step {step}" for step in (9, 10, 11)
    ]
    assert "back from step 11 to the state of step 8" in back
    assert f"{len(found['bad_samples'])} samples are left out" in back


def test_a_stop_amid_bad_steps_goes_on_bit_equal(cases: dict[str, Any]) -> None:
    found = cases["rewind"]
    assert found["first"]["skipped"] == [9, 10]
    assert not found["first"]["is_complete"]
    assert found["rest"]["steps"][0] == 9, "the state to go on from is the one before them"
    assert found["rest"]["losses"] == found["whole"]["losses"][8:]
    assert found["rest"]["weight"] == found["whole"]["weight"]
    assert found["rest"]["state"]["guard"] == found["whole"]["state"]["guard"]


def test_where_going_back_does_not_help_the_samples_are_named(cases: dict[str, Any]) -> None:
    found = cases["hopeless"]
    assert found["saved"]["error"].startswith("DataError: step 11 is left out: loss nan")
    assert "1 returns to a saved state did not help" in found["saved"]["error"]
    assert "samples " in found["saved"]["error"]
    assert "there is no state to go back to" in found["unsaved"]["error"]
    assert "3 steps in a row" in found["unsaved"]["error"]


def test_training_ends_early_with_the_best_weights(cases: dict[str, Any]) -> None:
    found = cases["early_stop"]
    whole = found["whole"]
    assert whole["is_complete"]
    assert whole["best"] == {"loss": 3.0, "step": 6, "num_worse": 2, "is_due": False}
    assert whole["steps"] == list(range(1, 11))
    assert whole["validation"] == [None, 5.0, None, 4.0, None, 3.0, None, 3.5, None, 3.2]
    assert found["kept whole"] == found["six"]["weight"], "as if it had ended there"
    assert found["rest"]["best"] == whole["best"]
    assert found["rest"]["steps"][-1] == 10
    assert found["kept parts"] == found["kept whole"]


def test_a_stop_before_a_measurement_that_was_due_makes_it_up(cases: dict[str, Any]) -> None:
    found = cases["early_stop"]["due"]
    assert found["first"]["best"]["is_due"]
    assert found["rest"]["best"] == found["whole"]["best"]
    assert found["rest"]["steps"][-1] == 10
    assert found["rest"]["weight"] == found["whole"]["weight"]


def test_adapters_train_alone_and_go_on_bit_equal(cases: dict[str, Any]) -> None:
    found = cases["adapters"]
    for name, runs in found.items():
        parts = runs["first"]["losses"] + runs["rest"]["losses"]
        assert parts == runs["whole"]["losses"], name
        assert runs["rest"]["weight"] == runs["whole"]["weight"]
        assert runs["whole"]["frozen"] == runs["first"]["frozen"], "they do not move"
        assert runs["whole"]["weight"] != runs["first"]["weight"]
        assert runs["saved"]
        assert all(".lora_" in key for key in runs["saved"]), "nothing else is saved"
    assert found["1"]["whole"]["losses"] == pytest.approx(found["3"]["whole"]["losses"], abs=2e-6)


def test_fp16_beyond_its_range_lowers_the_scale_and_is_no_spike(cases: dict[str, Any]) -> None:
    for name, found in cases["overflow"].items():
        assert "error" not in found, found["error"]
        assert found["skipped"] == [2, 3], name
        assert found["scale"]["cur_scale"] == 2**15, "the first one is forgiven"
        guard = found["state"]["guard"]["spikes"]
        assert (guard["num_skipped"], guard["num_overflows"]) == (0, 0)
        assert "beyond fp16" in found["lines"][0]
        assert found["updates"] == 4


def test_recomputed_activations_give_the_same(cases: dict[str, Any]) -> None:
    found = cases["recomputed"]
    for name in ("0", "3"):
        assert found[f"{name} True"]["losses"] == found[f"{name} False"]["losses"]
        assert found[f"{name} True"]["weight"] == pytest.approx(
            found[f"{name} False"]["weight"], rel=1e-9
        )
