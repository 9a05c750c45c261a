"""States of several ranks, on shared and separate disks and on S3."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from pyfsb import storage
from pyfsb.errors import StorageError
from pyfsb.training.distributed import ProcessGroup
from pyfsb.training.meters import METRICS_NAME
from tests.helpers.states import (
    ALONE,
    Make,
    Ranks,
    Training,
    damage,
    values_of,
)


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
