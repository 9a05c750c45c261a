"""Records as stages leave them, for the tests of this folder."""

from __future__ import annotations

from typing import Any

from pyfsb.records import CheckpointRecord, EvalReport, GateResult, Score, ServingRecord

NOW = "2026-01-01T00:00:00+00:00"
GATE = GateResult(
    task="mine", runner="finetune", has_passed=True, reason="0.812 on 300 rows", p_value=1e-9
)
BASE: dict[str, Any] = {
    "run": "first", "created_at": NOW, "seconds": 1.0, "config_hash": "sha256:0", "seeds": (42,),
}  # fmt: skip


def checkpoint(**changes: Any) -> CheckpointRecord:
    """Return the record of a pretrained model."""
    values = {
        **BASE, "model": "Erlangshen-MegatronBert-1.3B", "architecture": "megatron-bert",
        "family": "fill_mask", "objective": "whole_word", "num_parameters": 1000, "step": 7,
        "num_samples": 70, "num_tokens": 700, "loss": 6.5, "max_tokens": 64,
        "vocabulary_digest": "sha256:1",
    }  # fmt: skip
    return CheckpointRecord(**{**values, **changes})


def score(runner: str = "finetune", value: float = 0.8125) -> Score:
    """Return one runner's score."""
    return Score(
        task="mine", task_version="1", runner=runner, metric="accuracy", value=value, num_rows=300,
        num_correct=243, interval=(0.76, 0.85), seeds=(42,), seed_values=(value,),
        majority_label="a", majority_value=0.5, p_value=1e-9, value_all_rows=value,
        num_all_rows=300, num_overlap=0, num_train=300, num_excluded=0, num_truncated=0,
        is_degenerate=False, checkpoint=f"mine/{runner}-42", checkpoint_digest="sha256:2",
        split_hash="0", seconds=1.0,
    )  # fmt: skip


def report(gate: GateResult = GATE) -> EvalReport:
    """Return a report with two runners."""
    return EvalReport(
        **BASE, model="Erlangshen-MegatronBert-1.3B", num_parameters=1000,
        scores=(score(), score("ngram", 0.75)), gate=gate, example={"text": "好", "text_pair": None},
    )  # fmt: skip


def serving(**changes: Any) -> ServingRecord:
    """Return the record of a service."""
    values = {
        **BASE, "endpoint": "http://first.team/v2/models/mine/infer", "model_name": "mine",
        "task": "mine", "runner": "finetune", "gate": GATE, "question": {"text": "it's 好"},
        "answer": {"label": "a"}, "is_running": True,
    }  # fmt: skip
    return ServingRecord(**{**values, **changes})
