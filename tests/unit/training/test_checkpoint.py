"""Saving and finding states: one rank with a toy engine, a real writer process, real files."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pyfsb import storage
from pyfsb.errors import CheckpointError, StorageError
from pyfsb.storage.workspace import Workspace
from pyfsb.training import restoring
from pyfsb.training.checkpoint import CheckpointStore, TrainState
from pyfsb.training.distributed import ProcessGroup
from pyfsb.training.fragments import initialize_moments
from pyfsb.training.meters import METRICS_NAME

ALONE = ProcessGroup(rank=0, size=1, device=torch.device("cpu"))


class Net(nn.Module):
    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.a = nn.Linear(3, width)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


class ToyEngine:
    """AdamW without DeepSpeed: what fragments see of a stage 0 engine."""

    stage = 0

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        trained = [p for p in module.parameters() if p.requires_grad]
        self.zero_optimizer = self.base_optimizer = torch.optim.AdamW(trained)
        initialize_moments(self)

    def fill(self, value: float) -> None:
        """Set weights and moments to numbers that tell the value."""
        with torch.no_grad():
            for number, parameter in enumerate(self.base_optimizer.state):
                parameter.fill_(value + number)
                state = self.base_optimizer.state[parameter]
                state["exp_avg"].fill_(value / 2)
                state["exp_avg_sq"].fill_(value / 4)
                state["step"].fill_(value)

    def read(self) -> list[float]:
        found = []
        for parameter, state in self.base_optimizer.state.items():
            values = (parameter.detach(), state["exp_avg"], state["exp_avg_sq"], state["step"])
            assert all(len(set(value.flatten().tolist())) == 1 for value in values)
            found += [float(value.flatten()[0]) for value in values]
        return found


def values_of(value: float) -> list[float]:
    return [part for n in (0, 1) for part in (value + n, value / 2, value / 4, value)]


@dataclass
class Training:
    """A store with its toy engine."""

    place: Path | str
    keep_last: int = 1
    keep_every_steps: int | None = None
    fingerprint: dict[str, str] = field(default_factory=lambda: {"settings": "1"})
    group: ProcessGroup = ALONE
    width: int = 5
    patience_seconds: float = 20.0
    mirror: Path | None = None
    """Stands for the disk of another machine."""

    def __post_init__(self) -> None:
        workspace = Workspace(str(self.place))
        workspace.path = self.mirror or workspace.path
        self.store = CheckpointStore(
            workspace, fingerprint=self.fingerprint, keep_last=self.keep_last,
            keep_every_steps=self.keep_every_steps, patience_seconds=self.patience_seconds,
        )  # fmt: skip

    def start(self) -> Training:
        build: Any = ToyEngine
        self.state, self.engine = restoring.start_engine(
            lambda: Net(self.width), self.store, self.group, build
        )
        return self

    def save(self, step: int, *, waits: bool = True) -> float:
        engine: Any = self.engine
        engine.fill(step)
        return self.store.save(engine, TrainState(step=step), self.group, waits=waits)

    def values(self) -> list[float]:
        engine: Any = self.engine
        found: list[float] = engine.read()
        return found


@pytest.fixture
def make() -> Iterator[Callable[..., Training]]:
    """Make trainings; their writers end with the test."""
    made: list[Training] = []

    def begin(place: Path | str, **settings: Any) -> Training:
        made.append(Training(place, **settings).start())
        return made[-1]

    yield begin
    for training in made:
        training.store.close(is_failed=True)


Make = Callable[..., Training]


def names(place: Path) -> list[str]:
    return sorted(path.name for path in (place / "state").iterdir())


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


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


class Ranks:
    """Ranks as threads of this process."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._barrier = threading.Barrier(size)
        self._values: list[Any] = [None] * size

    def group(self, rank: int) -> ProcessGroup:
        ranks = self

        class Group(ProcessGroup):
            def gather(self, value: Any) -> list[Any]:
                ranks._values[self.rank] = value
                ranks._barrier.wait(30)
                found = list(ranks._values)
                ranks._barrier.wait(30)
                return found

        return Group(rank=rank, size=self.size, device=torch.device("cpu"))

    def run(self, work: Callable[[ProcessGroup], Any]) -> list[Any]:
        with ThreadPoolExecutor(self.size) as pool:
            futures = [pool.submit(work, self.group(rank)) for rank in range(self.size)]
            return [future.result() for future in futures]


def test_ranks_write_shares_and_another_number_reads_them(make: Make, tmp_path: Path) -> None:
    def save(group: ProcessGroup) -> None:
        training = make(tmp_path, group=group)
        training.save(4)

    Ranks(3).run(save)
    files = sorted(path.name for path in (tmp_path / "state/step-00000004").iterdir())
    assert files == [
        "index.json",
        *(f"rank-{rank:05d}.safetensors" for rank in range(3)),
        "state.json",
    ]
    assert make(tmp_path).values() == values_of(4)
    found = Ranks(2).run(lambda group: make(tmp_path, group=group).values())
    assert found == [values_of(4)] * 2


def test_ranks_agree_on_what_is_whole(make: Make, tmp_path: Path) -> None:
    def save(group: ProcessGroup) -> None:
        training = make(tmp_path, group=group, keep_last=2)
        training.save(4)
        training.save(6)

    Ranks(2).run(save)
    damage(tmp_path / "state/step-00000006/rank-00001.safetensors")
    assert Ranks(2).run(lambda group: make(tmp_path, group=group).state.step) == [4, 4]


def test_a_rank_that_cannot_write_stops_all(make: Make, tmp_path: Path) -> None:
    def save(group: ProcessGroup) -> str:
        training = make(tmp_path, group=group)
        training.save(4)
        if group.rank == 1:
            os.kill(training.store._writer.pid, signal.SIGKILL)  # type: ignore[union-attr]
            time.sleep(0.1)
        try:
            training.save(6, waits=False)
            training.save(8, waits=False)
        except StorageError as exc:
            return str(exc)
        return ""

    found = Ranks(2).run(save)
    assert found[0] == found[1]
    assert "the process that writes saved states ended" in found[0]


def test_ranks_of_two_machines_meet_on_s3(s3: str, make: Make, tmp_path: Path) -> None:
    def save(group: ProcessGroup) -> None:
        training = make(s3, group=group, mirror=tmp_path / f"machine-{group.rank}")
        for step in (1, 2, 3):
            training.save(step)

    Ranks(2).run(save)
    files = [file.path for file in storage.list_files(storage.join(s3, "state"))]
    ranks = ("rank-00000.safetensors", "rank-00001.safetensors")
    assert files == [f"step-00000003/{name}" for name in ("index.json", *ranks, "state.json")]
    for rank in (0, 1):
        copies = list((tmp_path / f"machine-{rank}/state").glob("*/*.safetensors"))
        assert [path.name for path in copies] == [ranks[rank]], "each keeps its own part only"

    def read(group: ProcessGroup) -> list[float]:
        return make(s3, group=group, mirror=tmp_path / f"machine-{group.rank}").values()

    assert Ranks(2).run(read) == [values_of(3)] * 2
    assert make(s3, mirror=tmp_path / "third").values() == values_of(3)


def test_ranks_that_share_no_folder_are_told(make: Make, tmp_path: Path) -> None:
    def start(group: ProcessGroup) -> str:
        with pytest.raises(StorageError) as caught:
            make(tmp_path, group=group, mirror=tmp_path / f"machine-{group.rank}")
        return str(caught.value)

    assert "rank 1 does not see what rank 0 writes" in Ranks(2).run(start)[0]


def test_states_and_metrics_go_to_s3(
    s3: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = make(s3, keep_last=2)
    workspace = training.store.workspace
    (workspace.path / METRICS_NAME).write_text('{"step": 1}\n')
    for step in (1, 2, 3):
        training.save(step)
    files = [file.path for file in storage.list_files(storage.join(s3, "state"))]
    assert files == [
        f"step-0000000{step}/{name}"
        for step in (2, 3)
        for name in ("index.json", "rank-00000.safetensors", "state.json")
    ]
    assert storage.read_text(storage.join(s3, METRICS_NAME)) == '{"step": 1}\n'
    monkeypatch.setenv("FSB_CACHE", str(tmp_path / "other-machine"))
    assert make(s3).values() == values_of(3)


def test_a_state_that_left_the_store_is_not_continued(s3: str, make: Make) -> None:
    make(s3).save(1)
    for file in storage.list_files(s3):
        storage.delete(storage.join(s3, file.path))
    assert make(s3).state.step == 0


def test_training_goes_on_while_the_store_fails(
    s3: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    free_port: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The writer is started with a store that is not there; its local copies count for a restart."""
    caplog.set_level(logging.WARNING)
    good = os.environ["AWS_ENDPOINT_URL_S3"]
    make(s3)  # the ranks themselves see the store
    with monkeypatch.context() as outage:
        outage.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port}")
        outage.setenv("FSB_S3_ATTEMPTS", "1")
        training = Training(s3, patience_seconds=1.0)
        seen: Any = storage._S3
        assert seen._client is not None, "this process keeps its client of the good store"
        training.start()
        try:
            training.save(1, waits=False)
            training.save(2, waits=False)
            deadline = time.monotonic() + 40
            while "is tried again" not in caplog.text and time.monotonic() < deadline:
                time.sleep(0.05)
            with pytest.raises(StorageError, match="2 saved states are not complete after 1 s"):
                training.store.wait(ALONE)
        finally:
            training.store.close(is_failed=True)
    assert "training goes on, the upload is tried again" in caplog.text
    assert os.environ["AWS_ENDPOINT_URL_S3"] == good
    again = make(s3)
    assert (again.state.step, again.values()) == (2, values_of(2))
    again.save(3)
    stored = {file.path.split("/")[0] for file in storage.list_files(storage.join(s3, "state"))}
    assert stored == {"step-00000003"}
