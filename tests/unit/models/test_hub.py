from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from pyfsb.cli.__main__ import build_parser
from pyfsb.config import Family
from pyfsb.errors import CheckpointError, ConfigError, StorageError
from pyfsb.models import hub, modelscope
from pyfsb.models.hub import HubUri, RemoteFile, choose_files, parse_hub_uri
from pyfsb.models.loading import find_weights, load_model, load_tokenizer, open_weights
from tests.helpers.hub_server import COMMIT, Hub, start_hub
from tests.helpers.models import MODELS, make_model, write_model

MEGATRON = MODELS[0]
SCHEMES = ("hf", "modelscope")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of a repository; one in a sub-folder and a pickle are never wanted."""
    folder = write_model(tmp_path_factory.mktemp("published"), MEGATRON, Family.FILL_MASK)
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    return {"pytorch_model.bin": b"pickle", "onnx/model.onnx": b"onnx", **files}


@pytest.fixture
def server(
    published: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hub]:
    """Both hubs on loopback, with caches of their own and the network allowed."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
    monkeypatch.setenv("FSB_CACHE", str(tmp_path / "fsb"))
    monkeypatch.setattr(modelscope.time, "sleep", lambda seconds: None)
    with start_hub(dict(published)) as state:
        point_at(monkeypatch, state.url)
        yield state


def point_at(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """What HF_ENDPOINT and MODELSCOPE_ENDPOINT do; the former is read when it is imported."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", url)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://org/name", "hf://org/name@main"),
        ("hf://IDEA-CCNL/Erlangshen-MegatronBert-1.3B@refs/pr/1",) * 2,
        ("modelscope://Fengshenbang/Erlangshen-1.3B/", "modelscope://Fengshenbang/Erlangshen-1.3B@master"),
        ("modelscope://a/b@v1.0", "modelscope://a/b@v1.0"),
    ],
)  # fmt: skip
def test_uris_are_read(text: str, expected: str) -> None:
    assert str(parse_hub_uri(text)) == expected


@pytest.mark.parametrize(
    "text", ["hf://name", "hf://a/b/c", "hf://a/..", "hf://a/b@", "hf://a/b@../c", "hub://a/b"]
)
def test_uris_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="expected hf://ORG/NAME"):
        parse_hub_uri(text)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_repository_is_fetched_once_checked_and_pinned(
    scheme: str, server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = open_weights(f"{scheme}://org/name")
    assert (found.uri, found.record) == (f"{scheme}://org/name@{COMMIT}", None)
    names = {path.name for path in found.folder.iterdir()}
    assert names >= {"config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"}
    assert not names & {"pytorch_model.bin", "onnx"}
    assert not any("pytorch_model.bin" in path for path in server.asked)
    link = found.link(base="/runs/x/training", root="/runs/x")
    assert (link.kind, link.uri) == ("ModelFolder", f"{scheme}://org/name@{COMMIT}")
    model = load_model(found.model_folder, Family.FILL_MASK)
    expected = make_model(MEGATRON, Family.FILL_MASK)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True)
    )
    server.asked.clear()
    assert open_weights(f"{scheme}://org/name") == found
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert open_weights(found.uri).folder == found.folder
    assert server.asked == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_other_bytes_than_stated_are_refused_and_not_kept(scheme: str, server: Hub) -> None:
    true = server.files["model.safetensors"]
    server.lies["model.safetensors"] = true[:-1] + bytes([true[-1] ^ 1])
    with pytest.raises(
        CheckpointError, match=r"model.safetensors has sha256 \w+… here, \w+… there"
    ):
        open_weights(f"{scheme}://org/name")
    server.lies.clear()
    assert load_model(open_weights(f"{scheme}://org/name").folder, Family.FILL_MASK)


def test_more_bytes_than_stated_are_not_written(server: Hub) -> None:
    server.lies["model.safetensors"] = server.files["model.safetensors"] + b"x" * (8 << 20)
    with pytest.raises(CheckpointError, match=r"model.safetensors has \d+ bytes here"):
        open_weights("modelscope://org/name")


def test_a_broken_connection_goes_on_where_it_broke(server: Hub) -> None:
    server.breaks_after_bytes = len(server.files["model.safetensors"]) - 1000
    assert load_model(open_weights("modelscope://org/name").folder, Family.FILL_MASK)
    tries = [path for path in server.asked if path.endswith("FilePath=model.safetensors")]
    assert len(tries) == 2


@pytest.mark.parametrize("scheme", SCHEMES)
def test_only_pickles_are_refused_before_they_are_fetched(scheme: str, server: Hub) -> None:
    del server.files["model.safetensors"]
    with pytest.raises(CheckpointError, match=r"no safetensors \(it has pytorch_model.bin\)"):
        open_weights(f"{scheme}://org/name")
    assert not any("FilePath" in path or "resolve" in path for path in server.asked)


def test_a_hub_that_fails_may_be_asked_again_and_a_missing_repository_not(server: Hub) -> None:
    server.fails = 1
    with pytest.raises(StorageError, match="cannot be fetched"):
        open_weights("modelscope://org/name")
    assert open_weights("modelscope://org/name")
    for scheme in SCHEMES:
        with pytest.raises(CheckpointError, match="answered 404"):
            open_weights(f"{scheme}://org/other")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_without_network_the_text_says_how_to_get_it(
    scheme: str, server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(
        (CheckpointError, StorageError), match="cannot be fetched .* run `fsb models fetch"
    ):
        open_weights(f"{scheme}://org/name")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="in no local cache, and HF_HUB_OFFLINE is set"):
        open_weights(f"{scheme}://org/name@v2")
    assert server.asked == []


def test_fetch_prints_where_the_weights_are(
    server: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["models", "fetch", "modelscope://org/name", "--output", "json"]
    parsed = build_parser().parse_args(arguments)
    assert parsed.handler(parsed) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["uri"] == f"modelscope://org/name@{COMMIT}"
    assert (Path(found["folder"]) / "model.safetensors").is_file()


def test_modelscopes_own_cache_is_taken(tmp_path: Path, server: Hub) -> None:
    for number, place in enumerate(
        ("models/org/name___v1", "hub/models/org/name___v2", "org/name.v3")
    ):
        folder = write_model(tmp_path / "ms" / place, MEGATRON, Family.FILL_MASK)
        name = f"name.v{number + 1}"
        assert find_weights(f"modelscope://org/{name}") == folder
        (folder / ".mv").write_text("Revision:v2,CreatedAt:1700000000")
        assert find_weights(f"modelscope://org/{name}@v2") == folder
        with pytest.raises(CheckpointError, match="answered 404"):
            find_weights(f"modelscope://org/{name}")


def test_half_a_snapshot_is_completed_or_named(
    tmp_path: Path, server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "hf/models--org--name"
    (base / "refs").mkdir(parents=True)
    (base / "refs/main").write_text(COMMIT)
    snapshot = base / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_bytes(server.files["config.json"])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        CheckpointError, match=r"lacks model.safetensors, and HF_HUB_OFFLINE is set"
    ):
        open_weights("hf://org/name")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert open_weights("hf://org/name").folder == snapshot


def test_sharded_weights_load_and_a_missing_shard_is_named(tmp_path: Path, server: Hub) -> None:
    model = make_model(MEGATRON, Family.FILL_MASK)
    model.save_pretrained(tmp_path / "s", max_shard_size="20KB")
    shards = hub.shard_names(tmp_path / "s")
    assert len(shards) > 2
    del server.files["model.safetensors"]
    server.files |= {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()}
    for scheme in SCHEMES:
        folder = open_weights(f"{scheme}://org/name").folder
        loaded = load_model(folder, Family.FILL_MASK)
        assert all(
            torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True)
        )
        assert load_tokenizer(folder)
    (tmp_path / "s" / shards[1]).unlink()
    with pytest.raises(CheckpointError, match=f"{shards[1]} is missing; the index"):
        load_model(tmp_path / "s", Family.FILL_MASK)
    shutil.rmtree(folder)
    del server.files[shards[1]]
    with pytest.raises(CheckpointError, match=f"lacks {shards[1]}, which its index names"):
        open_weights("modelscope://org/name")
    assert list(folder.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "text"),
    [(["../x.safetensors"], "expected a file beside it"), (["model.bin"], "only safetensors")],
)
def test_an_index_may_name_nothing_else(names: list[str], text: str, tmp_path: Path) -> None:
    index = {"weight_map": {str(number): name for number, name in enumerate(names)}}
    (tmp_path / hub.INDEX_NAME).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=text):
        hub.shard_names(tmp_path)


def test_weights_are_fetched_in_one_form_only() -> None:
    names = [
        "config.json", "model.safetensors", "model.safetensors.index.json",
        "model-00001-of-00002.safetensors", "model.fp16.safetensors", "unet/model.safetensors",
        "spiece.model", "modeling_own.py", "../model-1-of-2.safetensors",
    ]  # fmt: skip
    uri = HubUri(hub="hf", name="a/b", revision="main")
    chosen = choose_files(uri, [RemoteFile(path=name, num_bytes=1) for name in names])
    assert [file.path for file in chosen] == ["config.json", "model.safetensors", "spiece.model"]


def test_only_files_at_the_top_level_are_fetched_whatever_a_hub_lists() -> None:
    uri = parse_hub_uri("modelscope://IDEA-CCNL/Tiny")
    good = ["config.json", "model.safetensors", "ngram.txt", "preprocessor_config.json", "a.model"]
    bad = [
        "../../evil.model",
        "/tmp/evil.model",
        "model-/../x-of-2.safetensors",
        "sub/spiece.model",
    ]
    files = [RemoteFile(path=name, num_bytes=1) for name in (*good, *bad)]
    assert sorted(file.path for file in choose_files(uri, files)) == sorted(good)
