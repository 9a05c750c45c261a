# SPDX-License-Identifier: Apache-2.0
"""KServe's ModelServer on a socket of our own.

KServe binds every interface and a taken port ends in its traceback, so the socket is bound here,
before the model is loaded, and handed to KServe's REST server. Used by `serving.__main__`.
"""

from __future__ import annotations

import errno
import logging
import socket
import warnings

from fastapi.exceptions import FastAPIDeprecationWarning
from kserve import ModelServer
from kserve.model_server import app
from kserve.protocol.rest.server import RESTServer

from pyfsb.config import ServingSpec
from pyfsb.errors import ConfigError
from serving.base import TextModel
from serving.errors import add_handlers
from serving.middleware import BodyLimit, JsonBodies


def bind(host: str, port: int) -> socket.socket:
    """Return a bound socket.

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
    port = int(bound.getsockname()[1])
    server = ModelServer(http_port=port, enable_grpc=False, workers=1)
    server.register_model(model)
    app.add_middleware(
        BodyLimit,
        max_bytes=limits.max_request_bytes,
        timeout_seconds=limits.request_timeout_seconds,
    )
    app.add_middleware(JsonBodies)
    add_handlers(app)
    # KServe logs a traceback for every wrong request; what is our fault uvicorn logs as well.
    logging.getLogger("kserve").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=FastAPIDeprecationWarning)
    rest = RESTServer(
        "kserve.model_server:app",
        server.dataplane,
        server.model_repository_extension,
        port,
        grace_period=30,
        timeout_keep_alive=65,
    )
    # Connections beyond the requests that may wait are refused before their bodies are read.
    rest.config.limit_concurrency = 4 * limits.max_concurrent_requests
    rest.run(sockets=[bound])
