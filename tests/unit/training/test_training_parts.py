from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import yaml

from pyfsb.config import OptimizerSpec, ParallelismSpec, resolve_spec
from pyfsb.errors import ConfigError
from pyfsb.processes import ChildEnd
from pyfsb.training import launcher
from pyfsb.training.batching import Ints, StepPlanner
from pyfsb.training.checkpoint import TrainState
from pyfsb.training.config import (
    Precision,
    build_deepspeed_config,
    build_rank_environment,
    build_torchrun_command,
    resolve_precision,
)
from pyfsb.training.launcher import interpret
from pyfsb.training.order import ShuffledOrder
from pyfsb.training.run import _num_steps
from pyfsb.training.steering import check_feeds, describe_samples
from tests.helpers.golden import assert_golden
from tests.helpers.specs import tiny_spec

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")


@pytest.mark.parametrize("profile", ["none", "z1", "z2", "z2-offload", "z3-offload"])
def test_deepspeed_dicts_are_golden(profile: str, request: pytest.FixtureRequest) -> None:
    wanted = {"zero_stage": 0} if profile == "none" else {"profile": profile}
    parallelism = ParallelismSpec.model_validate(wanted)
    found = {
        precision: build_deepspeed_config(OptimizerSpec(), parallelism, precision)
        for precision in PRECISIONS
    }
    assert_golden(request, f"deepspeed_{profile}.json", found)


@pytest.mark.parametrize(
    ("asked", "device", "has_bf16", "precision"),
    [
        (None, "cpu", True, "fp32"),
        (None, "cuda", True, "bf16"),
        (None, "cuda", False, "fp16"),
        ("fp32", "cuda", True, "fp32"),
        ("bf16", "cpu", True, "bf16"),
    ],
)
def test_the_precision_is_the_device_s_unless_the_spec_says(
    asked: str | None, device: str, has_bf16: bool, precision: str
) -> None:
    parallelism = ParallelismSpec.model_validate({"precision": asked})
    assert resolve_precision(parallelism, device, has_bf16=has_bf16) == precision


def _planner(num_samples: int, *, tokens: int) -> StepPlanner:
    lengths = np.full(num_samples, 10, dtype=np.int64)
    return StepPlanner(lengths, ShuffledOrder(num_samples, seed=1), tokens=tokens)


def test_more_processes_than_a_step_can_feed_are_refused() -> None:
    planner = _planner(100, tokens=30)
    check_feeds(planner, 3, TrainState())
    with pytest.raises(ConfigError, match="4 processes, but .* holds 3 samples.* at most 3 proc"):
        check_feeds(planner, 4, TrainState())
    check_feeds(_planner(2, tokens=30), 4, TrainState())  # all there is, in one step


def test_a_step_tells_its_samples_and_how_many_more() -> None:
    plan = _planner(100, tokens=30).plan(TrainState().position)
    assert describe_samples(plan) == (
        f"samples {', '.join(map(str, plan.sample_ids.tolist()))} of epoch 0"
    )
    assert "and 4 more of epoch 0" in describe_samples(
        _planner(100, tokens=200).plan(TrainState().position)
    )


def test_torchrun_starts_the_ranks_of_one_machine() -> None:
    command = build_torchrun_command("m", ["--spec", "s"], ParallelismSpec(num_processes=3), {})
    text = " ".join(command)
    assert "pyfsb.training.torchrun --standalone --nnodes 1 --nproc-per-node 3" in text
    assert text.endswith("-m m --spec s")
    assert "--shutdown-timeout 25" in text


def test_in_a_pytorchjob_its_environment_decides() -> None:
    command = build_torchrun_command(
        "m", [], ParallelismSpec(num_processes=3), {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "8"}
    )
    assert "--nproc-per-node" not in command
    assert "--standalone" not in command


def test_threads_are_shared_out() -> None:
    env = build_rank_environment(ParallelismSpec(num_processes=2, threads_per_process=3))
    assert env["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    ("code", "ranks", "meaning"),
    [
        (0, [0, 0], 0),
        (1, [2, 1], 2),
        (1, [3, 1], 3),
        (1, [75, 1], 75),
        (1, [143, 143], 143),
        (1, [1], 1),
        (1, [1, 143], 1),
        (1, [129], 129),
        (1, [], 129),
        (1, [1, 1], 1),
        (137, [1], 129),
        (1, [129, 129], 129),
        (1, [129, 1], 1),
        (1, [129, 3], 3),
    ],
)
def test_the_ranks_ends_are_told_truthfully(code: int, ranks: list[int], meaning: int) -> None:
    assert interpret(code, ranks, num_ranks=2) == meaning


def test_a_failure_after_a_stop_is_the_stop() -> None:
    assert interpret(1, [1, 143], num_ranks=2, is_stopped=True) == 143


class _Lengths:
    """Lengths that can only be looked up, as those of many shards."""

    def __init__(self, lengths: list[int]) -> None:
        self._lengths = np.array(lengths, dtype=np.int64)

    def __getitem__(self, sample_ids: Ints) -> Ints:
        return self._lengths[sample_ids]


def _steps(lengths: list[int], *, num_held_out: int = 0, **training: object) -> int:
    changes: dict[str, Any] = {f"training__{key}": value for key, value in training.items()}
    spec = resolve_spec(yaml.safe_dump(tiny_spec("out", batch__tokens=100, **changes)))
    num_trained = len(lengths) - num_held_out
    corpus = SimpleNamespace(
        source=SimpleNamespace(lengths=_Lengths(lengths)),
        order=ShuffledOrder(num_trained, seed=spec.seed),
        held_out_ids=np.arange(num_trained, len(lengths)),
        least_tokens=lambda num_epochs: sum(lengths[:num_trained]) * num_epochs,
    )
    return _num_steps(spec, cast("Any", corpus))


def test_the_steps_are_those_of_the_passes_cut_at_the_limit() -> None:
    assert _steps([50] * 8, num_epochs=1, max_steps=None) == 4
    assert _steps([50] * 8, num_epochs=2, max_steps=5) == 5
    assert _steps([50] * 80, num_epochs=9, max_steps=40) == 40


def test_held_out_samples_make_no_steps() -> None:
    assert _steps([50] * 8, num_held_out=4, num_epochs=1, max_steps=4) == 2


def test_a_rank_that_was_killed_while_it_told_its_end_counts_as_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run_child(*_: object, environment: dict[str, str], **__: object) -> ChildEnd:
        Path(environment[launcher.EXIT_FOLDER], "0").write_text('{"code": 1')
        return ChildEnd(code=1, signal_number=None)

    monkeypatch.setattr(launcher, "run_child", run_child)
    assert launcher.launch("m", [], ParallelismSpec()) == 129


@pytest.mark.parametrize("asked", ["gpu", "auto", "2", ""])
def test_every_number_of_ranks_that_torchrun_takes(
    asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PET_NPROC_PER_NODE", asked)
    monkeypatch.setattr(
        launcher, "run_child", lambda *_, **__: ChildEnd(code=0, signal_number=None)
    )
    assert launcher.launch("m", [], ParallelismSpec()) == 0
    monkeypatch.setattr(
        launcher, "run_child", lambda *_, **__: ChildEnd(code=1, signal_number=None)
    )
    assert launcher.launch("m", [], ParallelismSpec()) == 129
