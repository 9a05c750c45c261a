# SPDX-License-Identifier: Apache-2.0
"""`python -m pyfsb.leaderboard serve`: the leaderboard's pages over HTTP, remade now and then.

A few pages in memory and nothing else: no folder is served, no argument is read, nothing is
written. A store without reports gives a page that says how to get the first one; one that cannot
be read leaves the last pages standing. Called by `pyfsb.leaderboard.__main__` only.
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import http.server
import logging
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from pyfsb import storage
from pyfsb.errors import ConfigError, FsbError
from pyfsb.leaderboard.rank import rank_reports
from pyfsb.leaderboard.render import to_html, to_json, to_markdown
from pyfsb.leaderboard.store import record_files, reports_at

MAX_CONNECTIONS: Final = 64
"""Answers at once; further clients wait in the system's queue. Source: our choice."""
TIMEOUT_SECONDS: Final = 10.0
"""A client that sends nothing for so long is cut off."""
LONGEST_SECONDS: Final = 60.0
"""So is one that is not done by then: a byte now and then would hold its place for ever."""
HEADERS: Final = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-cache",
    }
)
"""With every answer; the pages' styles are inline, scripts they have none."""
_HTML: Final = "text/html; charset=utf-8"
_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json; charset=utf-8"
_MARKDOWN: Final = "text/markdown; charset=utf-8"
_FIRST_ROW: Final = (
    "<p>There is no evaluation report in this store yet.</p>"
    "<p>A first row comes with the first evaluation that ends well:</p><ul>"
    "<li>on a cluster: apply an <code>Evaluation</code>, or start the pipeline "
    "<code>benchmark</code> or <code>end_to_end</code>; the operator copies its report here;</li>"
    "<li>by hand: <code>fsb run SPEC</code> with its output below this store.</li></ul>"
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One answer."""

    body: bytes
    """What is sent."""
    kind: str
    """Its Content-Type."""
    status: int = 200
    """HTTP status."""

    @property
    def tag(self) -> str:
        """The ETag: changes with the body."""
        return f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'


class Pages:
    """The pages of one store; threads may read them while they are remade."""

    def __init__(self, store: str) -> None:
        """Start without any board; `refresh` reads the store."""
        self.store = storage.absolute(store)
        self._seen: list[storage.StoredFile] | None = None
        self._pages = _notice("<p>The store has not been read yet.</p>", status=503)

    def find(self, path: str) -> Page | None:
        """Return the page of a path of the URL, or None."""
        return self._pages.get(path)

    def refresh(self) -> None:
        """Remake the pages; the last ones stay when the store cannot be read."""
        try:
            files = record_files(self.store)
            # Versions tell whether an object changed; files on a disk have none.
            if files == self._seen and storage.is_s3(self.store):
                return
            boards = rank_reports(reports_at([self.store]))
            self._pages = _board_pages(boards) if boards else _notice(_FIRST_ROW)
            _log.info("%d boards of %s", len(boards), self.store)
            self._seen = files
        except FsbError as exc:
            _log.warning("the pages are not remade: %s", exc)
            if self._seen is None:
                text = f"<p>The store cannot be read: {html.escape(str(exc))}</p>"
                self._pages = _notice(text, status=503)
        except Exception:  # one report that cannot be drawn must not end the looking for ever
            _log.exception("the pages are not remade")


def _board_pages(boards: Any) -> Mapping[str, Page]:
    index = Page(body=to_html(boards).encode(), kind=_HTML)
    return {
        "/": index,
        "/leaderboard.html": index,
        "/leaderboard.json": Page(body=to_json(boards).encode(), kind=_JSON),
        "/leaderboard.md": Page(body=to_markdown(boards).encode(), kind=_MARKDOWN),
    }


def _notice(text: str, *, status: int = 200) -> Mapping[str, Page]:
    title = "Fengshenbang leaderboard"
    body = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"></head>'
        f'<body style="font: 15px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto">'
        f"<h1>{title}</h1>{text}</body></html>\n"
    )
    index = Page(body=body.encode(), kind=_HTML, status=status)
    return {
        "/": index,
        "/leaderboard.html": index,
        "/leaderboard.json": Page(body=to_json(()).encode(), kind=_JSON, status=status),
        "/leaderboard.md": Page(body=to_markdown(()).encode(), kind=_MARKDOWN, status=status),
    }


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET and HEAD from the pages; one request a connection."""

    timeout = TIMEOUT_SECONDS
    server: BoardServer

    def version_string(self) -> str:
        """Return what the Server header says: no versions."""
        return "fengshenbang"

    def log_message(self, format: str, *args: object) -> None:
        """Log a request for those who look for it."""
        _log.debug("%s %s", self.address_string(), format % args)

    def do_GET(self) -> None:
        """Answer with a page and its body."""
        self._answer(has_body=True)

    def do_HEAD(self) -> None:
        """Answer with the headers of a page."""
        self._answer(has_body=False)

    def _answer(self, *, has_body: bool) -> None:
        path = self.path.partition("?")[0]
        page = self.server.pages.find(path)
        if path == "/healthz":
            page = Page(body=b"ok\n", kind=_TEXT)
        if page is None:
            page = Page(body=b"no such page; the leaderboard is at /\n", kind=_TEXT, status=404)
        is_known = page.status == 200 and self.headers.get("If-None-Match") == page.tag
        self.send_response(304 if is_known else page.status)
        self.send_header("ETag", page.tag)
        if page.status == 503:
            self.send_header("Retry-After", "10")
        if not is_known:
            self.send_header("Content-Type", page.kind)
            self.send_header("Content-Length", str(len(page.body)))
        self.end_headers()
        if has_body and not is_known:
            self.wfile.write(page.body)

    def end_headers(self) -> None:
        """End every answer's headers, errors' too, with those that all answers have."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def refuse(self) -> None:
        """Answer any other method: nothing can be changed here."""
        self.send_response(405)
        self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = refuse


class BoardServer(http.server.ThreadingHTTPServer):
    """A thread an answer, so many at once and no more."""

    daemon_threads = True

    def __init__(self, pages: Pages, host: str, port: int) -> None:
        """Bind the port.

        Raises:
            ConfigError: The address is taken or is not one of this machine.
        """
        self.pages = pages
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except OSError as exc:
            raise ConfigError(
                f"cannot listen on {host}:{port}: {exc.strerror}; choose another --host or --port"
            ) from None

    def process_request(self, request: Any, client_address: Any) -> None:
        """Wait for a free place, then answer in a thread."""
        self._free.acquire()
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and free the place."""
        end = threading.Timer(LONGEST_SECONDS, _cut, [request])
        end.daemon = True
        end.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            end.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a connection that broke; the server goes on."""
        _log.debug("connection with %s broke", client_address, exc_info=True)


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def serve(store: str, *, host: str, port: int, refresh_seconds: float) -> None:
    """Serve the pages of a store until this process is told to stop.

    Args:
        store: Folder or s3:// prefix with reports somewhere below it.
        host: Address to listen on.
        port: Port; 0 takes any.
        refresh_seconds: Time between two looks at the store.

    Raises:
        ConfigError: The port is taken, or the time is not above 0.
    """
    if refresh_seconds <= 0:
        raise ConfigError(f"--refresh-seconds {refresh_seconds:g}; expected more than 0")
    pages = Pages(store)
    stopped = threading.Event()

    def keep_fresh() -> None:
        pages.refresh()
        while not stopped.wait(refresh_seconds):
            pages.refresh()

    with BoardServer(pages, host, port) as server:
        threading.Thread(target=keep_fresh, daemon=True).start()
        _log.info("leaderboard of %s at http://%s:%d", pages.store, host, server.server_port)
        try:
            server.serve_forever()
        finally:
            stopped.set()
