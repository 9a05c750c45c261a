"""Storage on real S3 servers."""

from __future__ import annotations

import http.server
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyfsb import records, storage
from pyfsb.errors import ConfigError, DataError, StorageError
from pyfsb.storage import s3 as s3_module
from pyfsb.storage import transfer
from pyfsb.storage.workspace import Workspace, localise
from tests.unit.test_records import dataset


def test_what_was_written_is_read(s3: str) -> None:
    uri = storage.join(s3, "a/文.txt")
    storage.write_text(uri, "文字")
    assert storage.read_text(uri) == "文字"
    assert storage.exists(uri)
    assert not storage.exists(storage.join(s3, "a"))
    storage.delete(uri)
    storage.delete(uri)
    assert not storage.exists(uri)


def test_files_are_listed_below_a_prefix(s3: str) -> None:
    for name in ("b/2", "a/1", "c", "ab"):
        storage.write_bytes(storage.join(s3, name), b"xx")
    listed = [(file.path, file.num_bytes) for file in storage.list_files(s3)]
    assert listed == [("a/1", 2), ("ab", 2), ("b/2", 2), ("c", 2)]
    assert [file.path for file in storage.list_files(storage.join(s3, "a"))] == ["1"]
    assert storage.list_files(storage.join(s3, "nothing")) == []


def test_large_files_go_up_in_parts(s3: str, tmp_path: Path) -> None:
    data = os.urandom(2 * s3_module.PART_BYTES + 12_345)
    (tmp_path / "large").write_bytes(data)
    storage.upload(tmp_path / "large", storage.join(s3, "large"))
    storage.download(storage.join(s3, "large"), tmp_path / "back/large")
    assert (tmp_path / "back/large").read_bytes() == data
    assert [file.num_bytes for file in storage.list_files(s3)] == [len(data)]


@pytest.mark.parametrize("kind", ["s3", "strict_s3"])
def test_parts_that_fail_are_sent_and_fetched_again(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.exceptions import ClientError, HTTPClientError

    place = request.getfixturevalue(kind)
    monkeypatch.setattr(s3_module, "PART_BYTES", 5 * 2**20)  # the least that S3 takes
    monkeypatch.setattr(transfer, "_FIRST_PAUSE_SECONDS", 0.01)
    response: Any = {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}
    errors = [HTTPClientError(error="broke off"), ClientError(response, "x")] * 2
    ask = transfer.Transfer._request

    def ask_badly(self: Any, *arguments: Any, **options: Any) -> Any:
        if errors:
            raise errors.pop()
        return ask(self, *arguments, **options)

    monkeypatch.setattr(transfer.Transfer, "_request", ask_badly)
    data = os.urandom(12 * 2**20 + 5)
    (tmp_path / "large").write_bytes(data)
    storage.upload(tmp_path / "large", storage.join(place, "large"))
    assert not errors
    errors.append(HTTPClientError(error="broke off"))
    storage.download(storage.join(place, "large"), tmp_path / "back")
    assert not errors
    assert (tmp_path / "back").read_bytes() == data


def test_an_upload_that_fails_for_good_leaves_nothing(
    strict_s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.exceptions import ClientError

    response: Any = {"Error": {"Code": "NoSpace"}, "ResponseMetadata": {"HTTPStatusCode": 507}}

    def refuse(*_arguments: Any, **_options: Any) -> Any:
        raise ClientError(response, "x")

    monkeypatch.setattr(transfer.Transfer, "_request", refuse)
    (tmp_path / "large").write_bytes(bytes(s3_module.PART_BYTES + 1))
    with pytest.raises(StorageError, match="the store answered NoSpace"):
        storage.upload(tmp_path / "large", storage.join(strict_s3, "large"))
    client = storage._S3.client
    assert "Uploads" not in client.list_multipart_uploads(Bucket="fsb")
    assert storage.list_files(strict_s3) == []


def test_missing_objects_and_buckets_are_bad_data(s3: str) -> None:
    with pytest.raises(DataError, match="no such object"):
        storage.read_bytes(storage.join(s3, "nothing"))
    with pytest.raises(DataError, match="there is no bucket 'other'"):
        storage.list_files("s3://other/x")


def test_wrong_keys_are_named_but_not_shown(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    monkeypatch.setattr(storage, "_S3", s3_module.S3Backend())
    with pytest.raises(ConfigError, match="the store refuses these keys") as caught:
        storage.read_bytes(storage.join(s3, "x"))
    assert "wrong-secret" not in str(caught.value)


def test_missing_keys_are_named(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(storage, "_S3", s3_module.S3Backend())
    with pytest.raises(ConfigError, match="set AWS_ACCESS_KEY_ID"):
        storage.read_bytes(storage.join(s3, "x"))


@pytest.mark.parametrize("endpoint", ["localhost:9000", "user:s3cr3t@host:1", "ftp://h"])
def test_a_wrong_endpoint_is_named_without_its_secrets(
    endpoint: str, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setattr(storage, "_S3", s3_module.S3Backend())
    with pytest.raises(ConfigError, match="expected http://host:port or https://host") as caught:
        storage.exists(storage.join(s3, "x"))
    assert "s3cr3t" not in str(caught.value)


def test_no_password_of_an_endpoint_is_shown(
    s3: str, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://user:s3cr3t@127.0.0.1:{free_port}")
    monkeypatch.setenv("FSB_S3_ATTEMPTS", "1")
    monkeypatch.setattr(storage, "_S3", s3_module.S3Backend())
    with pytest.raises(StorageError) as caught:
        storage.write_bytes(storage.join(s3, "x"), b"1")
    assert "s3cr3t" not in str(caught.value)
    assert f"http://127.0.0.1:{free_port}" in str(caught.value)


def test_a_wrong_bucket_name_is_a_wrong_setting(s3: str) -> None:
    with pytest.raises(ConfigError, match="Invalid bucket name"):
        storage.exists("s3://b*d name/x")


def test_a_refused_upload_is_told_as_refused(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(b"1")
    with pytest.raises(DataError, match="there is no bucket 'other'"):
        storage.upload(tmp_path / "x", "s3://other/x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    monkeypatch.setattr(storage, "_S3", s3_module.S3Backend())
    with pytest.raises(ConfigError, match="the store refuses these keys"):
        storage.upload(tmp_path / "x", storage.join(s3, "x"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("FSB_S3_ADDRESSING", "host"), ("FSB_S3_ATTEMPTS", "0"), ("FSB_S3_TIMEOUT_SECONDS", "x")],
)
def test_wrong_settings_are_named(
    name: str, value: str, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(storage, "_S3", s3_module.S3Backend())
    with pytest.raises(ConfigError, match=f"{name}='{value}'; expected"):
        storage.exists(storage.join(s3, "x"))


def test_an_unreachable_store_is_tried_again_and_then_named(
    s3: str, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    endpoint = f"http://127.0.0.1:{free_port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("FSB_S3_ATTEMPTS", "3")
    monkeypatch.setattr(storage, "_S3", s3_module.S3Backend())
    with pytest.raises(StorageError) as caught:
        storage.write_bytes(storage.join(s3, "x"), b"1")
    assert "after 3 attempts" in str(caught.value)
    assert endpoint in str(caught.value)
    assert caught.value.exit_code == 75


class _Flaky(http.server.BaseHTTPRequestHandler):
    """Answers 503 to the first calls, then 200."""

    failures = 2
    num_calls = 0

    def do_PUT(self) -> None:
        type(self).num_calls += 1
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        is_failing = type(self).num_calls <= type(self).failures
        self.send_response(503 if is_failing else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Flaky]]:
    handler = type("Handler", (_Flaky,), {"num_calls": 0})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for name, value in {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "FSB_S3_ADDRESSING": "path",
        "FSB_S3_ATTEMPTS": "4",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(storage, "_S3", s3_module.S3Backend())
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_store_that_stumbles_is_asked_again_with_pauses(flaky: type[_Flaky]) -> None:
    started = time.monotonic()
    storage.write_bytes("s3://b/x", b"1")
    assert flaky.num_calls == 3
    assert time.monotonic() - started > 0.0


def test_a_store_that_keeps_failing_is_an_error(flaky: type[_Flaky]) -> None:
    flaky.failures = 99
    with pytest.raises(StorageError, match="the store answered 503"):
        storage.write_bytes("s3://b/x", b"1")
    assert flaky.num_calls == 4


def test_records_live_on_s3(s3: str) -> None:
    place = storage.join(s3, "run/data")
    assert records.find_record(place) is None
    records.write_record(dataset(), place)
    assert records.read_record(place) == dataset()
    link = records.link(
        dataset(), place, base=storage.join(s3, "run/training"), root=storage.join(s3, "run")
    )
    assert link.uri == "../data"


def test_a_workspace_mirrors_a_prefix(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = storage.join(s3, "run")
    first = Workspace(uri)
    (first.path / "state/a").mkdir(parents=True)
    (first.path / "state/a/x").write_bytes(b"1")
    (first.path / "y").write_bytes(b"2")
    first.push([first.path / "state", first.path / "y"])
    assert [file.path for file in storage.list_files(uri)] == ["state/a/x", "y"]
    monkeypatch.setenv("FSB_CACHE", str(tmp_path / "other-machine"))
    second = Workspace(uri)
    assert second.path != first.path
    second.pull("state")
    assert (second.path / "state/a/x").read_bytes() == b"1"
    assert not (second.path / "y").exists()
    storage.write_bytes(storage.join(uri, "y"), b"3")
    assert (localise(uri) / "y").read_bytes() == b"3"
    second.remove("state")
    assert [file.path for file in storage.list_files(uri)] == ["y"]


def test_globs_find_the_same_on_s3_as_on_a_disk(s3: str) -> None:
    for name in ("raw/a.jsonl", "raw/deep/b.jsonl", "c.jsonl"):
        storage.write_bytes(storage.join(s3, name), b"xx")
    for root, pattern, expected in (
        (s3, "raw/*.jsonl", ["raw/a.jsonl"]),
        (s3, "**/*.jsonl", ["c.jsonl", "raw/a.jsonl", "raw/deep/b.jsonl"]),
        (s3, "raw/a.jsonl", ["raw/a.jsonl"]),
        (s3, "none.jsonl", []),
        ("/elsewhere", f"{s3}/raw/*.jsonl", [f"{s3}/raw/a.jsonl"]),
        ("/elsewhere", f"{s3}/c.jsonl", [f"{s3}/c.jsonl"]),
    ):
        assert [file.path for file in storage.find_files(root, pattern)] == expected


def test_a_mirror_follows_objects_of_equal_size(s3: str) -> None:
    uri = storage.join(s3, "run")
    storage.write_bytes(storage.join(uri, "weights"), b"1" * (2 << 20))
    assert (localise(uri) / "weights").read_bytes()[:1] == b"1"
    storage.write_bytes(storage.join(uri, "weights"), b"2" * (2 << 20))
    assert (localise(uri) / "weights").read_bytes()[:1] == b"2"


def test_what_is_unchanged_is_not_read_again(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(storage.join(s3, "run"))
    (workspace.path / "sent").parent.mkdir(parents=True)
    (workspace.path / "sent").write_bytes(b"1")
    workspace.push([workspace.path / "sent"])
    storage.write_bytes(storage.join(workspace.uri, "fetched"), b"2")
    workspace.pull()
    read: list[str] = []
    monkeypatch.setattr(storage, "download", lambda uri, _path: read.append(uri))
    workspace.pull()
    assert read == []
    (workspace.path / "sent").write_bytes(b"9")  # changed here, not sent
    workspace.pull()
    assert read == [storage.join(workspace.uri, "sent")]


def test_an_exact_pull_forgets_what_the_store_has_not(s3: str) -> None:
    workspace = Workspace(storage.join(s3, "run"))
    for name in ("state/step-1/x", "state/step-2/x"):
        (workspace.path / name).parent.mkdir(parents=True)
        (workspace.path / name).write_bytes(b"1")
    workspace.push([workspace.path / "state"])
    storage.delete(storage.join(workspace.uri, "state/step-2/x"))
    workspace.pull_exactly("state")
    assert (workspace.path / "state/step-1/x").is_file()
    assert not (workspace.path / "state/step-2/x").exists()
