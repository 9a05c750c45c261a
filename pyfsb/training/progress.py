# SPDX-License-Identifier: Apache-2.0
"""Reports how far a training is to whoever asks for it in the environment: in a cluster, ours.

Speaks the protocol of Kubeflow Trainer 2.x, which `transformers` speaks too: one POST of a small
JSON body. `Meters` calls it on the first rank. A thread of its own sends, at most every five
seconds and only the newest report; it never slows a step down and never fails a training.

Source: transformers 5.23, `KubeflowCallback` (variables, body, five seconds).
"""

from __future__ import annotations

import json
import logging
import os
import ssl
import statistics
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from pyfsb.schema import Json

URL_VARIABLE: Final = "KUBEFLOW_TRAINER_SERVER_URL"
TOKEN_VARIABLE: Final = "KUBEFLOW_TRAINER_SERVER_TOKEN"  # noqa: S105 - a path, not a token
CERTIFICATE_VARIABLE: Final = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
_INTERVAL_SECONDS: Final = 5.0
_TIMEOUT_SECONDS: Final = 5.0
_NUM_RECENT_STEPS: Final = 50
_FLOPS_PER_PARAMETER: Final = 6
_PEAK_TFLOPS: Final = {
    "b200": 2250, "h200": 989, "h100 pcie": 756, "h100 nvl": 835, "h100": 989, "h800": 989,
    "h20": 148, "a100": 312, "a800": 312, "a40": 150, "a30": 165, "a10": 125, "l40s": 362,
    "l40": 181, "l4": 121, "v100": 125, "t4": 65,
}  # fmt: skip
"""Dense 16-bit TFLOP/s by a part of the device's name, the longer names first.

Source: NVIDIA's data sheets, without sparsity."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of several trainings that a stage does one after another."""

    task: str
    """What it trains for."""
    number: int
    """Its place, from 0."""
    num_parts: int
    """How many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a training's speed and share are measured against."""

    num_steps: int
    """Steps in all."""
    num_parameters: int = 0
    """Parameters of the model."""
    num_devices: int = 1
    """Devices of all processes together; on CPU one a process."""
    device: str = "cpu"
    """What the driver calls them."""
    peak_flops: float | None = None
    """FLOP/s of all devices together at best, 16 bit. None: unknown, or a CPU."""
    part: Part | None = None
    """Its place among others. None when it is the stage's only training."""

    def mfu(self, tokens_per_second: float, *, flops_per_second: float = 0.0) -> float | None:
        """Return the share of the devices' FLOP/s that forward and backward use.

        Args:
            tokens_per_second: Tokens of all ranks together.
            flops_per_second: Model FLOPs counted for the architecture. 0: nobody counted, 6 FLOP a
                parameter and token are taken (PaLM, appendix B, its attention term left out).
        """
        if not self.peak_flops:
            return None
        flops = flops_per_second or _FLOPS_PER_PARAMETER * self.num_parameters * tokens_per_second
        return flops / self.peak_flops if flops else None


class Estimate:
    """Turns what each step tells into a report; knows no network."""

    def __init__(self, work: Work, *, step: int) -> None:
        """Stand at a step of a work."""
        self._work = work
        self._step = step
        self._loss: float | None = None
        self._tokens_per_second: float | None = None
        self._mfu: float | None = None
        self._seconds: deque[float] = deque(maxlen=_NUM_RECENT_STEPS)

    def note(
        self, *, step: int, loss: float, tokens_per_second: float, seconds: float,
        mfu: float | None = None,
    ) -> None:  # fmt: skip
        """Remember one step; `mfu` is reckoned from its tokens where it is not given."""
        self._step = step
        self._loss = loss
        self._tokens_per_second = tokens_per_second
        self._mfu = self._work.mfu(tokens_per_second) if mfu is None else mfu
        self._seconds.append(seconds)

    def to_report(self, now: datetime) -> Json:
        """Return the body of a report."""
        status: Json = {
            "progressPercentage": self._percentage(),
            "metrics": [{"name": name, "value": value} for name, value in self._metrics().items()],
            "lastUpdatedTime": now.isoformat(timespec="milliseconds"),
        }
        remaining = self._remaining_seconds()
        if remaining is not None:
            status["estimatedRemainingSeconds"] = remaining
        return {"trainerStatus": status}

    def _percentage(self) -> int:
        part = self._work.part
        share = self._step / max(1, self._work.num_steps)
        if part:
            share = (part.number + share) / part.num_parts
        return min(100, int(100 * share))

    def _remaining_seconds(self) -> int | None:
        """Return the seconds to the end; trainings still to come count as long as this one."""
        if not self._seconds:
            return None
        part, num_steps = self._work.part, self._work.num_steps
        later = (part.num_parts - part.number - 1) * num_steps if part else 0
        # The median: a step that waited for the disk or a peer says nothing about the next ones.
        return round((num_steps - self._step + later) * statistics.median(self._seconds))

    def _metrics(self) -> dict[str, str]:
        found = {"step": str(self._step), "total_steps": str(self._work.num_steps)}
        if self._loss is not None and self._tokens_per_second is not None:
            found["loss"] = f"{self._loss:.6g}"
            found["tokens_per_second"] = f"{self._tokens_per_second:.1f}"
            if self._mfu is not None:
                found["mfu"] = f"{self._mfu:.4f}"
        if self._work.part:
            found["task"] = self._work.part.task
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where reports go."""

    url: str
    """http:// or https://."""
    token_path: Path
    """File with the bearer token; it is renewed while the training goes on."""
    certificate_path: Path | None = None
    """File with the server's authority. None trusts the system's."""

    def post(self, report: Json) -> None:
        """Send one report.

        Raises:
            _RefusedError: The server said no.
            OSError: It was not reached, or a file cannot be read.
            HTTPException: It did not speak HTTP.
        """
        token = self.token_path.read_text(encoding="utf-8").strip()
        parts = urlsplit(self.url)
        connection = self._connect(parts)
        try:
            connection.request(
                "POST",
                parts.path or "/",
                body=json.dumps(report).encode(),
                headers={
                    "Authorization": f"Bearer {token}",
                    "Content-Type": "application/json",
                    "Connection": "close",
                },
            )
            response = connection.getresponse()
            text = response.read(500).decode(errors="replace")
            if response.status != 200:
                raise _RefusedError(response.status, text)
        finally:
            connection.close()

    def _connect(self, parts: SplitResult) -> HTTPConnection:
        """Return a connection that asks no proxy and follows no redirect: it carries a token."""
        if parts.scheme != "https":
            return HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS)
        context = ssl.create_default_context(
            cafile=str(self.certificate_path) if self.certificate_path else None
        )
        return HTTPSConnection(
            parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS, context=context
        )


class _RefusedError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text.strip()}")
        self.status = status


class Reporter:
    """Sends the newest report from a thread of its own."""

    def __init__(self, target: Target, *, interval_seconds: float = _INTERVAL_SECONDS) -> None:
        """Start the thread.

        Args:
            target: Where reports go.
            interval_seconds: Time between two reports at least.
        """
        self._target = target
        self._interval_seconds = interval_seconds
        self._changed = threading.Condition()
        self._newest: Json | None = None
        self._is_closed = False
        self._told: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="fsb-progress", daemon=True)
        self._thread.start()

    def tell(self, report: Json) -> None:
        """Leave a report for the thread, instead of one that has not been sent yet."""
        with self._changed:
            self._newest = report
            self._changed.notify()

    def close(self) -> None:
        """Send the last report, if it can be sent within a moment."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(2 * _TIMEOUT_SECONDS)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None or self._is_closed)
                report, self._newest = self._newest, None
            if report is None:
                return
            self._send(report)
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed, self._interval_seconds)

    def _send(self, report: Json) -> None:
        try:
            self._target.post(report)
        except _RefusedError as exc:
            self._log_once(f"status {exc.status}", exc)
        except Exception as exc:  # whatever it is, the training goes on
            self._log_once(type(exc).__name__, exc)

    def _log_once(self, kind: str, error: Exception) -> None:
        if kind in self._told:
            return
        self._told.add(kind)
        _log.warning("progress is not reported to %s: %s", self._target.url, error)


class Progress:
    """One training's reports: at its start, at every step, at its end."""

    def __init__(self, work: Work, target: Target, *, step: int) -> None:
        """Report where the training stands.

        Args:
            work: What it is measured against.
            target: Where reports go.
            step: Steps already taken.
        """
        self._estimate = Estimate(work, step=step)
        self._reporter = Reporter(target)
        self._tell()

    def note(
        self, *, step: int, loss: float, tokens_per_second: float, seconds: float,
        mfu: float | None = None,
    ) -> None:  # fmt: skip
        """Report one step."""
        self._estimate.note(
            step=step, loss=loss, tokens_per_second=tokens_per_second, seconds=seconds, mfu=mfu
        )
        self._tell()

    def close(self) -> None:
        """Send the last report."""
        self._reporter.close()

    def _tell(self) -> None:
        self._reporter.tell(self._estimate.to_report(datetime.now(UTC)))


def find_target(environment: Mapping[str, str] | None = None) -> Target | None:
    """Return where the environment wants reports to go, or None."""
    found = os.environ if environment is None else environment
    url, token = found.get(URL_VARIABLE), found.get(TOKEN_VARIABLE)
    if not url or not token or not _is_web(url):
        return None
    certificate = found.get(CERTIFICATE_VARIABLE)
    return Target(
        url=url,
        token_path=Path(token),
        certificate_path=Path(certificate) if certificate else None,
    )


def _is_web(url: str) -> bool:
    """Say whether a URL can be asked; one that is none must not end a training."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def peak_flops(device_name: str | None) -> float | None:
    """Return the 16-bit FLOP/s of a device at best, or None when it is not known.

    Args:
        device_name: As its driver calls it, e.g. NVIDIA A100-SXM4-80GB.
    """
    words = (device_name or "").lower().replace("-", " ")
    found = next((value for name, value in _PEAK_TFLOPS.items() if _has_word(words, name)), None)
    return None if found is None else found * 1e12


def _has_word(words: str, name: str) -> bool:
    """Say whether the name is there as whole words: an L4 is no L40."""
    return f" {name} " in f" {words} "
