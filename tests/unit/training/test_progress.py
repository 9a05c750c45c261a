"""Reports of a training: what they say, and that nothing a server does touches the training."""

from __future__ import annotations

import json
import logging
import ssl
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from pyfsb.training.distributed import describe_device
from pyfsb.training.launcher import is_lost_peer
from pyfsb.training.meters import StepOutcome, open_meters
from pyfsb.training.progress import (
    Estimate,
    Part,
    Reporter,
    Target,
    Work,
    find_target,
    peak_flops,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Server:
    """Keeps what is posted; answers as it is told."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.status = 200
        self.hold = threading.Event()
        self.hold.set()
        self.arrived = threading.Semaphore(0)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                outer.bodies.append(json.loads(self.rfile.read(length)))
                outer.headers.append(dict(self.headers))
                outer.paths.append(self.path)
                outer.arrived.release()
                outer.hold.wait(10)
                self.send_response(outer.status)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1/TrainingRun/team/demo"

    def steps(self) -> list[int]:
        return [
            int(metric["value"])
            for body in self.bodies
            for metric in body["trainerStatus"]["metrics"]
            if metric["name"] == "step"
        ]

    def wait(self) -> None:
        assert self.arrived.acquire(timeout=10)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.hold.set()
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("secret\n")
    return path


def report(step: int) -> dict[str, Any]:
    return Estimate(Work(num_steps=10), step=step).to_report(NOW)


def metrics_of(body: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in body["trainerStatus"]["metrics"]}


def step(number: int) -> StepOutcome:
    return StepOutcome(
        step=number, loss=2.5, gradient_norm=1.0, learning_rate=0.1, epoch=0, num_samples=1,
        num_tokens=10, num_targets=1, num_step_tokens=10, num_step_samples=1, num_flops=0.0,
        seconds=0.5,
    )  # fmt: skip


def test_a_report_says_how_far_how_fast_and_how_long() -> None:
    work = Work(num_steps=200, num_parameters=1_000_000, peak_flops=1e9)
    estimate = Estimate(work, step=10)
    assert "estimatedRemainingSeconds" not in estimate.to_report(NOW)["trainerStatus"]
    assert metrics_of(estimate.to_report(NOW)) == {"step": "10", "total_steps": "200"}
    for number, seconds in ((11, 2.0), (12, 300.0), (13, 2.0)):
        estimate.note(step=number, loss=1.25, tokens_per_second=100.0, seconds=seconds)
    body = estimate.to_report(NOW)
    assert body["trainerStatus"]["progressPercentage"] == 6
    # The step that took five minutes does not count.
    assert body["trainerStatus"]["estimatedRemainingSeconds"] == 187 * 2
    assert body["trainerStatus"]["lastUpdatedTime"] == "2026-01-01T00:00:00.000+00:00"
    assert metrics_of(body) == {
        "step": "13", "total_steps": "200", "loss": "1.25", "tokens_per_second": "100.0",
        "mfu": "0.6000",
    }  # fmt: skip


def test_flops_that_were_counted_go_before_six_a_parameter() -> None:
    work = Work(num_steps=9, num_parameters=1_000_000, peak_flops=1e9)
    assert work.mfu(100.0) == pytest.approx(0.6)
    assert work.mfu(100.0, flops_per_second=5e8) == pytest.approx(0.5)
    assert Work(num_steps=9, num_parameters=1).mfu(100.0, flops_per_second=5e8) is None
    estimate = Estimate(work, step=0)
    estimate.note(step=1, loss=1.0, tokens_per_second=100.0, seconds=1.0, mfu=0.5)
    assert metrics_of(estimate.to_report(NOW))["mfu"] == "0.5000"


def test_a_training_that_hangs_is_silent(server: Server, token: Path) -> None:
    """The operator sees a hang by reports that do not come: nothing but a step sends one."""
    reporter = Reporter(Target(url=server.url, token_path=token), interval_seconds=0.01)
    reporter.tell(report(1))
    server.wait()
    assert not server.arrived.acquire(timeout=0.3)
    reporter.close()
    assert server.steps() == [1]


def test_the_last_step_is_all_of_it() -> None:
    assert report(9)["trainerStatus"]["progressPercentage"] == 90
    assert report(10)["trainerStatus"]["progressPercentage"] == 100


def test_the_second_of_four_parts_begins_at_a_quarter() -> None:
    work = Work(num_steps=10, part=Part(task="tnews", number=1, num_parts=4))
    estimate = Estimate(work, step=0)
    assert estimate.to_report(NOW)["trainerStatus"]["progressPercentage"] == 25
    estimate.note(step=5, loss=1.0, tokens_per_second=1.0, seconds=2.0)
    status = estimate.to_report(NOW)["trainerStatus"]
    assert status["progressPercentage"] == 37
    assert status["estimatedRemainingSeconds"] == (5 + 20) * 2
    assert metrics_of({"trainerStatus": status})["task"] == "tnews"


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA H100 PCIe", 756), ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA L4", 121), ("NVIDIA L40S", 362), ("Tesla V100-SXM2-32GB", 125),
        ("NVIDIA GeForce RTX 9999", None), ("NVIDIA GA10B", None), (None, None),
    ],
)  # fmt: skip
def test_peaks_are_known_by_whole_words(name: str | None, tflops: float | None) -> None:
    assert peak_flops(name) == (None if tflops is None else tflops * 1e12)


def test_meters_report_the_start_and_the_last_step(
    server: Server, token: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", server.url)
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_TOKEN", str(token))
    with open_meters(tmp_path / "run", name="r", work=Work(num_steps=9), step=2) as meters:
        assert meters is not None
        server.wait()
        for number in range(3, 10):
            meters.record(step(number))
    # The ones between came within five seconds; the last one is sent at the end whatever the time.
    assert server.steps() == [2, 9]
    assert server.bodies[-1]["trainerStatus"]["progressPercentage"] == 100
    assert server.paths[0] == "/v1/TrainingRun/team/demo"
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert server.headers[0]["Content-Type"] == "application/json"


def test_only_the_newest_waits_while_the_server_is_slow(server: Server, token: Path) -> None:
    server.hold.clear()
    reporter = Reporter(Target(url=server.url, token_path=token), interval_seconds=0.0)
    reporter.tell(report(1))
    server.wait()
    for number in range(2, 8):
        reporter.tell(report(number))  # returns at once though the server holds the first
    assert server.steps() == [1]
    server.hold.set()
    reporter.close()
    assert server.steps() == [1, 7]


def test_each_kind_of_trouble_is_logged_once(
    server: Server, token: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    reporter = Reporter(Target(url=server.url, token_path=token), interval_seconds=0.0)
    for status in (403, 403, 503):
        server.status = status
        reporter.tell(report(1))
        server.wait()
        reporter._send(report(1))
        server.wait()
    token.unlink()
    reporter.tell(report(2))
    reporter.close()
    found = [record.getMessage() for record in caplog.records]
    assert len(found) == 3
    assert "HTTP 403" in found[0]
    assert "HTTP 503" in found[1]
    assert "No such file" in found[2]
    assert "secret" not in caplog.text


def test_a_server_that_is_not_there_fails_nothing(
    token: Path, tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", f"http://127.0.0.1:{free_port}/x")
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_TOKEN", str(token))
    with open_meters(tmp_path, name="r", work=Work(num_steps=1), step=0) as meters:
        assert meters is not None
        meters.record(step(1))


def test_no_proxy_and_no_redirect_gets_the_token(
    server: Server, token: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port}")
    server.status = 307
    reporter = Reporter(Target(url=server.url, token_path=token))
    reporter.tell(report(1))
    reporter.close()
    assert server.steps() == [1]


def test_https_trusts_the_given_authority_only(
    server: Server, token: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = tmp_path / "ca.crt", tmp_path / "key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "1", "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    url = server.url.replace("http:", "https:")
    for authority in (certificate, None):
        reporter = Reporter(Target(url=url, token_path=token, certificate_path=authority))
        reporter.tell(report(4))
        reporter.close()
    assert server.steps() == [4]
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text


def test_nothing_is_reported_where_nobody_asks() -> None:
    url, token = "KUBEFLOW_TRAINER_SERVER_URL", "KUBEFLOW_TRAINER_SERVER_TOKEN"
    assert find_target({}) is None
    assert find_target({url: "https://x"}) is None
    for wrong in ("ftp://x", "http://", "http://[::1", "http://x:port", "http://x:0"):
        assert find_target({url: wrong, token: "/t"}) is None
    found = find_target({url: "https://x", token: "/t", "KUBEFLOW_TRAINER_SERVER_CA_CERT": "/c"})
    assert found == Target(url="https://x", token_path=Path("/t"), certificate_path=Path("/c"))


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        (
            "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Connection reset by peer",
            True,
        ),
        ("Gloo connectFullMesh failed with timeout", True),
        ("NCCL communicator was aborted on rank 3", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_a_lost_peer_is_told_from_a_bug(text: str, lost: bool) -> None:
    assert is_lost_peer(RuntimeError(text)) is lost
    assert not is_lost_peer(ValueError(text))


def test_a_device_is_called_what_its_driver_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe_device(torch.device("cpu")) is None
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: f"NVIDIA A100 {device}")
    assert describe_device(torch.device("cuda:3")) == "NVIDIA A100 cuda:3"
