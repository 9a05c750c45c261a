# SPDX-License-Identifier: Apache-2.0
"""`python -m operators.progress`: run the progress server until SIGTERM.

Settings come from the file that `FSB_OPERATOR_SETTINGS` names; of them it uses the audience only.
Metrics and health are on a port of their own, without TLS and without tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import ssl
import sys
from pathlib import Path

from aiohttp import web

from operators.cluster import Cluster
from operators.progress.server import ProgressServer
from operators.settings import load_settings
from pyfsb.errors import ConfigError
from pyfsb.processes import run_stage_main

_KEEPALIVE_SECONDS = 30.0
_SHUTDOWN_SECONDS = 10.0


def main() -> int:
    """Run the server; returns when told to stop."""
    parser = argparse.ArgumentParser(prog="python -m operators.progress", description=__doc__)
    parser.add_argument("--settings", help="settings file; default: FSB_OPERATOR_SETTINGS")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on")  # noqa: S104
    parser.add_argument("--port", type=int, default=8090, help="port for reports")
    parser.add_argument("--metrics-port", type=int, default=9090, help="port of /metrics")
    parser.add_argument("--certificate", type=Path, help="PEM file; with --key: https")
    parser.add_argument("--key", type=Path, help="PEM file of the certificate's key")
    arguments = parser.parse_args()
    settings = load_settings(arguments.settings)
    context = build_tls(arguments.certificate, arguments.key)
    cluster = Cluster()
    asyncio.run(_serve(cluster, settings.progress_audience, arguments, context))
    return 0


def build_tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return the TLS settings of the server, or None for plain HTTP.

    Raises:
        ConfigError: Only one file is given, or one cannot be used.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigError("--certificate and --key belong together; one of them is missing")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except OSError as exc:  # an SSLError is one too
        raise ConfigError(f"cannot use {certificate} with {key}: {exc}") from None
    return context


async def _serve(
    cluster: Cluster,
    audience: str,
    arguments: argparse.Namespace,
    context: ssl.SSLContext | None,
) -> None:
    server = ProgressServer(cluster, audience=audience)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with contextlib.AsyncExitStack() as stack:
        listening = (
            (server.build_metrics_app(), arguments.metrics_port, None),
            (server.build_app(), arguments.port, context),
        )
        for app, port, tls in listening:
            runner = web.AppRunner(
                app, access_log=None, keepalive_timeout=_KEEPALIVE_SECONDS,
                shutdown_timeout=_SHUTDOWN_SECONDS,
            )  # fmt: skip
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            try:
                await web.TCPSite(runner, arguments.host, port, ssl_context=tls).start()
            except OSError as exc:
                raise ConfigError(f"port {port}: {exc.strerror}; choose another one") from None
        await stopped.wait()


if __name__ == "__main__":
    sys.exit(run_stage_main(main))
