from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pyfsb.errors import CheckpointError, StorageError
from pyfsb.storage.workspace import Workspace
from pyfsb.training.batching import Ints
from pyfsb.training.best import BestWeights
from pyfsb.training.distributed import ProcessGroup
from pyfsb.training.protocol import Batch
from pyfsb.training.validation import BestSoFar, HeldOutLoss


def test_the_best_measurement_and_how_long_it_is_ago() -> None:
    best = BestSoFar()
    assert not best.is_over(2)
    for step, loss, expected in (
        (1, 3.0, (3.0, 1, 0)), (2, 2.0, (2.0, 2, 0)), (3, 2.0, (2.0, 2, 1)),
        (4, math.nan, (2.0, 2, 2)),
    ):  # fmt: skip
        best = best.after(loss, step)
        assert (best.loss, best.step, best.num_worse) == expected
    assert best.is_over(2)
    assert not best.is_over(3)
    assert not best.is_over(None)
    assert best.after(1.0, 5) == BestSoFar(loss=1.0, step=5)


def test_a_first_measurement_that_is_no_number_is_not_the_best() -> None:
    assert BestSoFar().after(math.nan, 1).loss is None


class Source:
    """Samples whose loss is their number times their length."""

    def __init__(self) -> None:
        self.lengths: Ints = np.arange(1, 31, dtype=np.int64) % 7 + 2
        self.passes: list[int] = []

    def collate(self, sample_ids: Ints, passes: Ints) -> Batch:
        self.passes += passes.tolist()
        lengths = torch.from_numpy(self.lengths[sample_ids])
        values = torch.from_numpy(sample_ids).double()
        return Batch(
            inputs={"values": values, "lengths": lengths},
            num_targets=int(lengths.sum()),
            num_tokens=int(lengths.sum()),
        )


class FakeEngine:
    """Sums up what it is given; its module must be in evaluation mode, without gradients."""

    def __init__(self) -> None:
        self.module = nn.Dropout()
        self.num_calls = 0

    def __call__(self, values: Tensor, lengths: Tensor) -> Tensor:
        assert not self.module.training
        assert not torch.is_grad_enabled()
        self.num_calls += 1
        return (values * lengths).sum()


@pytest.mark.parametrize("layout", ["flat", "buckets"])
def test_the_held_out_loss_counts_every_sample_once_over_any_number_of_processes(
    layout: str,
) -> None:
    ids = np.arange(10, 30)
    for size in (1, 2, 3):
        total, calls = 0.0, set()
        for rank in range(size):
            source, engine = Source(), FakeEngine()
            held_out = HeldOutLoss(source, ids, micro_tokens=20, layout=layout)
            totals: list[float] = []

            class Rank(ProcessGroup):
                def sum(self, values: Any, totals: list[float] = totals) -> list[float]:
                    totals += values
                    return list(values)

            group = Rank(rank=rank, size=size, device=torch.device("cpu"))
            held_out.measure(cast("Any", engine), group)
            total += totals[0]
            calls.add(engine.num_calls)
            assert set(source.passes) == {0}, "the same masks each time"
            assert engine.module.training
        assert total == (ids * Source().lengths[ids]).sum()
        assert len(calls) == 1, "all ranks take part in every forward pass"


def _weights(value: float) -> list[tuple[str, Tensor]]:
    return [("a.weight", torch.full((2, 3), value))]


def test_best_weights_of_the_last_best_steps_stay(tmp_path: Path) -> None:
    best = BestWeights(Workspace(str(tmp_path)), num_kept=2)
    for step in (2, 4, 6):
        best.keep(_weights(step), step)
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == [
        "step-00000004", "step-00000006"
    ]  # fmt: skip
    assert best.load(6)["a.weight"][0, 0] == 6.0
    # A run that fell back to before step 4 comes by another best step: the later one is void.
    best.keep(_weights(5.5), 5)
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == [
        "step-00000004", "step-00000005"
    ]  # fmt: skip


def test_exported_best_weights_are_cleared(tmp_path: Path) -> None:
    best = BestWeights(Workspace(str(tmp_path)), num_kept=2)
    best.keep(_weights(1.0), 1)
    best.clear()
    assert not list((tmp_path / "best").iterdir())


def test_best_weights_that_are_gone_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="step-00000007.*cannot be read"):
        BestWeights(Workspace(str(tmp_path)), num_kept=2).load(7)


def test_a_store_that_is_away_does_not_end_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    workspace, sent = Workspace(str(tmp_path)), []
    is_away = True

    def push(paths: list[Path]) -> None:
        if is_away:
            raise StorageError("s3://bucket: away")
        sent.extend(paths)

    monkeypatch.setattr(workspace, "push", push)
    best = BestWeights(workspace, num_kept=2)
    best.keep(_weights(1.0), 1)
    assert "training goes on" in caplog.text
    is_away = False
    best.keep(_weights(2.0), 2)
    assert [path.parent.name for path in sent] == ["step-00000001", "step-00000002"]
