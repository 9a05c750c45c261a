"""A pod whose peer is killed, and what it reports meanwhile."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyfsb.config import resolve_spec
from pyfsb.data.prepare import prepare
from pyfsb.training.meters import read_metrics
from tests.helpers.pods import start_pod, wait_for_step
from tests.helpers.specs import tiny_spec, write_spec


@pytest.fixture
def reports() -> Iterator[tuple[str, list[Any]]]:
    """A server's URL and what was posted to it."""
    found: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/TrainingRun/team/demo", found
    server.shutdown()
    server.server_close()


def test_a_pod_whose_peer_is_gone_asks_for_another_try(
    tmp_path: Path, free_port: int, reports: tuple[str, list[Any]]
) -> None:
    prepare(resolve_spec(yaml.safe_dump(tiny_spec(tmp_path))))
    spec = write_spec(
        tmp_path, tiny_spec(tmp_path, training__max_steps=5000, training__num_epochs=99)
    )
    (tmp_path / "token").write_text("secret")
    url, found = reports
    told = {
        "KUBEFLOW_TRAINER_SERVER_URL": url,
        "KUBEFLOW_TRAINER_SERVER_TOKEN": str(tmp_path / "token"),
    }
    pods = [start_pod(spec, number, free_port, **told) for number in (0, 1)]
    try:
        wait_for_step(pods, tmp_path, 3)
        os.killpg(pods[1].pid, signal.SIGKILL)
        _, errors = pods[0].communicate(timeout=100)
    finally:
        for pod in pods:
            pod.kill()
    # Below 128 the job would fail for good.
    assert pods[0].returncode == 129, errors
    assert "another rank was lost" in errors
    # Only the first rank reports, and its last step is told though the training failed.
    steps = [
        int(metric["value"])
        for body in found
        for metric in body["trainerStatus"]["metrics"]
        if metric["name"] == "step"
    ]
    assert steps[0] == 0
    assert steps == sorted(steps)
    assert steps[-1] == read_metrics(tmp_path / "training/metrics.jsonl")[-1]["step"]
