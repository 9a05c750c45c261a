from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyfsb import records
from pyfsb.config import RunSpec, Stage, resolve_spec
from pyfsb.engines.serve import _is_ready, ask_server, check_port, serve_and_ask
from pyfsb.errors import ConfigError, DataError, FsbError, NotReadyError
from pyfsb.records import EvalReport, GateResult
from tests.helpers.specs import tiny_spec
from tests.unit.evaluation.test_evaluation import scored


def make_spec(tmp_path: Path, **changes: object) -> RunSpec:
    return resolve_spec(yaml.safe_dump(tiny_spec(tmp_path / "out", **changes)))


def make_report(**changes: Any) -> EvalReport:
    score = scored(["a", "b"], [["a", "b"]])
    gate = GateResult(
        task=score.task, runner=score.runner, has_passed=True, reason="r", p_value=0.0
    )
    fields = {
        "run": "r", "created_at": "x", "seconds": 1.0, "config_hash": "c", "seeds": (1,),
        "model": "m", "num_parameters": 1, "scores": (score,), "gate": gate,
        "example": {"text": "问题", "text_pair": None},
    }  # fmt: skip
    return EvalReport(**{**fields, **changes})


class Answers(BaseHTTPRequestHandler):
    """A model server that does what the path says."""

    def do_GET(self) -> None:
        self._answer(200, {"ready": True})

    def do_POST(self) -> None:
        if self.path == "/slow":
            time.sleep(0.5)
        if self.path == "/gone":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        status = int(self.path[1:]) if self.path[1:].isdigit() else 200
        outputs = [{"name": "result", "data": [json.dumps({"label": "a"})]}]
        self._answer(status, {"outputs": outputs})

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def test_the_answer_comes_back_with_its_question(server: str, tmp_path: Path) -> None:
    question, answer = ask_server(make_spec(tmp_path), make_report(), f"{server}/infer")
    assert (question, answer) == ({"text": "问题"}, {"label": "a"})


@pytest.mark.parametrize(
    ("path", "kind", "text"),
    [
        ("400", DataError, "the server answered 400 to '问题'"),
        ("500", DataError, "the server answered 500"),
        ("503", NotReadyError, "the server answered 503"),
        ("504", NotReadyError, "the server answered 504"),
        (
            "slow",
            NotReadyError,
            r"/slow to '问题' within 0\.1 s \(timed out\); raise serving.request",
        ),
        ("gone", NotReadyError, "no answer from"),
    ],
)
def test_a_question_without_an_answer_is_explained(
    path: str, kind: type[FsbError], text: str, server: str, tmp_path: Path
) -> None:
    # Only the slow answer is to be late, also on a busy machine.
    timeout = 0.1 if path == "slow" else 20.0
    spec = make_spec(tmp_path, serving__request_timeout_seconds=timeout)
    with pytest.raises(kind, match=text) as caught:
        ask_server(spec, make_report(), f"{server}/{path}")
    assert type(caught.value) is kind


def test_a_server_that_is_not_there_gives_no_answer(free_port: int, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port}"
    assert not _is_ready(url)
    with pytest.raises(NotReadyError, match="no answer from .*Connection refused"):
        ask_server(make_spec(tmp_path), make_report(), url)


def test_no_proxy_gets_between(
    server: str, free_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it was built with the old environment
    assert _is_ready(server)
    assert ask_server(make_spec(tmp_path), make_report(), f"{server}/infer")[1] == {"label": "a"}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_taken_port_is_found_on_both_kinds_of_addresses(
    host: str, free_port: int, tmp_path: Path
) -> None:
    spec = make_spec(tmp_path, serving__port=free_port, serving__host=host)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        try:
            taken.bind((host, free_port))
        except OSError as exc:
            pytest.skip(f"no {host} on this machine: {exc}")
        check_port(make_spec(tmp_path, serving__port=0, serving__host=host))
        taken.listen()
        with pytest.raises(ConfigError, match=f"serving.port = {free_port}: cannot listen on"):
            check_port(spec)


def _children() -> list[int]:
    found = Path(f"/proc/{os.getpid()}/task/{threading.main_thread().native_id}/children")
    return [int(pid) for pid in found.read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("number", "end"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_while_the_server_starts_ends_the_run_as_any_other(
    number: signal.Signals, end: type[BaseException], tmp_path: Path
) -> None:
    spec = make_spec(tmp_path, serving__port=0)
    records.write_record(make_report(), spec.output_of(Stage.EVALUATION))
    before = set(_children())

    def interrupt() -> None:
        deadline = time.monotonic() + 20
        while not set(_children()) - before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)  # the handler is set after the process is started
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(end) as caught:
        serve_and_ask(spec, keeps_serving=False)
    thread.join()
    assert getattr(caught.value, "code", None) == (143 if end is SystemExit else None)
    assert not set(_children()) - before
    assert records.find_record(spec.output_of(Stage.SERVING)) is None
