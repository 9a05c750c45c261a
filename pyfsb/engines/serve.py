# SPDX-License-Identifier: Apache-2.0
"""The serving stage on one machine: gate, start the server, ask it once, write the record.

The server is `python -m serving`, the same process that a pod runs; it is asked over HTTP. The
cluster engine shares gate, question, answer and record, so that both leave the same one.
"""

from __future__ import annotations

import http.client
import json
import logging
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from pyfsb import records, storage
from pyfsb.config import RunSpec, Stage, stage_hash
from pyfsb.errors import (
    EXIT_TERMINATED,
    ConfigError,
    DataError,
    FsbError,
    GateError,
    NotReadyError,
)
from pyfsb.processes import forwarding, start_child
from pyfsb.records import EvalReport, Score, ServingRecord
from pyfsb.schema import Json

_POLL_SECONDS: Final = 0.2
_RETRYABLE: Final = (503, 504)
"""Statuses of a server that is busy or slow."""
# A proxy that the environment names must not get requests to this machine.
_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_log = logging.getLogger(__name__)


def serve_and_ask(spec: RunSpec, *, keeps_serving: bool) -> subprocess.Popen[bytes] | None:
    """Start the server of the served task's model, ask it a question, record the answer.

    Args:
        spec: The run; its evaluation is complete.
        keeps_serving: Leave the server running.

    Returns:
        The running server, or None when it was stopped.

    Raises:
        GateError: The score does not allow serving.
        ConfigError: The server did not start, for instance because the port is taken.
        NotReadyError: The server did not become ready or did not answer in time.
    """
    started = time.monotonic()
    report = passed_report(spec)
    score, checkpoint_uri = served_score(spec, report)
    with tempfile.TemporaryDirectory(prefix="fsb-serving-") as folder:
        ready_file = Path(folder, "ready.json")
        server = start_child(_command(spec, score, checkpoint_uri, ready_file))
        stays = False
        with forwarding(server, grace_seconds=10.0) as stop:
            try:
                ready = _wait_until_ready(server, ready_file, spec)
                question, answer = ask_server(spec, report, ready["url"])
                stays = keeps_serving
            except FsbError:
                if stop.signal_number is not None:  # a server that is stopped fails in many ways
                    end_as_stopped(stop.signal_number)
                raise
            finally:
                if not stays:
                    _stop(server)
        if stop.signal_number is not None:
            end_as_stopped(stop.signal_number)
    record_answer(
        spec, report, seconds=time.monotonic() - started, endpoint=ready["url"],
        model_name=ready["name"], question=question, answer=answer, is_running=keeps_serving,
    )  # fmt: skip
    return server if keeps_serving else None


def end_as_stopped(signal_number: int) -> NoReturn:
    """End this process for a stop signal that was passed on: Ctrl-C with 130, SIGTERM with 143."""
    if signal_number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(EXIT_TERMINATED)


def passed_report(spec: RunSpec) -> EvalReport:
    """Return the run's report if its gate allows serving.

    Raises:
        GateError: It does not.
        DataError: There is no report.
    """
    uri = spec.output_of(Stage.EVALUATION)
    report = records.read_record(uri)
    if not isinstance(report, EvalReport):
        raise DataError(f"{uri} holds a {report.kind}, expected an EvalReport")
    if not report.gate.has_passed:
        raise GateError(
            f"gate for {report.gate.task}: {report.gate.reason}; nothing is served (set "
            "evaluation.gate.is_enabled=false to serve all the same)"
        )
    return report


def record_answer(
    spec: RunSpec,
    report: EvalReport,
    *,
    seconds: float,
    endpoint: str,
    model_name: str,
    question: Json,
    answer: Json,
    is_running: bool,
) -> ServingRecord:
    """Write the record of a served model that has answered.

    Args:
        spec: The run.
        report: Its report, whose gate has passed.
        seconds: Wall time of the stage.
        endpoint: URL of the V2 inference call.
        model_name: Name of the model in it.
        question: The tensors that were sent.
        answer: What came back.
        is_running: The server stays.
    """
    base, report_uri = spec.output_of(Stage.SERVING), spec.output_of(Stage.EVALUATION)
    score, checkpoint_uri = served_score(spec, report)
    checkpoint = records.read_record(checkpoint_uri)
    record = ServingRecord(
        run=spec.name,
        created_at=records.now(),
        seconds=seconds,
        config_hash=stage_hash(spec, Stage.SERVING),
        seeds=(),
        parents=(
            records.link(checkpoint, checkpoint_uri, base=base, root=spec.output),
            records.link(report, report_uri, base=base, root=spec.output),
        ),
        endpoint=endpoint,
        model_name=model_name,
        task=score.task,
        runner=score.runner,
        gate=report.gate,
        question=question,
        answer=answer,
        is_running=is_running,
    )
    records.write_record(record, base)
    return record


def check_port(spec: RunSpec) -> None:
    """Check that the serving port is free, before hours of training.

    Raises:
        ConfigError: Another process holds it.
    """
    family = socket.AF_INET6 if ":" in spec.serving.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((spec.serving.host, spec.serving.port))
        except OSError as exc:
            raise ConfigError(
                f"serving.port = {spec.serving.port}: cannot listen on {spec.serving.host} "
                f"({exc.strerror}); choose a free port, or 0 for any"
            ) from None


def served_score(spec: RunSpec, report: EvalReport) -> tuple[Score, str]:
    """Return the score that the gate is about, and the place of its model."""
    gate = report.gate
    score = next(
        score for score in report.scores if (score.task, score.runner) == (gate.task, gate.runner)
    )
    return score, storage.resolve(score.checkpoint, spec.output_of(Stage.EVALUATION))


def build_question(spec: RunSpec, report: EvalReport) -> tuple[Json, Json]:
    """Return the spec's question, or the report's example: tensors, and the V2 request body."""
    text, pair = report.example["text"], report.example["text_pair"]
    if spec.serving.question is not None:
        text = spec.serving.question
    tensors = {"text": text} if pair is None else {"text": text, "text_pair": pair}
    inputs = [
        {"name": name, "shape": [1], "datatype": "BYTES", "data": [value]}
        for name, value in tensors.items()
    ]
    return tensors, {"inputs": inputs}


def read_answer(response: Mapping[str, Any]) -> Json:
    """Return the result of the one row in a V2 response."""
    result = next(output for output in response["outputs"] if output["name"] == "result")
    answer: Json = json.loads(result["data"][0])
    return answer


def _command(spec: RunSpec, score: Score, checkpoint_uri: str, ready_file: Path) -> list[str]:
    limits = spec.serving
    return [
        sys.executable, "-m", "serving",
        "--checkpoint", checkpoint_uri,
        "--name", score.task,
        "--host", limits.host,
        "--port", str(limits.port),
        "--max-batch-rows", str(limits.max_batch_rows),
        "--max-request-bytes", str(limits.max_request_bytes),
        "--max-concurrent-requests", str(limits.max_concurrent_requests),
        "--request-timeout-seconds", str(limits.request_timeout_seconds),
        "--ready-file", str(ready_file),
    ]  # fmt: skip


def _wait_until_ready(
    server: subprocess.Popen[bytes], ready_file: Path, spec: RunSpec
) -> dict[str, str]:
    """Return the server's URL and model name once its model is ready."""
    timeout = spec.serving.startup_timeout_seconds
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        code = server.poll()
        if code is not None:
            raise ConfigError(f"the server ended with exit code {code}; its error is above")
        if ready_file.is_file() and (text := ready_file.read_text()):
            ready: dict[str, str] = json.loads(text)
            if _is_ready(ready["url"].removesuffix("/infer") + "/ready"):
                return ready
        time.sleep(_POLL_SECONDS)
    raise NotReadyError(
        f"the server was not ready after {timeout:g} s; raise serving.startup_timeout_seconds"
    )


def _is_ready(url: str) -> bool:
    try:
        with _OPENER.open(url, timeout=2.0) as response:
            return bool(response.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def ask_server(spec: RunSpec, report: EvalReport, url: str) -> tuple[Json, Json]:
    """Ask the server the spec's question, or the report's example, over the V2 protocol.

    Raises:
        DataError: The server refused it.
        NotReadyError: It gave no answer in time.
    """
    tensors, body = build_question(spec, report)
    text = tensors["text"]
    request = urllib.request.Request(  # noqa: S310 - our own server
        url,
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        timeout = spec.serving.request_timeout_seconds
        with _OPENER.open(request, timeout=timeout) as response:
            return tensors, read_answer(json.load(response))
    except urllib.error.HTTPError as exc:
        words = exc.read().decode("utf-8", "replace")
        kind = NotReadyError if exc.code in _RETRYABLE else DataError
        raise kind(f"the server answered {exc.code} to {text[:40]!r}: {words[:200]}") from None
    except (OSError, http.client.HTTPException) as exc:
        raise NotReadyError(
            f"no answer from {url} to {text[:40]!r} within {timeout:g} s ({exc}); raise "
            "serving.request_timeout_seconds, or run the same command again"
        ) from None


def _stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(10.0)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
