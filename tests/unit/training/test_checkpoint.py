from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from pyfsb import storage
from pyfsb.storage.workspace import Workspace
from pyfsb.training.checkpoint import CheckpointStore, TrainState, write_tensors
from pyfsb.training.meters import METRICS_NAME

GROUP = cast("Any", SimpleNamespace(is_first=True, barrier=lambda: None))


def engine(value: float) -> Any:
    tensors = {"w": torch.full((4,), value)}
    return SimpleNamespace(weights=tensors.items, moments=tensors.items)


def store(place: Path | str, keep_last: int = 1) -> CheckpointStore:
    return CheckpointStore(Workspace(str(place)), fingerprint={"a": "b"}, keep_last=keep_last)


def names(place: Path) -> list[str]:
    return sorted(path.name for path in (place / "state").iterdir())


def save(opened: CheckpointStore, step: int) -> None:
    opened.save(engine(float(step)), TrainState(step=step), GROUP)


def step_of(opened: CheckpointStore) -> int | None:
    found = opened.load_latest()
    return found.state.step if found else None


def test_the_last_states_are_kept(tmp_path: Path) -> None:
    opened = store(tmp_path, keep_last=2)
    for step in (50, 100, 150):
        save(opened, step)
    assert names(tmp_path) == ["step-00000100", "step-00000150"]
    assert step_of(store(tmp_path)) == 150


@pytest.mark.parametrize("keep_last", [1, 2])
def test_a_broken_state_does_not_push_a_good_one_out(keep_last: int, tmp_path: Path) -> None:
    opened = store(tmp_path, keep_last=keep_last)
    save(opened, 100)
    save(opened, 200)
    weights = tmp_path / "state/step-00000200/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    again = store(tmp_path, keep_last=keep_last)
    assert step_of(again) == (100 if keep_last == 2 else None)
    save(again, 137)
    assert "step-00000200" not in names(tmp_path)
    assert step_of(store(tmp_path)) == 137


def test_an_old_broken_state_is_not_counted(tmp_path: Path) -> None:
    opened = store(tmp_path, keep_last=2)
    save(opened, 100)
    save(opened, 200)
    (tmp_path / "state/step-00000200/state.json").unlink()
    again = store(tmp_path, keep_last=2)
    assert step_of(again) == 100
    save(again, 250)
    assert names(tmp_path) == ["step-00000100", "step-00000250"]


def test_metrics_go_to_s3_with_the_state(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = s3
    workspace = Workspace(place)
    workspace.path.mkdir(parents=True)
    (workspace.path / METRICS_NAME).write_text('{"step": 1}\n')
    save(store(place), 1)
    assert storage.read_text(storage.join(place, METRICS_NAME)) == '{"step": 1}\n'
    monkeypatch.setenv("FSB_CACHE", str(tmp_path / "other-machine"))
    assert step_of(store(place)) == 1
    Workspace(place).pull_file(METRICS_NAME)
    assert (Workspace(place).path / METRICS_NAME).read_text() == '{"step": 1}\n'


def test_a_state_that_left_the_store_is_not_continued(
    s3: str,
) -> None:
    place = s3
    workspace = Workspace(place)
    workspace.path.mkdir(parents=True)
    (workspace.path / METRICS_NAME).write_text("")
    save(store(place), 1)
    for file in storage.list_files(place):
        storage.delete(storage.join(place, file.path))
    assert step_of(store(place)) is None


def test_tensors_that_cannot_be_written_are_a_storage_error(tmp_path: Path) -> None:
    from pyfsb.errors import StorageError

    with pytest.raises(StorageError, match="cannot write"):
        write_tensors({"w": torch.zeros(1)}, tmp_path / "no/such/folder/x")
