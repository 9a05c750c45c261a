# SPDX-License-Identifier: Apache-2.0
"""The HTTP side of the progress server: bounded bodies, bounded work, errors as JSON.

A report is written into the run's status at once, or a little later when the run was written a
moment ago: then the newest one wins. Handlers wait for the API server in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from operators.progress.access import ApiServer, Doorkeeper, RefusedError
from operators.progress.reports import Board, Report, Run
from pyfsb.errors import ClusterError, ConfigError
from pyfsb.resources import KINDS
from pyfsb.resources.status import GangStatus
from pyfsb.schema import Json, parse

MAX_BODY_BYTES: Final = 64 * 1024
_BODY_SECONDS: Final = 10.0
_NUM_WORKERS: Final = 16
_NUM_WAITING: Final = 256
_TICK_SECONDS: Final = 1.0
_STALE_SECONDS: Final = 60.0
_KINDS: Final = frozenset(kind.kind for kind in KINDS if issubclass(kind.status, GangStatus))
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_log = logging.getLogger(__name__)


class ProgressServer:
    """Takes reports; one for the process."""

    def __init__(
        self, cluster: ApiServer, *, audience: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Keep whom to ask.

        Args:
            cluster: The API server.
            audience: Audience that the pods' tokens are for.
            clock: Seconds.
        """
        self._cluster = cluster
        self._clock = clock
        self._door = Doorkeeper(cluster, audience=audience, clock=clock)
        self._registry = CollectorRegistry()
        self.board = Board()
        self._registry.register(self.board)
        self._workers = asyncio.Semaphore(_NUM_WORKERS)
        self._num_waiting = 0
        self._last_tick = clock()

    def build_app(self) -> web.Application:
        """Return what answers the pods."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_errors_as_json])
        app.router.add_post("/v1/{kind}/{namespace}/{name}", self.take)
        app.router.add_get("/healthz", self.tell_health)
        app.cleanup_ctx.append(self._write_meanwhile)
        return app

    def build_metrics_app(self) -> web.Application:
        """Return what answers Prometheus and the kubelet."""
        app = web.Application(middlewares=[_errors_as_json])
        app.router.add_get("/metrics", self.tell_metrics)
        app.router.add_get("/healthz", self.tell_health)
        return app

    async def take(self, request: web.Request) -> web.Response:
        """Take one report of a pod about its run."""
        run = _read_run(request)
        token = _read_token(request)
        if self._num_waiting >= _NUM_WAITING:
            raise RefusedError(503, "too many reports at once; try again later")
        self._num_waiting += 1
        try:
            report = await _read_report(request)
            async with self._workers:
                await asyncio.to_thread(self._door.admit, token, run)
            stamp = datetime.now(UTC).isoformat(timespec="seconds")
            self.board.note(run, report, now=self._clock(), reported_at=stamp)
            if run in self.board.due(now=self._clock()):
                await self._write(run)
        finally:
            self._num_waiting -= 1
        return web.json_response({})

    async def tell_health(self, _request: web.Request) -> web.Response:
        """Say whether late reports are still written."""
        age = self._clock() - self._last_tick
        is_well = age < _STALE_SECONDS
        body = {"status": "ok" if is_well else f"nothing was written for {age:.0f} s"}
        return web.json_response(body, status=200 if is_well else 503)

    async def tell_metrics(self, _request: web.Request) -> web.Response:
        """Give Prometheus the gauges."""
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def flush(self) -> None:
        """Write everything that waits, whenever it was written last."""
        for run in self.board.pending():
            await self._write_quietly(run)

    async def _write(self, run: Run) -> None:
        """Write the newest report of a run.

        Raises:
            ClusterError: The API failed; the report waits for the next try.
        """
        status = self.board.take(run, now=self._clock())
        if status is None:
            return
        is_written = False
        try:
            async with self._workers:
                await asyncio.to_thread(self._cluster.patch_status, *run, status)
            is_written = True
        finally:
            self.board.finish(run, is_written=is_written)

    async def _write_quietly(self, run: Run) -> None:
        try:
            await self._write(run)
        except ClusterError as exc:
            _log.warning("%s %s/%s: %s", *run, exc)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = self._clock()
            self.board.forget_silent(now=now)
            self._last_tick = now
            for run in self.board.due(now=now):
                await self._write_quietly(run)
                # While the API server is away each write takes its whole time-out; that is no
                # reason to end this process, which could not even start again without it.
                self._last_tick = self._clock()

    async def _write_meanwhile(self, _app: web.Application) -> AsyncIterator[None]:
        """Write late reports while the server runs, and the last ones when it ends."""
        task = asyncio.create_task(self._tick())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await self.flush()


def _read_run(request: web.Request) -> Run:
    kind, namespace, name = (request.match_info[key] for key in ("kind", "namespace", "name"))
    if kind not in _KINDS:
        raise RefusedError(404, f"unknown kind {kind!r}; expected {', '.join(sorted(_KINDS))}")
    if not _NAME.fullmatch(namespace) or not _NAME.fullmatch(name):
        raise RefusedError(404, f"no such run: {namespace}/{name}")
    return kind, namespace, name


def _read_token(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise RefusedError(401, "no bearer token")
    return token.strip()


async def _read_report(request: web.Request) -> Report:
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            body = await request.read()
        value = json.loads(body)
    except TimeoutError:
        raise RefusedError(408, "the body did not come in time") from None
    except (ValueError, RecursionError):
        raise RefusedError(400, "the body is not JSON") from None
    if not isinstance(value, dict):
        raise RefusedError(400, "the body is not a JSON object")
    return parse(Report, value, source="body")


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer every error with `{"error": …}`; say nothing of a bug but that there is one."""
    try:
        return await handler(request)
    except RefusedError as exc:
        return _error(exc.status, str(exc))
    except ConfigError as exc:
        return _error(400, str(exc)[:1000])
    except ClusterError as exc:
        _log.warning("%s: %s", request.path, exc)
        return _error(503, "the API server does not answer as it should; try again later")
    except web.HTTPException as exc:
        return _error(exc.status, exc.reason)
    except Exception:
        _log.exception("cannot answer %s", request.path)
        return _error(500, "internal error")


def _error(status: int, text: str) -> web.Response:
    body: Json = {"error": text}
    return web.json_response(body, status=status)
