from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyfsb import records, storage
from pyfsb.errors import ConfigError, StorageError
from pyfsb.leaderboard import web
from pyfsb.leaderboard.web import BoardServer, Pages, serve
from tests.unit.leaderboard.test_leaderboard import REPORTS


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store in the layout that the operator writes."""
    for report in REPORTS:
        name = report.digest.removeprefix("sha256:")
        records.write_record(report, str(tmp_path / f"store/reports/{name}/evaluation"))
    return tmp_path / "store"


@pytest.fixture
def server(store: Path) -> Iterator[BoardServer]:
    pages = Pages(str(store))
    pages.refresh()
    with BoardServer(pages, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(
    server: BoardServer, path: str, method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def test_the_pages_are_those_of_the_store(server: BoardServer) -> None:
    response, body = ask(server, "/?x=1")
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "Erlangshen-MegatronBert-1.3B" in body.decode()
    assert body == ask(server, "/leaderboard.html")[1]
    boards = json.loads(ask(server, "/leaderboard.json")[1])["boards"]
    assert [board["task"] for board in boards] == ["ocnli", "tnews"]
    assert ask(server, "/leaderboard.md")[1].startswith(b"# Leaderboard")


@pytest.mark.parametrize("path", ["/", "/healthz", "/nowhere", "/leaderboard.json"])
def test_every_answer_is_closed_to_scripts(path: str, server: BoardServer) -> None:
    response, _ = ask(server, path)
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "script" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Python" not in response.headers["Server"]


def test_a_page_that_is_known_is_not_sent_again(server: BoardServer) -> None:
    first, body = ask(server, "/")
    again, nothing = ask(server, "/", **{"If-None-Match": first.headers["ETag"]})
    assert (again.status, nothing) == (304, b"")
    assert ask(server, "/", **{"If-None-Match": '"other"'})[1] == body


def test_head_gives_the_headers_alone(server: BoardServer) -> None:
    response, body = ask(server, "/", "HEAD")
    assert (response.status, body) == (200, b"")
    assert int(response.headers["Content-Length"]) == len(ask(server, "/")[1])


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(method: str, server: BoardServer) -> None:
    response, _ = ask(server, "/", method)
    assert response.status == 405
    assert response.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path", ["/reports/", "/../etc/passwd", "/%2e%2e/etc/passwd", "/store", "/reports"]
)
def test_no_folder_is_served(path: str, server: BoardServer) -> None:
    assert ask(server, path)[0].status == 404


def test_it_lives_whatever_the_store_does(server: BoardServer) -> None:
    assert ask(server, "/healthz")[1] == b"ok\n"
    server.pages._pages = {}
    assert ask(server, "/healthz")[0].status == 200


def test_an_empty_store_says_how_to_get_a_first_row(tmp_path: Path) -> None:
    pages = Pages(str(tmp_path / "none"))
    before = pages.find("/")
    assert before is not None and before.status == 503
    pages.refresh()
    page = pages.find("/")
    assert page is not None and page.status == 200
    assert "fsb run" in page.body.decode()
    board = pages.find("/leaderboard.json")
    assert board is not None and json.loads(board.body) == {"boards": []}


def test_a_new_report_appears_and_a_failing_store_keeps_the_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pages = Pages(str(tmp_path))
    pages.refresh()
    records.write_record(REPORTS[0], str(tmp_path / "reports/a/evaluation"))
    pages.refresh()
    page = pages.find("/")
    assert page is not None and "tnews" in page.body.decode()

    def fail(_uri: str) -> None:
        raise StorageError("the store answered 500")

    monkeypatch.setattr(storage, "list_files", fail)
    pages.refresh()
    assert pages.find("/") is page
    assert "the pages are not remade: the store answered 500" in caplog.text


def test_a_report_that_cannot_be_drawn_keeps_the_pages(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pages = Pages(str(store))
    pages.refresh()
    page = pages.find("/")

    def fail(_boards: object) -> str:
        raise KeyError("metric")

    monkeypatch.setattr(web, "to_html", fail)
    pages.refresh()
    assert pages.find("/") is page
    assert "KeyError: 'metric'" in caplog.text


def test_a_store_that_never_answered_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_uri: str) -> None:
        raise StorageError("cannot list <s3>")

    monkeypatch.setattr(storage, "list_files", fail)
    pages = Pages(str(tmp_path))
    pages.refresh()
    page = pages.find("/")
    assert page is not None and page.status == 503
    assert "cannot list &lt;s3&gt;" in page.body.decode()


def test_unchanged_objects_are_not_read_again(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    records.write_record(REPORTS[0], f"{s3}/reports/a/evaluation")
    pages = Pages(s3)
    pages.refresh()
    with monkeypatch.context() as patch:
        patch.setattr(web, "reports_at", lambda _: pytest.fail("read again"))
        pages.refresh()
    records.write_record(REPORTS[1], f"{s3}/reports/b/evaluation")
    pages.refresh()
    page = pages.find("/leaderboard.json")
    assert page is not None and len(json.loads(page.body)["boards"]) == 2


def test_so_many_answers_at_once_and_no_more(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_CONNECTIONS", 1)
    with BoardServer(Pages(str(store)), "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with socket.create_connection(("127.0.0.1", server.server_port)) as idle:
            idle.sendall(b"GET / HTTP/1.0\r\n")  # an unfinished request keeps the only place
            with socket.create_connection(("127.0.0.1", server.server_port)) as second:
                second.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                second.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    second.recv(1)
                idle.sendall(b"\r\n")
                second.settimeout(10)
                assert second.recv(12) == b"HTTP/1.0 200"
        server.shutdown()
        thread.join()


def test_a_client_that_never_ends_loses_its_place(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "LONGEST_SECONDS", 0.2)
    with BoardServer(Pages(str(store)), "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as slow:
            slow.sendall(b"GET / HTTP/1.0\r\nX: ")
            assert slow.recv(1) == b""  # within 5 s, while 10 s without a byte are allowed
        server.shutdown()
        thread.join()


def test_a_taken_port_is_told(server: BoardServer) -> None:
    with pytest.raises(ConfigError, match="choose another --host or --port"):
        serve("x", host="127.0.0.1", port=server.server_port, refresh_seconds=1)
    with pytest.raises(ConfigError, match="--refresh-seconds 0; expected more than 0"):
        serve("x", host="127.0.0.1", port=0, refresh_seconds=0)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pyfsb.leaderboard", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=50)


def test_the_door_says_what_it_needs() -> None:
    assert "FSB_LEADERBOARD" in run("serve", "--help").stdout
    nothing = run("serve")
    assert nothing.returncode == 2
    assert "no store; give --store URI" in nothing.stderr
    assert run().returncode == 2


def test_the_pages_need_no_deep_learning_library() -> None:
    code = (
        "import sys, pyfsb.leaderboard.__main__\n"
        "print(sorted({'torch', 'transformers', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
