# SPDX-License-Identifier: Apache-2.0
"""KServe's ModelServer on a socket of our own.

KServe binds every interface and a taken port ends in its traceback, so the socket is opened here,
before the model is loaded, and handed to KServe's REST server. Used by `serving.__main__`.
"""

from __future__ import annotations

import errno
import logging
import socket
import warnings
from typing import Any, Final

from fastapi.exceptions import FastAPIDeprecationWarning
from kserve import ModelServer
from kserve.model_server import app
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.rest.server import RESTServer

from pyfsb.config import ServingSpec
from pyfsb.errors import ConfigError
from serving.base import TextModel
from serving.errors import add_handlers
from serving.middleware import BodyLimit, ClosedRepository, JsonBodies

_BACKLOG: Final = 2048
"""Connections that wait to be accepted at most; uvicorn's default."""


class ModelDataPlane(DataPlane):
    """KServe's data plane, except that it is ready only while every model is."""

    async def ready(self) -> bool:
        """Say whether there are models and all of them are loaded."""
        models = self.model_registry.get_models().values()
        return bool(models) and all([await model.healthy() for model in models])

    def metadata(self) -> dict[str, Any]:
        """Return the server's metadata without the repository extension, which is closed."""
        return {**super().metadata(), "extensions": []}


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens, so that no other server can have the port.

    Args:
        host: Address to listen on.
        port: 0 takes any free port.

    Raises:
        ConfigError: The port is taken, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        # Two sockets that do not listen yet may be bound to the same port.
        bound.listen(_BACKLOG)
    except OSError as exc:
        bound.close()
        if exc.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"serving.port = {port}: taken by another process on {host}; choose a free port, "
                "or 0 for any"
            ) from None
        raise ConfigError(f"cannot listen on {host}:{port}: {exc.strerror}") from None
    return bound


def serve(model: TextModel, bound: socket.socket, limits: ServingSpec) -> None:
    """Serve a model until SIGTERM or SIGINT; requests in work are finished first."""
    build_server(model, int(bound.getsockname()[1]), limits).run(sockets=[bound])


def build_server(model: TextModel, port: int, limits: ServingSpec) -> RESTServer:
    """Return KServe's REST server of a model, once a process: its application is a global."""
    server = ModelServer(http_port=port, enable_grpc=False, workers=1)
    server.register_model(model)
    app.add_middleware(
        BodyLimit,
        max_bytes=limits.max_request_bytes,
        timeout_seconds=limits.request_timeout_seconds,
    )
    app.add_middleware(JsonBodies)
    app.add_middleware(ClosedRepository)
    add_handlers(app)
    # KServe logs a traceback for every wrong request; what is our fault uvicorn logs as well.
    logging.getLogger("kserve").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=FastAPIDeprecationWarning)
    rest = RESTServer(
        "kserve.model_server:app",
        ModelDataPlane(model_registry=server.registered_models),
        server.model_repository_extension,
        port,
        grace_period=30,
        timeout_keep_alive=65,
    )
    # Connections beyond the requests that may wait are refused before their bodies are read.
    rest.config.limit_concurrency = 4 * limits.max_concurrent_requests
    return rest
