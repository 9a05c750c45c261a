# SPDX-License-Identifier: Apache-2.0
"""ASGI middleware in front of KServe: closed paths, bounds on bodies, content types as sent."""

from __future__ import annotations

import asyncio
import json
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pyfsb.errors import FsbError
from serving.errors import ClosedPathError, RequestTimeoutError, RequestTooLargeError

_BINARY_HEADER: Final = b"inference-header-content-length"
_READ_AS_JSON: Final = (b"application/json", b"application/x-www-form-urlencoded", b"")
_REPOSITORY: Final = "/v2/repository"


class ClosedRepository:
    """Closes KServe's repository API, by which any client may unload the model."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event."""
        path = scope.get("path", "")
        if scope["type"] == "http" and (path == _REPOSITORY or path.startswith(f"{_REPOSITORY}/")):
            text = (
                f"{path}: the repository API is closed; this server keeps the model it began with"
            )
            await _refuse(ClosedPathError(text), send)
            return
        await self._app(scope, receive, send)


class BodyLimit:
    """Refuses bodies over a bound, announced or not, and clients that stop sending."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, timeout_seconds: float) -> None:
        """Wrap an application.

        Args:
            app: What comes after.
            max_bytes: Bytes of a body at most; more answer 413.
            timeout_seconds: Pause between two pieces of a body at most; more answer 504.
        """
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        num_bytes = 0
        is_complete = False
        refusal: FsbError | None = None

        async def counted() -> Message:
            nonlocal num_bytes, is_complete, refusal
            if is_complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), self._timeout_seconds)
            except TimeoutError:
                refusal = RequestTimeoutError("the body did not arrive in time")
                raise refusal from None
            num_bytes += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            if num_bytes > self._max_bytes:
                refusal = RequestTooLargeError(f"request body over {self._max_bytes} bytes")
                raise refusal
            return message

        async def answered(message: Message) -> None:
            # Frameworks turn any failure to read a body into a 400 of theirs.
            if refusal is None:
                await send(message)
            elif message["type"] == "http.response.start":
                await _refuse(refusal, send)

        await self._app(scope, counted, answered)


async def _refuse(error: FsbError, send: Send) -> None:
    body = json.dumps({"error": str(error)}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class JsonBodies:
    """Lets `curl -d` and `application/json; charset=utf-8` be read as JSON.

    KServe compares the content type letter by letter and takes anything else for bytes.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event."""
        if scope["type"] == "http" and scope["method"] == "POST":
            headers = dict(scope["headers"])
            kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
            if kind in _READ_AS_JSON and _BINARY_HEADER not in headers:
                kept = [item for item in scope["headers"] if item[0] != b"content-type"]
                scope["headers"] = [*kept, (b"content-type", b"application/json")]
        await self._app(scope, receive, send)
