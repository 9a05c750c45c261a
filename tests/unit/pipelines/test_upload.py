"""The upload against a server that speaks the parts of KFP's v2beta1 API that it uses."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from pipelines import __main__ as command
from pipelines.compile import PIPELINES, Compiled, compile_pipeline
from pipelines.upload import Target, upload_all
from pyfsb.errors import ClusterError, ConfigError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
ONE = Compiled(
    name="fsb-one", title="Fengshenbang: one", description="Does one thing.",
    version="fsb-one-0123456789ab", text="pipelineInfo: {name: fsb-one}\n", manifests="",
)  # fmt: skip


@dataclass
class FakeKfp:
    """What a KFP API server keeps, and how it misbehaves."""

    pipelines: list[dict[str, Any]] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Given first, one a request, before it starts to work."""
    tokens: set[str | None] = field(default_factory=set)
    url: str = ""

    def get(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        wanted = json.loads(query["filter"])["predicates"][0] if "filter" in query else None
        if path == "/apis/v2beta1/pipelines":
            space = query.get("namespace")
            found = [item for item in self.pipelines if item.get("namespace") == space]
            return {"pipelines": _matching(found, wanted)}
        identity = re.fullmatch("/apis/v2beta1/pipelines/([^/]+)/versions", path)
        assert identity, path
        mine = [item for item in self.versions if item["pipeline_id"] == identity[1]]
        return {"pipeline_versions": _matching(mine, wanted)}

    def post(self, path: str, query: dict[str, str], body: bytes) -> dict[str, Any]:
        if path == "/apis/v2beta1/pipelines":
            made = {**json.loads(body), "pipeline_id": f"p{len(self.pipelines)}"}
            self.pipelines.append(made)
            return made
        assert path == "/apis/v2beta1/pipelines/upload_version"
        content = re.search(rb"\r\n\r\n(.*?)\r\n--", body, re.DOTALL)
        assert content
        made = {
            "pipeline_id": query["pipelineid"], "pipeline_version_id": f"v{len(self.versions)}",
            "display_name": query["name"], "text": content[1].decode(),
        }  # fmt: skip
        self.versions.append(made)
        return {key: value for key, value in made.items() if key != "text"}


def _matching(items: list[dict[str, Any]], wanted: Any) -> list[dict[str, Any]]:
    if wanted is None:
        return items
    assert (wanted["operation"], wanted["key"]) == ("EQUALS", "display_name")
    return [item for item in items if item["display_name"] == wanted["stringValue"]]


@pytest.fixture
def kfp_server() -> Iterator[FakeKfp]:
    fake = FakeKfp()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(b"")

        def do_POST(self) -> None:
            self.answer(self.rfile.read(int(self.headers["Content-Length"])))

        def answer(self, body: bytes) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            fake.requests.append(f"{self.command} {parts.path}")
            fake.tokens.add(self.headers.get("Authorization"))
            if fake.answers:
                status, value = fake.answers.pop(0)
            elif self.command == "GET":
                status, value = 200, fake.get(parts.path, query)
            else:
                status, value = 200, fake.post(parts.path, query, body)
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    yield fake
    server.shutdown()
    server.server_close()
    thread.join()


def send(fake: FakeKfp, *compiled: Compiled, **changes: Any) -> list[bool]:
    target = Target(host=fake.url, **{"wait_seconds": 20.0, **changes})
    return [done.was_there for done in upload_all(compiled or (ONE,), target, pause_seconds=0.01)]


def test_a_new_pipeline_gets_a_version_named_by_its_content(kfp_server: FakeKfp) -> None:
    assert send(kfp_server) == [False]
    (made,) = kfp_server.pipelines
    assert (made["name"], made["display_name"]) == ("fsb-one", "Fengshenbang: one")
    assert made["description"] == "Does one thing."
    (version,) = kfp_server.versions
    assert (version["display_name"], version["text"]) == (ONE.version, ONE.text)


def test_the_same_content_is_sent_once(kfp_server: FakeKfp) -> None:
    send(kfp_server)
    kfp_server.requests.clear()
    assert send(kfp_server) == [True]
    assert not any(request.startswith("POST") for request in kfp_server.requests)


def test_changed_content_is_a_new_version_of_the_same_pipeline(kfp_server: FakeKfp) -> None:
    send(kfp_server)
    assert send(kfp_server, replace(ONE, version="fsb-one-ffff", text="pipelineInfo: {}\n")) == [
        False
    ]
    assert len(kfp_server.pipelines) == 1
    assert [item["display_name"] for item in kfp_server.versions] == [ONE.version, "fsb-one-ffff"]


def test_a_pipeline_of_somebody_else_with_that_title_is_left_alone(kfp_server: FakeKfp) -> None:
    theirs = {"pipeline_id": "x", "name": "theirs", "display_name": ONE.title}
    kfp_server.pipelines.append(theirs)
    send(kfp_server)
    assert kfp_server.versions[0]["pipeline_id"] == "p1"


def test_an_upload_that_was_cut_off_goes_on(kfp_server: FakeKfp) -> None:
    kfp_server.pipelines.append({"pipeline_id": "p0", "name": ONE.name, "display_name": ONE.title})
    assert send(kfp_server) == [False]
    assert len(kfp_server.pipelines) == 1


def test_pipelines_of_a_namespace(kfp_server: FakeKfp) -> None:
    send(kfp_server, namespace="team")
    assert kfp_server.pipelines[0]["namespace"] == "team"
    assert send(kfp_server, namespace="team") == [True]
    assert send(kfp_server) == [False]


def test_it_waits_for_a_server_that_starts(kfp_server: FakeKfp) -> None:
    kfp_server.answers = [(503, {"message": "no healthy upstream"})] * 3 + [(429, {})]
    assert send(kfp_server) == [False]
    assert len(kfp_server.pipelines) == len(kfp_server.versions) == 1


def test_two_uploaders_at_once_end_with_one_version(kfp_server: FakeKfp) -> None:
    """The other one was first: 409, and then it is there."""
    kfp_server.answers = [
        (200, {"pipelines": []}),
        (200, {"pipelines": []}),
        (409, {"message": "exists"}),
    ]  # type: ignore[list-item]
    kfp_server.pipelines.append({"pipeline_id": "p0", "name": ONE.name, "display_name": ONE.title})
    assert send(kfp_server) == [False]
    assert len(kfp_server.pipelines) == 1


def test_it_gives_up_when_time_is_up(kfp_server: FakeKfp) -> None:
    kfp_server.answers = [(503, {"message": "no healthy upstream"})] * 1000
    with pytest.raises(ClusterError, match="did not take the pipelines within 0 s: no healthy"):
        send(kfp_server, wait_seconds=0.0)


def test_a_server_that_is_not_there(free_port: int) -> None:
    nobody = FakeKfp(url=f"http://127.0.0.1:{free_port}")
    with pytest.raises(ClusterError, match="did not take the pipelines within 0 s"):
        send(nobody, wait_seconds=0.0)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (401, "answered 401: no; log in again, or give --token-file"),
        (403, "the right to create pipelines there"),
        (404, "is this a KFP API server of version 2"),
        (400, "answered 400: no; see the KFP API server's log"),
    ],
)
def test_a_refusal_is_told_at_once(status: int, text: str, kfp_server: FakeKfp) -> None:
    kfp_server.answers = [(status, {"message": "no"})]
    with pytest.raises(ConfigError, match=text):
        send(kfp_server)
    assert len(kfp_server.requests) == 1


def test_the_command_uploads_every_pipeline(
    kfp_server: FakeKfp, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "token").write_text("secret\n")
    arguments = ["upload", "--host", kfp_server.url, "--token-file", str(tmp_path / "token")]
    monkeypatch.setattr(sys, "argv", ["pipelines", *arguments])
    for state in ("uploaded", "there already"):
        assert command.main() == 0
        lines = capsys.readouterr().out.splitlines()
        assert [re.split(" {2,}", line)[2] for line in lines] == [state] * len(PIPELINES)
    assert kfp_server.tokens == {"Bearer secret"}
    specs = [next(iter(yaml.safe_load_all(item["text"]))) for item in kfp_server.versions]
    names = {spec["pipelineInfo"]["name"] for spec in specs}
    assert names == {compile_pipeline(name).name for name in PIPELINES}


def test_the_command_wants_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KFP_HOST", raising=False)
    monkeypatch.setattr(sys, "argv", ["pipelines", "upload"])
    with pytest.raises(ConfigError, match="give --host or set KFP_HOST"):
        command.main()
