# SPDX-License-Identifier: Apache-2.0
"""Errors of a request and what the client sees of them; the only table of HTTP statuses.

RequestError         400  the body cannot be read as the protocol says, or an input is wrong
ClosedPathError      404  a part of KServe's API that this server keeps closed
RequestTooLargeError 413  too many rows or bytes
OverloadedError      503  too many requests at once; try again
RequestTimeoutError  504  not answered in time
"""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from pyfsb.errors import ConfigError, FsbError, NotReadyError

_V2_BODY: Final = '{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["…"]}]}'


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

    async def answer_unreadable(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return JSONResponse({"error": explain_body(error)}, status_code=RequestError.http_status)

    app.add_exception_handler(FsbError, answer)
    app.add_exception_handler(RequestValidationError, answer_unreadable)


def explain_body(error: RequestValidationError) -> str:
    """Return what is wrong with a body that is not of the V2 protocol, without the body itself."""
    for problem in error.errors():
        kind, *place = [str(part) for part in problem["loc"] if part != "body"] or [""]
        if kind != "bytes":  # the other form that a body may have
            path = ".".join(place) or "the body"
            return f"{path}: {problem['msg']}; expected {_V2_BODY}"
    return f"the body cannot be read; expected {_V2_BODY}"
