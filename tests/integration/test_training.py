"""Training in real processes: exactness over world sizes, continuation, kills, bad input."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pyfsb import records
from pyfsb.config import load_spec, resolve_spec
from pyfsb.data.prepare import prepare
from pyfsb.errors import DataError
from pyfsb.processes import StopRequest
from pyfsb.records import CheckpointRecord
from pyfsb.training.distributed import ProcessGroup
from pyfsb.training.meters import StepMetrics, read_metrics
from tests.conftest import ROOT
from tests.helpers.golden import FOLDER as GOLDEN
from tests.helpers.specs import DROPOUTS, TINY_CONFIGS, tiny_spec, write_spec

MEGATRON = "Erlangshen-MegatronBert-1.3B"
NO_DROPOUT = {
    f"model__config__{name}": 0.0 for name in DROPOUTS[MEGATRON]
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared samples; every run of this module trains on a copy of the same shards."""
    output = tmp_path_factory.mktemp("corpus")
    prepare(resolve_spec(yaml.safe_dump(tiny_spec(output))))
    return output / "data"


@pytest.fixture(scope="module")
def steady(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training of twenty steps without dropout, for tests to compare with and read."""
    folder = tmp_path_factory.mktemp("steady")
    train(make_run(folder, corpus, **NO_DROPOUT))
    return folder


@pytest.fixture(scope="module")
def killed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training, killed after its second saved state; tests continue copies of it."""
    folder = tmp_path_factory.mktemp("killed")
    _kill_at(make_run(folder, corpus, **NO_DROPOUT), 14)
    return folder


def make_run(folder: Path, corpus: Path, **changes: Any) -> Path:
    """Make a run folder with prepared data; returns its spec."""
    if not (folder / "data").exists():
        shutil.copytree(corpus, folder / "data")
    return write_spec(folder, tiny_spec(folder, **changes))


def copy_run(run: Path, folder: Path, **changes: Any) -> Path:
    """Copy a run folder and name its place in its spec; returns the spec."""
    shutil.copytree(run, folder, dirs_exist_ok=True)
    return write_spec(folder, tiny_spec(folder, **NO_DROPOUT, **changes))


def start(spec: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pyfsb.training", "--spec", str(spec)], cwd=ROOT, text=True,
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def train(spec: Path, expected: int = 0) -> tuple[list[StepMetrics], str]:
    process = start(spec)
    _, errors = process.communicate(timeout=500)
    assert process.returncode == expected, errors
    return steps_of(spec), errors


def steps_of(spec: Path) -> list[StepMetrics]:
    return read_metrics(spec.parent / "training/metrics.jsonl")


def losses(steps: list[StepMetrics]) -> list[float]:
    return [metrics["loss"] for metrics in steps]


@pytest.fixture(scope="module")
def curves(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same training of 200 steps in one and in two processes."""
    folder = tmp_path_factory.mktemp("curves")
    for size in (1, 2):
        spec = make_run(
            folder / str(size), corpus, training__max_steps=200, training__num_epochs=9,
            training__checkpoint_every_steps=500, parallelism__num_processes=size,
            batch={"tokens": 512, "micro_tokens": 160}, **NO_DROPOUT,
        )  # fmt: skip
        train(spec)
    return {size: folder / str(size) for size in (1, 2)}


def test_one_and_two_processes_give_the_same_curve(curves: dict[int, Path]) -> None:
    """Same global batch, dropout 0, unequal target counts per rank: equal to 1e-5 over 200 steps."""
    steps = {size: read_metrics(curves[size] / "training/metrics.jsonl") for size in (1, 2)}
    one, two = losses(steps[1]), losses(steps[2])
    assert len(one) == len(two) == 200
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) <= 1e-5
    targets = [[m["num_targets"] for m in curve] for curve in steps.values()]
    assert targets[0] == targets[1]
    assert any(count % 2 for count in targets[0]), "odd counts cannot be equal on two ranks"
    assert one[-1] < one[0] - 0.5


def test_equal_worlds_are_bit_equal_with_dropout_and_after_kills(
    corpus: Path, tmp_path: Path
) -> None:
    """`kill -9` of the whole group at three random moments changes nothing but the clock."""
    settings: dict[str, Any] = {
        "training__max_steps": 40, "training__num_epochs": 9, "parallelism__num_processes": 2,
        "training__checkpoint_every_steps": 4,
    }  # fmt: skip
    undisturbed, _ = train(make_run(tmp_path / "a", corpus, **settings))
    spec = make_run(tmp_path / "b", corpus, **settings)
    seed = random.SystemRandom().randrange(10**6)
    print(f"kill seed {seed}")
    moments = sorted(random.Random(seed).sample(range(1, 39), 3))
    for moment in moments:
        _kill_at(spec, moment)
    disturbed, errors = train(spec)
    assert "continuing from step" in errors
    assert [m["step"] for m in disturbed] == list(range(1, 41))
    assert losses(disturbed) == losses(undisturbed)
    assert [m["gradient_norm"] for m in disturbed] == [m["gradient_norm"] for m in undisturbed]
    digests = {records.read_record(str(tmp_path / name / "training")).digest for name in "ab"}
    assert len(digests) == 1


def _kill_at(spec: Path, step: int) -> None:
    """Start a training and kill its process group once a step is logged."""
    process = start(spec)
    deadline = time.monotonic() + 100
    while not (steps := steps_of(spec)) or steps[-1]["step"] < step:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)
    _wait_until_alone(spec)


def _wait_until_alone(spec: Path) -> None:
    """Wait until no rank of a killed training is left, for they end with their parents."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not _processes_with(str(spec)):
            return
        time.sleep(0.05)
    raise AssertionError(f"still running: {_processes_with(str(spec))}")


def _processes_with(argument: str) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (
                argument.encode() in (entry / "cmdline").read_bytes()
                and int(entry.name) != os.getpid()
            ):
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("columns", [0, 120])
def test_a_terminal_gets_a_bar(columns: int, corpus: Path, tmp_path: Path) -> None:
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    spec = make_run(tmp_path, corpus, training__max_steps=40)
    process = subprocess.Popen(
        [sys.executable, "-m", "pyfsb.training", "--spec", str(spec)], cwd=ROOT,
        stdout=theirs, stderr=theirs, env={**os.environ, "COLUMNS": ""},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the other side is closed at the end
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    assert process.wait(60) == 0
    assert "step/s, loss " in shown.decode()
    assert "tok/s]" in shown.decode()


def test_sigterm_saves_and_exits_143(corpus: Path, tmp_path: Path) -> None:
    spec = make_run(
        tmp_path, corpus, training__max_steps=5000, training__num_epochs=99,
        training__checkpoint_every_steps=5000, parallelism__num_processes=2,
    )  # fmt: skip
    process = start(spec)
    deadline = time.monotonic() + 100
    while len(steps_of(spec)) < 5:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    saved = json.loads(next((tmp_path / "training/state").glob("step-*/state.json")).read_text())
    assert saved["state"]["step"] == steps_of(spec)[-1]["step"]
    assert records.find_record(str(tmp_path / "training")) is None


@pytest.mark.parametrize("model", TINY_CONFIGS)
def test_each_architecture_trains_exports_and_reloads(
    model: str, corpus: Path, steady: Path, tmp_path: Path
) -> None:
    import pyfsb

    # One of them is trained anyway. Twenty steps tell as much as more: the loss falls, and what is
    # exported and loaded again does not depend on their number.
    run = steady if model == MEGATRON else tmp_path
    if run is tmp_path:
        train(make_run(run, corpus, model=model))
    steps = read_metrics(run / "training/metrics.jsonl")
    assert losses(steps)[-1] < losses(steps)[0]
    record = records.read_record(str(run / "training"))
    assert isinstance(record, CheckpointRecord)
    assert (record.model, record.step) == (model, 20)
    assert record.num_parameters > 50_000
    assert (run / "training/loss.png").read_bytes().startswith(b"\x89PNG")
    text = "中国[MASK]排" if record.family == "fill_mask" else "中国女排"
    assert pyfsb.load(str(run / "training")).predict([text])


def test_the_golden_curve(steady: Path, request: pytest.FixtureRequest) -> None:
    """Twenty steps of a tiny model: a refactoring may not change them."""
    steps = read_metrics(steady / "training/metrics.jsonl")
    path = GOLDEN / "curve_megatron_bert.json"
    if request.config.getoption("--update-golden"):
        path.write_text(json.dumps(losses(steps), indent=2) + "\n")
    assert losses(steps) == pytest.approx(json.loads(path.read_text()), abs=2e-5)


def test_a_state_continues_on_another_number_of_processes(
    steady: Path, killed: Path, tmp_path: Path
) -> None:
    moved, errors = train(copy_run(killed, tmp_path, parallelism__num_processes=2))
    assert "continuing from step" in errors
    whole = losses(read_metrics(steady / "training/metrics.jsonl"))
    assert losses(moved) == pytest.approx(whole, abs=1e-5)


def test_a_flipped_bit_falls_back_to_the_state_before(
    steady: Path, killed: Path, tmp_path: Path
) -> None:
    """That dropout's random state continues too is compared where trainings are killed."""
    spec = copy_run(killed, tmp_path)
    states = sorted((tmp_path / "training/state").glob("step-*"))
    assert len(states) == 2
    weights = sorted(states[-1].glob("*.safetensors"))[0]
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    continued, errors = train(spec)
    assert f"{weights} differs from state.json" in errors
    assert f"continuing from step {int(states[0].name[5:])}" in errors
    assert losses(continued) == losses(read_metrics(steady / "training/metrics.jsonl"))


def test_a_state_of_other_settings_is_refused(killed: Path, tmp_path: Path) -> None:
    _, errors = train(copy_run(killed, tmp_path, optimizer__learning_rate=0.5), expected=3)
    assert "was saved with another settings" in errors


def test_weights_of_another_vocabulary_are_refused(corpus: Path, tmp_path: Path) -> None:
    """Within this process: other tests see that such an error ends the stage with 3."""
    from pyfsb.config import Family
    from pyfsb.training.run import pretrain
    from tests.helpers.models import write_model

    folder = write_model(tmp_path / "weights", MEGATRON, Family.FILL_MASK)
    spec = make_run(tmp_path / "run", corpus, model__checkpoint=str(folder))
    alone = ProcessGroup(rank=0, size=1, device=torch.device("cpu"))
    with pytest.raises(DataError, match="the shards were made with vocabulary") as caught:
        pretrain(load_spec(str(spec)), alone, StopRequest())
    assert caught.value.exit_code == 3


def test_a_model_that_is_too_short_is_refused(corpus: Path, tmp_path: Path) -> None:
    spec = make_run(tmp_path, corpus, model__config__max_position_embeddings=32)
    _, errors = train(spec, expected=2)
    assert "data.max_tokens = 64" in errors
    assert "the model has 32 positions" in errors


def test_a_loss_that_is_no_number_names_step_and_samples(corpus: Path, tmp_path: Path) -> None:
    spec = make_run(
        tmp_path,
        corpus,
        training__checkpoint_every_steps=1,
        optimizer={"learning_rate": 1e30, "warmup_ratio": 0.0, "weight_decay": 0.9},
    )
    _, errors = train(spec, expected=3)
    assert "is left out: loss nan" in errors
    assert "samples" in errors
    assert "lower optimizer.learning_rate" in errors


def test_more_processes_than_a_step_feeds_are_refused(corpus: Path, tmp_path: Path) -> None:
    spec = make_run(
        tmp_path, corpus, batch={"tokens": 64, "micro_tokens": 64},
        parallelism__num_processes=2, training__max_steps=3,
    )  # fmt: skip
    _, errors = train(spec, expected=2)
    assert "2 processes, but a step of batch.tokens holds 1 samples" in errors


def test_held_out_samples_end_a_training_early_with_adapters_in_bf16(
    corpus: Path, tmp_path: Path
) -> None:
    """Everything at once, as a spec asks for it: the record is of the best measurement."""
    spec = make_run(
        tmp_path, corpus, parallelism={"num_processes": 2, "threads_per_process": 1,
                                       "profile": "z3-offload", "precision": "bf16"},
        optimizer={"learning_rate": 1.0, "schedule": "constant", "warmup_ratio": 0.0},
        training={"max_steps": 20, "num_epochs": 9, "validation_samples": 40,
                  "validate_every_steps": 2, "patience": 2, "lora": {"rank": 2}},
    )  # fmt: skip
    steps, _ = train(spec)
    measured = {m["step"]: m["validation_loss"] for m in steps if m["validation_loss"] is not None}
    best = min(measured, key=lambda step: measured[step])
    record = records.read_record(str(tmp_path / "training"))
    assert isinstance(record, CheckpointRecord)
    assert record.step == best
    assert len(steps) < 20
    assert len(steps) == best + 4, "two measurements later"
    import pyfsb

    assert pyfsb.load(str(tmp_path / "training")).predict(["中国[MASK]排"])


def test_zero_steps_export_the_first_weights(corpus: Path, tmp_path: Path) -> None:
    steps, _ = train(make_run(tmp_path, corpus, training__max_steps=0))
    record = records.read_record(str(tmp_path / "training"))
    assert isinstance(record, CheckpointRecord)
    assert (steps, record.step, record.loss) == ([], 0, None)
    assert (tmp_path / "training/model/model.safetensors").is_file()


def test_training_goes_on_from_a_checkpoint(
    curves: dict[int, Path], steady: Path, corpus: Path, tmp_path: Path
) -> None:
    spec = make_run(
        tmp_path, corpus, model__checkpoint=str(curves[1] / "training"), seed=7,
        training__max_steps=3,
    )  # fmt: skip
    continued, _ = train(spec)
    # Random weights begin at the logarithm of the vocabulary's size, whatever their seed.
    first = losses(read_metrics(steady / "training/metrics.jsonl"))[0]
    assert losses(continued)[0] < first - 0.3
    record = records.read_record(str(tmp_path / "training"))
    assert [parent.kind for parent in record.parents] == ["DatasetRecord", "CheckpointRecord"]


def test_a_lost_rank_ends_with_129(corpus: Path, tmp_path: Path) -> None:
    spec = make_run(
        tmp_path, corpus, training__max_steps=5000, training__num_epochs=99,
        parallelism__num_processes=2,
    )  # fmt: skip
    process = start(spec)
    deadline = time.monotonic() + 100
    while len(steps_of(spec)) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ranks = [
        pid for pid in _processes_with(str(spec))
        if b"pyfsb.training.run" in Path(f"/proc/{pid}/cmdline").read_bytes()
        and b"pyfsb.training.torchrun" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]  # fmt: skip
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 129, errors
    assert "a rank of pyfsb.training.run was lost" in errors
