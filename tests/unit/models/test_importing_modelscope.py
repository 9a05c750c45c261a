"""`fsb models import modelscope://…`: pickles of that hub, checked against what it states."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from pyfsb.config import Family
from pyfsb.errors import CheckpointError
from pyfsb.models import modelscope
from pyfsb.models.hub import hash_sha256
from pyfsb.models.importing import Limits, import_model
from pyfsb.models.loading import load_model, open_weights
from tests.helpers.hub_server import COMMIT, Hub, start_hub
from tests.helpers.models import make_model, write_model

NAME = "Erlangshen-MegatronBert-1.3B"
URI = "modelscope://org/name"


def pickled(state: dict[str, torch.Tensor]) -> bytes:
    target = io.BytesIO()
    torch.save(state, target)
    return target.getvalue()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A repository as published: a pickle, a config, a vocabulary; others are not wanted."""
    folder = write_model(tmp_path_factory.mktemp("published"), NAME, Family.FILL_MASK)
    files = {name: (folder / name).read_bytes() for name in ("config.json", "tokenizer.json")}
    state = dict(make_model(NAME, Family.FILL_MASK).state_dict())
    return {
        **files,
        "pytorch_model.bin": pickled(state),
        "labels.txt": "人\n".encode(),
        "training_args.bin": b"pickle",
        "onnx/model.onnx": b"onnx",
    }


@pytest.fixture
def server(
    published: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
    monkeypatch.setenv("FSB_CACHE", str(tmp_path / "fsb"))
    monkeypatch.setattr(modelscope.time, "sleep", lambda seconds: None)
    with start_hub(dict(published)) as state:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", state.url)
        yield state


def fetched(server: Hub) -> list[str]:
    return [path.rpartition("FilePath=")[2] for path in server.asked if "FilePath=" in path]


def test_a_pickle_is_fetched_once_checked_pinned_and_converted(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = import_model(URI, NAME, tmp_path / "to")
    assert record.source == f"{URI}@{COMMIT}"
    (read,) = record.weights_read
    source = tmp_path / "fsb/modelscope/org/name/snapshots" / COMMIT / "pytorch_model.bin"
    assert (read.path, read.sha256) == ("pytorch_model.bin", hash_sha256(source))
    assert record.network != "none opened"
    assert sorted(fetched(server)) == sorted(
        ["config.json", "labels.txt", "pytorch_model.bin", "tokenizer.json"]
    )
    assert (tmp_path / "to/labels.txt").is_file()
    expected = make_model(NAME, Family.FILL_MASK)
    model = load_model(tmp_path / "to", Family.FILL_MASK)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True)
    )
    server.asked.clear()
    assert import_model(URI, NAME, tmp_path / "again") == record
    assert fetched(server) == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.asked.clear()
    assert import_model(URI, NAME, tmp_path / "offline") == record
    assert import_model(record.source, NAME, tmp_path / "pinned") == record
    assert server.asked == []


def test_other_bytes_than_stated_are_refused_and_not_kept(server: Hub, tmp_path: Path) -> None:
    true = server.files["pytorch_model.bin"]
    server.lies["pytorch_model.bin"] = true[:-1] + bytes([true[-1] ^ 1])
    with pytest.raises(CheckpointError, match=r"sha256 \w+… here, \w+… there"):
        import_model(URI, NAME, tmp_path / "to")
    assert not (tmp_path / "to").exists()
    server.lies.clear()
    assert import_model(URI, NAME, tmp_path / "to").weights_read


def test_a_file_above_the_limit_is_refused_before_it_is_fetched(
    server: Hub, tmp_path: Path
) -> None:
    size = len(server.files["pytorch_model.bin"])
    with pytest.raises(CheckpointError, match=rf"pytorch_model.bin has {size:,} bytes, more than"):
        import_model(URI, NAME, tmp_path / "to", limits=Limits(max_bytes=size - 1))
    assert fetched(server) == []


def test_shards_are_fetched_and_a_missing_one_is_named(server: Hub, tmp_path: Path) -> None:
    state = dict(make_model(NAME, Family.FILL_MASK).state_dict())
    names = sorted(state)
    halves = {
        f"pytorch_model-0000{number}-of-00002.bin": names[number - 1 :: 2] for number in (1, 2)
    }
    del server.files["pytorch_model.bin"]
    for name, keys in halves.items():
        server.files[name] = pickled({key: state[key].clone() for key in keys})
    weight_map = {key: name for name, keys in halves.items() for key in keys}
    index = json.dumps({"weight_map": weight_map}).encode()
    server.files["pytorch_model.bin.index.json"] = index
    second = server.files.pop("pytorch_model-00002-of-00002.bin")
    with pytest.raises(CheckpointError, match="lacks pytorch_model-00002-of-00002.bin"):
        import_model(URI, NAME, tmp_path / "to")
    server.files["pytorch_model-00002-of-00002.bin"] = second
    record = import_model(URI, NAME, tmp_path / "to")
    assert [file.path for file in record.weights_read] == list(halves)


def test_safetensors_are_taken_where_both_are_there(server: Hub, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "from", NAME, Family.FILL_MASK)
    server.files["model.safetensors"] = (folder / "model.safetensors").read_bytes()
    record = import_model(URI, NAME, tmp_path / "to")
    assert record.network == "none opened"
    assert [file.path for file in record.weights_read] == ["model.safetensors"]
    assert "pytorch_model.bin" not in fetched(server)
    assert open_weights(URI).uri == record.source


def test_a_repository_without_weights_or_network_is_named(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = server.files.pop("config.json")
    with pytest.raises(CheckpointError, match="has no config.json"):
        import_model(URI, NAME, tmp_path / "to")
    server.files["config.json"] = config
    del server.files["pytorch_model.bin"]
    with pytest.raises(CheckpointError, match="no model.safetensors or pytorch_model.bin"):
        import_model(URI, NAME, tmp_path / "to")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="was not fetched before, and HF_HUB_OFFLINE is set"):
        import_model(URI, NAME, tmp_path / "to")
