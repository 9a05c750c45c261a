from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import yaml
from torch import nn

from pyfsb.config import Family, OptimizerSpec, ParallelismSpec, resolve_spec
from pyfsb.errors import ConfigError
from pyfsb.processes import ChildEnd
from pyfsb.training import launcher
from pyfsb.training.config import (
    build_deepspeed_config,
    build_rank_environment,
    build_torchrun_command,
)
from pyfsb.training.launcher import interpret
from pyfsb.training.meters import (
    Meters,
    StepMetrics,
    cut_after,
    final_loss,
    open_meters,
    read_metrics,
)
from pyfsb.training.optim import build_optimizer, learning_rate
from pyfsb.training.progress import Work
from pyfsb.training.run import _num_steps
from tests.helpers.golden import assert_golden
from tests.helpers.models import MODELS, make_model
from tests.helpers.specs import tiny_spec


def step(number: int, loss: float = 1.0, num_targets: int = 1) -> StepMetrics:
    return StepMetrics(
        step=number, loss=loss, gradient_norm=1.0, learning_rate=0.1, epoch=0, num_samples=number,
        num_tokens=number, num_targets=num_targets, seconds=0.1, tokens_per_second=10.0,
    )  # fmt: skip


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_deepspeed_dicts_are_golden(stage: int, request: pytest.FixtureRequest) -> None:
    parallelism = ParallelismSpec.model_validate({"zero_stage": stage})
    assert_golden(
        request, f"deepspeed_zero{stage}.json", build_deepspeed_config(OptimizerSpec(), parallelism)
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


def test_decay_leaves_out_every_vector_of_every_architecture() -> None:
    for name in MODELS:
        family = Family.FILL_MASK if name in MODELS[:2] else Family.GENERATE
        model = make_model(name, family)
        groups = build_optimizer(model, OptimizerSpec(weight_decay=0.1)).param_groups
        assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
        assert all(parameter.ndim > 1 for parameter in groups[0]["params"])
        norms = {
            id(parameter)
            for module in model.modules() if isinstance(module, nn.LayerNorm)
            for parameter in module.parameters()
        }  # fmt: skip
        assert norms <= {id(parameter) for parameter in groups[1]["params"]}
        counted = sum(len(group["params"]) for group in groups)
        assert counted == len(list(model.parameters()))


def test_a_model_of_matrices_has_one_group() -> None:
    assert len(build_optimizer(nn.Linear(2, 2, bias=False), OptimizerSpec()).param_groups) == 1


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("linear", [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ("constant", [0.5, 1.0] + [1.0] * 8),
        ("cosine", [0.5, 1.0, 1.0, 0.962, 0.854, 0.691, 0.5, 0.309, 0.146, 0.038]),
    ],
)
def test_schedules(schedule: str, rates: list[float]) -> None:
    spec = OptimizerSpec.model_validate(
        {"learning_rate": 1.0, "warmup_ratio": 0.2, "schedule": schedule}
    )
    found = [learning_rate(spec, step=step, num_steps=10) for step in range(10)]
    assert found == pytest.approx(rates, abs=1e-3)


def test_without_warmup_the_first_step_is_at_the_peak() -> None:
    spec = OptimizerSpec(learning_rate=0.3, warmup_ratio=0.0)
    assert learning_rate(spec, step=0, num_steps=5) == 0.3


def test_each_step_is_one_line_and_later_ones_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps(step(number)) for number in range(1, 6)]
    path.write_text("\n".join(lines) + '\n{"step": 6, "lo')
    assert [metrics["step"] for metrics in read_metrics(path)] == [1, 2, 3, 4, 5]
    cut_after(path, 3)
    assert path.read_text() == "\n".join(lines[:3]) + "\n"
    cut_after(path, 0)
    assert path.read_text() == ""
    assert read_metrics(tmp_path / "nothing") == []


def test_the_final_loss_is_weighted_by_targets() -> None:
    steps = [step(n, loss=9.0) for n in range(18)] + [step(19, 1.0, 3), step(20, 2.0, 1)]
    assert final_loss(steps) == pytest.approx(1.25)
    assert final_loss([]) is None


def test_metrics_reach_lines_textfile_endpoint_and_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_meters(
        tmp_path, name="run", work=Work(num_steps=3), step=0, metrics_port=0
    ) as meters:
        assert isinstance(meters, Meters)
        for number in (1, 2):
            meters.record(step(number, loss=float(number)))
        assert meters._server is not None
        port = meters._server._server.server_port
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            assert 'fsb_training_loss{run="run"} 2.0' in response.read().decode()
    assert [metrics["loss"] for metrics in read_metrics(tmp_path / "metrics.jsonl")] == [1.0, 2.0]
    assert 'fsb_training_step{run="run"} 2.0' in (tmp_path / "metrics.prom").read_text()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("loss")] == [1.0, 2.0]


def test_a_taken_metrics_port_is_named(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"training.metrics_port = {port}"):
            Meters(tmp_path, name="r", work=Work(num_steps=1), step=0, metrics_port=port)


def test_other_ranks_have_no_meters() -> None:
    with open_meters(None, name="x", work=Work(num_steps=1), step=0) as meters:
        assert meters is None


def _steps(lengths: list[int], **training: object) -> int:
    changes = {f"training__{key}": value for key, value in training.items()}
    spec = resolve_spec(yaml.safe_dump(tiny_spec("out", batch__tokens=100, **changes)))
    source = SimpleNamespace(lengths=np.array(lengths, dtype=np.int64))
    return _num_steps(spec, cast("Any", source))


def test_the_steps_are_those_of_the_passes_cut_at_the_limit() -> None:
    assert _steps([50] * 8, num_epochs=1, max_steps=None) == 4
    assert _steps([50] * 8, num_epochs=2, max_steps=5) == 5
    assert _steps([512] * 10, num_epochs=1, max_steps=40) == 10  # a step each
    assert _steps([512] * 10, num_epochs=9, max_steps=40) == 40


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
