"""Whole runs under everyday trouble: stopped, doubled, refused, on S3, on a full disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pyfsb import records, storage
from pyfsb.records import EvalReport
from tests.conftest import ROOT
from tests.helpers.specs import fsb, fsb_command, write_spec
from tests.integration.conftest import whole_spec

PLACES = (
    "data/corpus", "training", "evaluation", "evaluation/eprstmt/finetune-42",
    "evaluation/eprstmt/ngram-42", "evaluation/eprstmt/data", "serving",
)  # fmt: skip


def digests(output: str) -> dict[str, str]:
    return {place: records.read_record(storage.join(output, place)).digest for place in PLACES}


@pytest.fixture(scope="module")
def local_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of all stages by the local engine."""
    folder = tmp_path_factory.mktemp("local")
    spec = write_spec(folder, whole_spec(folder / "run"))
    done = fsb("run", str(spec))
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "run"


def begin(run: Path, output: Path, *stages: str) -> None:
    """Start an output with what another run's stages made: this run finds them complete."""
    for stage in stages:
        shutil.copytree(run / stage, output / stage)


def test_kfp_gives_the_same_records(local_run: Path, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, whole_spec(tmp_path / "run"))
    done = fsb("run", str(spec), "--engine", "kfp-local", "--output", "json")
    assert done.returncode == 0, done.stderr[-4000:]
    assert [stage["stage"] for stage in json.loads(done.stdout)["stages"]] == [
        "data", "training", "evaluation", "leaderboard", "serving",
    ]  # fmt: skip
    assert digests(str(tmp_path / "run")) == digests(str(local_run))


def test_one_stage_at_a_time_on_s3_gives_the_same_records(
    local_run: Path, s3: str, tmp_path: Path
) -> None:
    """Each stage by its own command, and what is left by `fsb run`, which finds them complete."""
    spec = str(write_spec(tmp_path, whole_spec(storage.join(s3, "run"))))
    for command in (["data", "prepare"], ["train", "run"], ["evaluate", "run"], ["run"]):
        done = fsb(*command, spec)
        assert done.returncode == 0, done.stderr[-4000:]
    for stage in ("data", "training", "evaluation"):
        assert f"[{stage}] complete since" in done.stderr
    assert digests(storage.join(s3, "run")) == digests(str(local_run))
    tree = fsb("records", "tree", storage.join(s3, "run/serving"))
    assert "DatasetRecord" in tree.stdout
    listed = {file.path for file in storage.list_files(storage.join(s3, "run"))}
    assert "leaderboard/leaderboard.html" in listed
    assert "training/state/step-00000006/state.json" in listed
    assert not {name for name in listed if ".lock" in name or ".probe" in name}
    checkpoint = storage.join(s3, "run/evaluation/eprstmt/finetune-42")
    assert json.loads(fsb("predict", checkpoint, "质量很好").stdout)["label"] in (
        "Positive",
        "Negative",
    )


def _start(spec: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        fsb_command("run", str(spec), *arguments), cwd=ROOT, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **(env or {})},
    )  # fmt: skip


def _wait_for_steps(process: subprocess.Popen[str], output: Path, count: int) -> None:
    path = output / "training/metrics.jsonl"
    deadline = time.monotonic() + 100
    while not path.is_file() or path.read_text().count("\n") < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


LONG: dict[str, Any] = {"training__max_steps": 4000, "training__num_epochs": 99}


def test_a_second_run_is_refused_and_ctrl_c_leaves_nothing_half_complete(
    local_run: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    begin(local_run, output, "data")
    spec = write_spec(tmp_path, whole_spec(output, **LONG))
    process = _start(spec)
    _wait_for_steps(process, output, 3)
    second = fsb("run", str(spec))
    assert second.returncode == 75
    assert f"another run holds {output} (process {process.pid} on" in second.stderr
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "the same command continues" in errors
    assert "Traceback" not in errors
    assert records.find_record(str(output / "training")) is None
    assert not list(output.rglob(".partial*"))
    saved = sorted((output / "training/state").glob("step-*"))[-1]
    again = _start(spec)
    deadline = time.monotonic() + 100
    while f"continuing from step {int(saved.name[5:])}" not in (line := again.stderr.readline()):  # type: ignore[union-attr]
        assert line, "the second run ended"
        assert time.monotonic() < deadline
    os.killpg(again.pid, signal.SIGTERM)
    assert again.wait(60) == 143


def test_a_score_at_chance_is_shown_and_not_served(local_run: Path, tmp_path: Path) -> None:
    settings = {
        "evaluation": {
            "tasks": ["tnews"], "runners": ["finetune"],
            "finetune": {"max_steps": 1, "optimizer": {"learning_rate": 1e-9}},
        }
    }  # fmt: skip
    output = tmp_path / "run"
    begin(local_run, output, "data", "training")
    spec = write_spec(tmp_path, whole_spec(output, **settings))
    done = fsb("run", str(spec))
    assert done.returncode == 3
    assert "[training] complete since" in done.stderr
    assert "not distinguishable from majority" in done.stdout
    assert "not above the majority at p < 0.001" in done.stderr
    assert "nothing is served" in done.stderr
    assert records.find_record(str(output / "serving")) is None
    report = records.read_record(str(output / "evaluation"))
    assert isinstance(report, EvalReport)
    assert not report.gate.has_passed


def test_an_unreachable_store_ends_with_one_line(s3: str, tmp_path: Path, free_port: int) -> None:
    spec = write_spec(tmp_path, whole_spec(storage.join(s3, "run")))
    env = {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{free_port}", "FSB_S3_ATTEMPTS": "2"}
    done = fsb("run", str(spec), env=env)
    assert done.returncode == 75
    assert "after 2 attempts" in done.stderr
    assert done.stderr.count("\n") == 1


_FULL_DISK = """
set -e
mount -t tmpfs -o size={size} tmpfs {folder}
{command}
"""


@pytest.mark.parametrize(
    ("size", "stage"), [("200k", "data"), ("1100k", "training")], ids=["data", "training"]
)
def test_a_full_disk_is_told_and_what_is_complete_stays(
    size: str, stage: str, tmp_path: Path
) -> None:
    """A real file system of the given size, mounted in a namespace of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    spec = write_spec(tmp_path, whole_spec(disk / "run"))
    check = f"{sys.executable} -c 'import sys; from pyfsb import records; print(records.find_record(sys.argv[1]) is None)' {disk}/run/{stage if stage == 'training' else 'data/corpus'}"
    command = f"{' '.join(fsb_command('run', str(spec)))}; code=$?; {check}; exit $code".replace(
        "; code", " && code=0 || code", 1
    )
    script = _FULL_DISK.format(size=size, folder=disk, command=command)
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip
    if "unshare failed" in done.stderr or "permission denied" in done.stderr:
        pytest.skip(f"no mount namespaces here: {done.stderr[:100]}")
    assert "disk full: cannot" in done.stderr, done.stderr[-3000:]
    assert "MiB free on that disk" in done.stderr
    assert done.returncode == 75
    assert "Traceback" not in done.stderr
    assert done.stdout.strip().endswith("True")
