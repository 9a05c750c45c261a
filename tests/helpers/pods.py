"""Pods of a training gang, played by process trees with the environment of the Training Operator."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from pyfsb.training.metrics import StepMetrics, read_metrics
from tests.conftest import ROOT


def start_pod(
    spec: Path, number: int, port: int, *, num_pods: int = 2, num_ranks: int = 1, **more: str
) -> subprocess.Popen[str]:
    """Start one of some pods.

    Source: Training Operator 1.9, environment of a PyTorchJob with a Master.
    """
    environment = {
        "PET_NNODES": str(num_pods), "PET_NODE_RANK": str(number),
        "PET_NPROC_PER_NODE": str(num_ranks), "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": str(port), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "WORLD_SIZE": str(num_pods), "RANK": str(number),
        "FSB_TERMINATION_LOG": str(spec.parent / f"message-{number}"),
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "pyfsb.training", "--spec", str(spec)], cwd=ROOT, text=True,
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, **environment, **more},
    )  # fmt: skip


def steps_of(output: Path) -> list[StepMetrics]:
    """Return the steps of a run's training."""
    return read_metrics(output / "training/metrics.jsonl")


def wait_for_step(pods: list[subprocess.Popen[str]], output: Path, step: int) -> None:
    """Wait until a training has taken a step; the pods must not end before."""
    deadline = time.monotonic() + 200
    while (steps := steps_of(output)) == [] or steps[-1]["step"] < step:
        ended = [pod for pod in pods if pod.poll() is not None]
        assert not ended, ended[0].communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
