"""Two small model hubs on loopback: what Hugging Face's and ModelScope's clients ask for."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the server has, what it was asked, and how it misbehaves."""

    files: dict[str, bytes]
    url: str = ""
    asked: list[str] = field(default_factory=list)
    breaks_after_bytes: int | None = None
    """The first answer with more bytes than this is cut there."""
    fails: int = 0
    """Answers of status 503 before it behaves."""
    lies: dict[str, bytes] = field(default_factory=dict)
    """Bytes it gives in place of those it states."""


@contextlib.contextmanager
def start_hub(files: dict[str, bytes]) -> Iterator[Hub]:
    """Serve one repository, `org/name`, at branch `main` or `master` and at `COMMIT`."""
    hub = Hub(files=files)

    class Handler(_Handler):
        state = hub

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Say nothing of clients that have read enough."""


class _Handler(http.server.BaseHTTPRequestHandler):
    state: Hub

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, url = self.state, urllib.parse.urlsplit(self.path)
        hub.asked.append(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if hub.fails:
            hub.fails -= 1
            self._send(b"", status=503)
        elif url.path == "/api/v1/models/org/name/repo/files":
            self._send_json({"Code": 200, "Data": {"Files": [*self._modelscope_files()]}})
        elif url.path == "/api/v1/models/org/name/repo":
            self._send_file(query["FilePath"])
        elif url.path.startswith("/api/models/org/name/revision/"):
            self._send_json(
                {"id": "org/name", "sha": COMMIT, "siblings": [*self._siblings()], "tags": []}
            )
        elif url.path.startswith("/api/models/org/name/tree/"):
            self._send_json([*self._tree()])
        elif url.path.startswith("/org/name/resolve/"):
            self._send_file(url.path.split("/", 5)[5])
        else:
            self._send(b"", status=404)

    def _modelscope_files(self) -> Iterator[dict[str, Any]]:
        yield {"Path": "sub", "Name": "sub", "Type": "tree", "Size": 0}
        for number, (path, data) in enumerate(self.state.files.items()):
            yield {
                "Path": path, "Name": path, "Type": "blob", "Size": len(data),
                "Sha256": hashlib.sha256(data).hexdigest(), "CommittedDate": number,
                "Revision": COMMIT if number + 1 == len(self.state.files) else "f" * 40,
            }  # fmt: skip

    def _siblings(self) -> Iterator[dict[str, Any]]:
        for path, data in self.state.files.items():
            lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 1}
            yield {"rfilename": path, "size": len(data), "blobId": "b", "lfs": lfs}

    def _tree(self) -> Iterator[dict[str, Any]]:
        for path, data in self.state.files.items():
            oid = hashlib.sha256(data).hexdigest()
            lfs = {"oid": oid, "size": len(data), "pointerSize": 1}
            yield {"type": "file", "path": path, "size": len(data), "oid": oid, "lfs": lfs}

    def _send_json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), kind="application/json")

    def _send_file(self, path: str) -> None:
        if path not in self.state.files:
            self._send(b"", status=404)
            return
        data = self.state.lies.get(path, self.state.files[path])
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self._send(
            data[start:], status=206 if "Range" in self.headers else 200,
            headers={"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'},
        )  # fmt: skip

    def _send(
        self, data: bytes, *, status: int = 200, kind: str = "application/octet-stream",
        headers: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        limit = self.state.breaks_after_bytes
        if limit is not None and len(data) > limit:
            self.state.breaks_after_bytes = None
            self.wfile.write(data[:limit])
            self.close_connection = True
            return
        self.wfile.write(data)
