# SPDX-License-Identifier: Apache-2.0
"""Errors of a request and what the client sees of them; the only table of HTTP statuses.

RequestError         400  the body cannot be read as the protocol says, or an input is wrong
ClosedPathError      404  a part of KServe's API that this server keeps closed
RequestTooLargeError 413  too many rows or bytes
OverloadedError      503  too many requests at once; try again
RequestTimeoutError  504  not answered in time
"""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from pyfsb.errors import ConfigError, FsbError, NotReadyError


class RequestError(ConfigError):
    """The request is wrong; the same request fails again."""


class ClosedPathError(ConfigError):
    """KServe would answer there, this server does not."""

    http_status = 404


class RequestTooLargeError(ConfigError):
    """The request is larger than the server allows."""

    http_status = 413


class OverloadedError(NotReadyError):
    """The server has as much to do as it allows."""

    http_status = 503


class RequestTimeoutError(NotReadyError):
    """The answer took longer than the server allows."""

    http_status = 504


def add_handlers(app: FastAPI) -> None:
    """Answer our errors with their status and `{"error": text}`; no traceback leaves."""

    async def answer(_request: Request, error: Exception) -> JSONResponse:
        status = error.http_status if isinstance(error, FsbError) else 500
        headers = {"Retry-After": "1"} if status == 503 else None
        return JSONResponse({"error": str(error)}, status_code=status, headers=headers)

    app.add_exception_handler(FsbError, answer)
