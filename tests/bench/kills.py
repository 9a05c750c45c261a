"""The demo, killed three times: every step logged once, every loss bit-equal.

Starts `fsb run docs/examples/demo.yaml` in a process group of its own and kills the whole group
with SIGKILL at three random steps between the first and the last; the seed is printed. Then
compares metrics and records with an undisturbed run.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from pyfsb import records
from pyfsb.training.meters import StepMetrics, read_metrics
from tests.conftest import ROOT
from tests.helpers.specs import fsb, fsb_command

DEMO = str(ROOT / "docs/examples/demo.yaml")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        started = time.monotonic()
        done = fsb(*_arguments(whole), timeout=900)
        assert done.returncode == 0, done.stderr[-2000:]
        print(f"undisturbed: {time.monotonic() - started:.0f} s")
        expected = _steps(whole)
        seed = random.SystemRandom().randrange(10**9)
        moments = sorted(random.Random(seed).sample(range(1, len(expected)), 3))
        print(f"seed {seed}: kill -9 of the process group at steps {moments} of {len(expected)}")
        for moment in moments:
            _kill_at(killed, moment)
        done = fsb(*_arguments(killed), timeout=900)
        assert done.returncode == 0, done.stderr[-2000:]
        found = _steps(killed)
        assert [step["step"] for step in found] == list(range(1, len(expected) + 1))
        same = sum(a["loss"] == b["loss"] for a, b in zip(found, expected, strict=True))
        print(f"{len(found)} steps, each logged once; {same} of {len(expected)} losses bit-equal")
        for place in ("training", "evaluation", "serving"):
            pair = {records.read_record(str(path / place)).digest for path in (whole, killed)}
            print(f"{place}: digests {'equal' if len(pair) == 1 else 'DIFFER'}")
        assert same == len(expected)


def _arguments(output: Path) -> list[str]:
    return ["run", DEMO, "--set", f"output={output}", "--set", "serving.port=0"]


def _steps(output: Path) -> list[StepMetrics]:
    return read_metrics(output / "training/metrics.jsonl")


def _kill_at(output: Path, step: int) -> None:
    process = subprocess.Popen(
        fsb_command(*_arguments(output)), cwd=ROOT, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not (steps := _steps(output)) or steps[-1]["step"] < step:
        assert process.poll() is None, "the run ended before it was killed"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    while _is_anyone_left(output):
        time.sleep(0.05)


def _is_anyone_left(output: Path) -> bool:
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_self = int(entry.name) == os.getpid()
            if not is_self and str(output).encode() in (entry / "cmdline").read_bytes():
                return True
    return False
