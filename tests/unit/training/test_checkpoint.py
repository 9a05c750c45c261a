"""Saving and finding states: one rank with a toy engine, a real writer process, real files."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pyfsb.errors import CheckpointError, StorageError
from pyfsb.training import restoring
from pyfsb.training.checkpoint import TrainState
from tests.helpers.states import (
    ALONE,
    Make,
    damage,
    names,
    values_of,
)


def test_a_state_comes_back_as_it_was(make: Make, tmp_path: Path) -> None:
    training = make(tmp_path)
    assert training.state == TrainState()
    training.save(7)
    again = make(tmp_path)
    assert again.state.step == 7
    assert again.values() == values_of(7)
    files = sorted(path.name for path in (tmp_path / "state/step-00000007").iterdir())
    assert files == ["index.json", "rank-00000.safetensors", "state.json"]
    index = json.loads((tmp_path / "state/step-00000007/index.json").read_text())
    assert sorted(index) == ["a.bias", "a.weight"], "frozen weights are no part of it"


def test_the_last_states_are_kept_and_some_for_good(make: Make, tmp_path: Path) -> None:
    training = make(tmp_path, keep_last=2, keep_every_steps=100)
    for step in (50, 100, 150, 200, 250, 300, 350):
        training.save(step)
    assert names(tmp_path) == [f"step-{step:08d}" for step in (100, 200, 300, 350)]


def test_a_save_does_not_wait_for_the_disk_and_the_next_one_does(
    make: Make, tmp_path: Path
) -> None:
    training = make(tmp_path, keep_last=5)
    for step in range(1, 5):
        training.save(step, waits=False)
    training.store.wait(ALONE)
    assert names(tmp_path) == [f"step-{step:08d}" for step in range(1, 5)]
    assert make(tmp_path).values() == values_of(4)


@pytest.mark.parametrize("name", ["rank-00000.safetensors", "index.json", "state.json"])
def test_a_broken_state_is_named_and_the_one_before_it_counts(
    name: str, make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = make(tmp_path, keep_last=2)
    training.save(100)
    training.save(200)
    damage(tmp_path / "state/step-00000200" / name)
    again = make(tmp_path, keep_last=2)
    assert (again.state.step, again.values()) == (100, values_of(100))
    assert f"step-00000200/{name}" in caplog.text
    again.save(137)
    assert names(tmp_path) == ["step-00000100", "step-00000137"], "broken ones are not counted"


def test_a_missing_file_is_a_broken_state(make: Make, tmp_path: Path) -> None:
    training = make(tmp_path, keep_last=2)
    training.save(100)
    training.save(200)
    (tmp_path / "state/step-00000200/rank-00000.safetensors").unlink()
    assert make(tmp_path).state.step == 100


def test_only_a_broken_state_means_the_beginning(make: Make, tmp_path: Path) -> None:
    make(tmp_path).save(3)
    damage(tmp_path / "state/step-00000003/rank-00000.safetensors")
    again = make(tmp_path)
    assert again.state == TrainState()
    again.save(2)
    assert names(tmp_path) == ["step-00000002"]


def test_what_a_killed_group_left_is_cleared(make: Make, tmp_path: Path) -> None:
    make(tmp_path).save(3)
    for name in (".partial-step-00000004.x", ".removed-step-00000001"):
        (tmp_path / "state" / name).mkdir()
    (tmp_path / "state/step-00000003").rename(tmp_path / "state/.replaced-step-00000003")
    assert make(tmp_path).state.step == 3
    assert names(tmp_path) == ["step-00000003"]


def test_the_same_step_is_saved_anew(make: Make, tmp_path: Path) -> None:
    training = make(tmp_path)
    training.save(3)
    engine: Any = training.engine
    engine.fill(9)
    training.store.save(engine, TrainState(step=3, guard={"x": 1}), ALONE, waits=True)
    again = make(tmp_path)
    assert again.state == TrainState(step=3, guard={"x": 1})
    assert again.values() == values_of(9)


def test_going_back_needs_no_disk(make: Make, tmp_path: Path) -> None:
    training = make(tmp_path)
    training.save(5)
    engine: Any = training.engine
    engine.fill(77)
    damage(tmp_path / "state/step-00000005/rank-00000.safetensors")
    assert restoring.rewind(engine, training.store, ALONE).step == 5
    assert training.values() == values_of(5)


def test_going_back_before_the_first_save_takes_what_was_continued(
    make: Make, tmp_path: Path
) -> None:
    make(tmp_path).save(5)
    training = make(tmp_path)
    engine: Any = training.engine
    engine.fill(77)
    assert restoring.rewind(engine, training.store, ALONE).step == 5
    assert training.values() == values_of(5)


def test_going_back_without_a_state_is_an_error(make: Make, tmp_path: Path) -> None:
    training = make(tmp_path)
    engine: Any = training.engine
    with pytest.raises(CheckpointError, match="no saved state to go back to"):
        restoring.rewind(engine, training.store, ALONE)


def test_other_settings_and_models_are_refused(make: Make, tmp_path: Path) -> None:
    make(tmp_path).save(3)
    with pytest.raises(CheckpointError, match="was saved with another settings"):
        make(tmp_path, fingerprint={"settings": "2"})
    with pytest.raises(CheckpointError, match=r"'Net'.*a.bias has shape \[5\], not \[6\]"):
        make(tmp_path, width=6)


def test_a_state_of_an_earlier_program_is_refused(make: Make, tmp_path: Path) -> None:
    make(tmp_path).save(3)
    path = tmp_path / "state/step-00000003/state.json"
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 1'))
    with pytest.raises(CheckpointError, match="format_version 1; this program reads 2"):
        make(tmp_path)


def test_a_writer_that_was_killed_is_told_at_the_next_save(make: Make, tmp_path: Path) -> None:
    training = make(tmp_path)
    writer: Any = training.store._writer
    os.kill(writer.pid, signal.SIGSTOP)
    training.save(1, waits=False)
    os.kill(writer.pid, signal.SIGKILL)
    with pytest.raises(StorageError, match="the process that writes saved states ended with -9"):
        training.save(2)


def test_a_full_disk_loses_its_oldest_states_first(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The writer's file-size limit stands for the disk's: it is lifted when a state goes."""
    from pyfsb.training import writer as writing

    settings = writing.Settings(
        file_descriptor=-1, parent=0, path=str(tmp_path), uri=None, rank=0, size=1, is_shared=True,
        keep_last=5, keep_every_steps=None, stale=(), extra_files=(),
    )  # fmt: skip
    training = make(tmp_path, keep_last=5)
    for step in (1, 2, 3):
        training.save(step)
    monkeypatch.setattr(writing, "report", lambda *_arguments, **_details: None)
    writer = writing.Writer(settings)

    def action() -> str:
        if len(names(tmp_path)) > 1:
            raise OSError(28, "No space left on device")
        return "done"

    assert writer._with_room(action) == "done"
    assert names(tmp_path) == ["step-00000003"]
    with pytest.raises(OSError, match="No space"):
        writer._with_room(lambda: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert names(tmp_path) == ["step-00000003"], "the newest one never goes"


def test_a_disk_that_stays_full_is_a_storage_error(make: Make, tmp_path: Path) -> None:
    training = make(tmp_path)
    training.save(1)
    (tmp_path / "state").chmod(0o500)
    if os.access(tmp_path / "state", os.W_OK):  # root may write anywhere: a file is in the way
        (tmp_path / "state").chmod(0o700)
        for number in range(1, 4):
            prefix = f".partial-step-00000002.{training.store._place.token}"  # type: ignore[union-attr]
            (tmp_path / "state" / f"{prefix}-{number}").touch()
    training.save(2, waits=False)
    with pytest.raises(StorageError, match="cannot save the training state in"):
        training.store.wait(ALONE)
    (tmp_path / "state").chmod(0o700)
