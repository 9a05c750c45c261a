"""Published pickles become safetensors, and nothing else gets in."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pyfsb.config import Family
from pyfsb.data.vocabulary import write_tokenizer
from pyfsb.errors import CheckpointError, StorageError, UnknownNameError
from pyfsb.models.architectures import find_architecture
from pyfsb.models.importing import RECORD_NAME, Limits, convert_file, import_model
from pyfsb.models.loading import load_model
from pyfsb.registry import find_entry
from pyfsb.tokenizers.choosing import load_tokenizer
from tests.conftest import ROOT
from tests.helpers.models import PIECES, make_model, write_model
from tests.helpers.reference import GOLDEN, ReferenceCase

NAME = "Erlangshen-MegatronBert-1.3B"


def publish(folder: Path) -> Path:
    """Write a folder as it was published: a pickle, config.json and vocab.txt."""
    write_model(folder, NAME, Family.FILL_MASK)
    for surplus in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (folder / surplus).unlink()
    torch.save(make_state(), folder / "pytorch_model.bin")
    return folder


def publish_plain(folder: Path, state: Mapping[str, Tensor]) -> Path:
    """Write a folder whose weights need no process of their own, under any names."""
    publish(folder)
    (folder / "pytorch_model.bin").unlink()
    save_file(
        {name: tensor.clone() for name, tensor in state.items()}, folder / "model.safetensors"
    )
    return folder


def make_state() -> dict[str, Tensor]:
    return dict(make_model(NAME, Family.FILL_MASK).state_dict())


def logits_of(folder: Path) -> Tensor:
    model = load_model(folder, Family.FILL_MASK).eval()
    ids = torch.arange(1, 9).reshape(1, -1)
    return model(input_ids=ids).logits.detach()


def test_a_pickle_becomes_a_folder_that_loads_with_the_same_logits(tmp_path: Path) -> None:
    record = import_model(str(publish(tmp_path / "from")), NAME, tmp_path / "to")
    ids = torch.arange(1, 9).reshape(1, -1)
    expected = make_model(NAME, Family.FILL_MASK)(input_ids=ids).logits
    assert torch.equal(logits_of(tmp_path / "to"), expected)
    assert load_tokenizer(tmp_path / "to")("中国")["input_ids"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from", "to"]
    stored = json.loads((tmp_path / "to" / RECORD_NAME).read_text("utf-8"))
    assert stored == record.to_json()
    assert record.network in {"namespace", "sockets"}
    assert [file.path for file in record.weights_read] == ["pytorch_model.bin"]
    assert len(record.weights_read[0].sha256) == 64
    assert [file.path for file in record.weights_written] == ["model.safetensors"]
    assert record.differences["hidden_size"].endswith("entry: 2048")


def test_importing_twice_gives_equal_folders(tmp_path: Path) -> None:
    publish(tmp_path / "from")
    records = [
        import_model(str(tmp_path / "from"), NAME, tmp_path / name) for name in ("one", "two")
    ]
    assert records[0] == records[1]
    with pytest.raises(CheckpointError, match="is not empty"):
        import_model(str(tmp_path / "from"), NAME, tmp_path / "one")


def test_names_of_old_checkpoints_are_understood(tmp_path: Path) -> None:
    state = make_state()
    old = {
        re.sub(
            r"(ln|LayerNorm)\.bias$",
            r"\1.beta",
            re.sub(r"(ln|LayerNorm)\.weight$", r"\1.gamma", name),
        ): tensor
        for name, tensor in state.items()
    }
    assert old.keys() != state.keys()
    old["bert.embeddings.position_ids"] = torch.arange(8).reshape(1, -1)
    record = import_model(str(publish_plain(tmp_path / "from", old)), NAME, tmp_path / "to")
    assert record.dropped == ("bert.embeddings.position_ids",)
    stored = load_file(tmp_path / "to" / "model.safetensors")
    assert not any(name.endswith((".gamma", ".beta")) for name in stored)
    expected = make_model(NAME, Family.FILL_MASK)(input_ids=torch.arange(1, 9).reshape(1, -1))
    assert torch.equal(logits_of(tmp_path / "to"), expected.logits)


def test_wrapped_states_and_module_prefixes(tmp_path: Path) -> None:
    publish(tmp_path / "from")
    wrapped = {"state_dict": {f"module.{k}": v for k, v in make_state().items()}, "epoch": 3}
    torch.save(wrapped, tmp_path / "from" / "pytorch_model.bin")
    import_model(str(tmp_path / "from"), NAME, tmp_path / "to")
    assert logits_of(tmp_path / "to").isfinite().all()


def test_shards_with_an_index(tmp_path: Path) -> None:
    folder = publish(tmp_path / "from")
    (folder / "pytorch_model.bin").unlink()
    items = list(make_state().items())
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    index: dict[str, str] = {}
    for name, part in zip(names, (items[:9], items[9:]), strict=True):
        torch.save(dict(part), folder / name)
        index |= dict.fromkeys([key for key, _ in part], name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    record = import_model(str(folder), NAME, tmp_path / "to")
    assert [file.path for file in record.weights_read] == names
    (folder / names[1]).unlink()
    with pytest.raises(CheckpointError, match=f"{names[1]} is missing"):
        import_model(str(folder), NAME, tmp_path / "other")
    evil = {"weight_map": {"a": "../x.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(evil))
    with pytest.raises(CheckpointError, match="expected a file beside it"):
        import_model(str(folder), NAME, tmp_path / "other")


def test_safetensors_are_taken_as_they_are(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "from", NAME, Family.FILL_MASK)
    record = import_model(str(folder), NAME, tmp_path / "to")
    assert record.network == "none opened"
    assert torch.equal(logits_of(folder), logits_of(tmp_path / "to"))


def test_missing_and_extra_weights_are_listed_and_refused(tmp_path: Path) -> None:
    state = make_state()
    state["bert.novel.weight"] = torch.zeros(2)
    del state["bert.encoder.layer.0.output.dense.bias"]
    name = "bert.encoder.layer.0.output.dense.weight"
    state[name] = torch.zeros(3, 3)
    folder = publish_plain(tmp_path / "from", state)
    with pytest.raises(CheckpointError) as caught:
        import_model(str(folder), NAME, tmp_path / "to")
    text = str(caught.value)
    assert "1 missing: bert.encoder.layer.0.output.dense.bias" in text
    assert "1 extra: bert.novel.weight" in text
    assert f"1 of another shape: {name} [3, 3], expected [" in text
    assert not (tmp_path / "to").exists()


def test_missing_and_extra_weights_are_left_out_when_told(tmp_path: Path) -> None:
    state = make_state()
    state["bert.novel.weight"] = torch.zeros(2)
    del state["cls.predictions.transform.dense.bias"]
    folder = publish_plain(tmp_path / "from", state)
    record = import_model(
        str(folder), NAME, tmp_path / "to", allow_missing=("cls.*",), allow_extra=("*.novel.*",)
    )
    assert record.extra == ("bert.novel.weight",)
    assert record.missing == ("cls.predictions.transform.dense.bias",)
    assert "bert.novel.weight" not in load_file(tmp_path / "to" / "model.safetensors")


class Malicious:
    """Runs a program when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return os.system, (f"touch {self.path}",)


def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    folder = publish(tmp_path / "from")
    trace = tmp_path / "trace"
    torch.save({"a": torch.zeros(2), "b": Malicious(trace)}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"refused.*asks for (posix|os)\.system"):
        import_model(str(folder), NAME, tmp_path / "to")
    assert not trace.exists()
    assert not (tmp_path / "to").exists()


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    folder = publish(tmp_path / "from")
    path = folder / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="may be cut short"):
        import_model(str(folder), NAME, tmp_path / "to")
    path.write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match="may be cut short"):
        import_model(str(folder), NAME, tmp_path / "to")


def test_something_else_than_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"step": 3}, tmp_path / "a.bin")
    with pytest.raises(CheckpointError, match="holds no tensor"):
        convert_file(tmp_path / "a.bin", tmp_path / "a.safetensors", Limits())


def test_limits_of_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    torch.save({"a": torch.zeros(100_000)}, path)
    target = tmp_path / "a.safetensors"
    with pytest.raises(CheckpointError, match="more than the limit 1,000"):
        convert_file(path, target, Limits(max_bytes=1000))
    with pytest.raises(CheckpointError, match="not converted within 0"):
        convert_file(path, target, Limits(seconds=0))
    assert not target.exists()


def test_limit_of_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    # Stored once, asked for as a view of many rows: small in the file, large when written out.
    torch.save({"a": torch.zeros(1000).expand(300_000, 1000)}, path)
    target = tmp_path / "a.safetensors"
    with pytest.raises(CheckpointError, match="memory|allocate"):
        convert_file(path, target, Limits(memory_bytes=1 << 28))
    assert not target.exists()


def test_the_process_that_opens_pickles_has_no_network_and_starts_nothing(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "from pyfsb.models.importing_child import leave_network, shut_doors\n"
        "import os, socket\n"
        "print(leave_network())\n"
        "shut_doors()\n"
        "for what in (lambda: socket.socket(), lambda: os.system('true'), lambda: os.fork()):\n"
        "    try:\n"
        "        what()\n"
        "        print('open')\n"
        "    except PermissionError:\n"
        "        print('shut')\n"
        "os._exit(0) if not os.sys.stdout.flush() else None\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    network, *doors = done.stdout.split()
    assert network in {"namespace", "sockets"}
    assert doors == ["shut"] * 3


def test_a_tokenizer_that_is_missing_or_does_not_fit(tmp_path: Path) -> None:
    folder = publish_plain(tmp_path / "from", make_state())
    vocabulary = folder / "vocab.txt"
    text = vocabulary.read_text("utf-8")
    vocabulary.write_text(text + "".join(f"多{n}\n" for n in range(99)), "utf-8")
    with pytest.raises(CheckpointError, match="pieces, the model"):
        import_model(str(folder), NAME, tmp_path / "to")
    vocabulary.unlink()
    with pytest.raises(CheckpointError, match="--tokenizer names a folder"):
        import_model(str(folder), NAME, tmp_path / "to")
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "vocab.txt").write_text(text, "utf-8")
    import_model(str(folder), NAME, tmp_path / "to", tokenizer_source=tmp_path / "words")


def test_wrong_sources(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError):
        import_model(str(tmp_path), "Erlangshen-Nothing", tmp_path / "to")
    with pytest.raises(CheckpointError, match="no such folder"):
        import_model(str(tmp_path / "none"), NAME, tmp_path / "to")
    (tmp_path / "consolidated.pth").write_text("x")
    with pytest.raises(CheckpointError, match="name the file itself if it is one of consolidated"):
        import_model(str(tmp_path), NAME, tmp_path / "to")
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        import_model(str(tmp_path / "consolidated.pth"), NAME, tmp_path / "to")


def test_a_config_that_breaks_the_architecture(tmp_path: Path) -> None:
    folder = publish(tmp_path / "from")
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        import_model(str(folder), NAME, tmp_path / "to")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    folder = publish(tmp_path / "from")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        import_model(str(folder), NAME, tmp_path / "file" / "to")


def test_a_repository_in_the_cache_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    commit = "0" * 40
    base = tmp_path / "models--IDEA-CCNL--Tiny"
    publish(base / "snapshots" / commit)
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    record = import_model("hf://IDEA-CCNL/Tiny", NAME, tmp_path / "to")
    assert record.source == f"hf://IDEA-CCNL/Tiny@{commit}"
    with pytest.raises(CheckpointError, match="cannot be fetched"):
        import_model("hf://IDEA-CCNL/Other", NAME, tmp_path / "other")


ORIGINALS = {
    "zen1": "Erlangshen-ZEN1-224M-Chinese",
    "zen2": "Erlangshen-ZEN2-345M-Chinese",
    "megatron_t5": "Randeng-MegatronT5-770M",
    "transfo_xl_denoise": "Randeng-Transformer-1.1B-Denoise",
    "roformer": "Zhouwenwang-Unified-110M",
}


@pytest.mark.parametrize("family", ORIGINALS)
def test_checkpoints_of_the_original_modules_are_imported(family: str, tmp_path: Path) -> None:
    case = ReferenceCase(GOLDEN / "reference_models" / family / "a")
    state = {name: tensor for name, tensor in case.weights().items() if "/" not in name}
    publish_plain(tmp_path / "from", state)
    write_tokenizer(PIECES, tmp_path / "words", lowercase=True)
    published = {"model_type": family, "architectures": ["TheirModel"], **case.config["model"]}
    (tmp_path / "from" / "config.json").write_text(json.dumps(published))
    (tmp_path / "words" / "ngram.txt").write_text("中国,1\n", encoding="utf-8")
    (tmp_path / "words" / "vocab.txt").write_text("\n".join(PIECES), encoding="utf-8")
    entry = find_entry(ORIGINALS[family])
    # Of ZEN's and Zhouwenwang's pretraining heads our masked language model has but one.
    import_model(
        str(tmp_path / "from"), entry.name, tmp_path / "to", tokenizer_source=tmp_path / "words",
        allow_extra=("*pooler*", "cls.seq*"),
    )  # fmt: skip
    model = load_model(tmp_path / "to", entry.family)
    assert model.config.model_type == entry.architecture
    own = find_architecture(entry.architecture)
    assert own is not None
    converted = own.key_map.convert(state)
    for name, tensor in model.state_dict().items():
        if name in converted:
            assert torch.equal(tensor, converted[name]), name
    assert len(set(converted) & set(model.state_dict())) > 20


def test_broken_safetensors_are_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "from", NAME, Family.FILL_MASK)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="not whole safetensors"):
        import_model(str(folder), NAME, tmp_path / "to")


def test_two_files_with_one_tensor_are_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "from", NAME, Family.FILL_MASK)
    (folder / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in names:
        save_file({"a": torch.zeros(1)}, folder / name)
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="another file has it too"):
        import_model(str(folder), NAME, tmp_path / "to")


def test_nothing_but_the_child_opens_a_pickle() -> None:
    banned = re.compile(r"\bpickle\b|torch\.load\b|\bcloudpickle\b|\bjoblib\b|\bdill\b|\bshelve\b")
    opening = []
    for room in ("pyfsb", "serving", "pipelines", "operators"):
        for path in sorted((ROOT / room).rglob("*.py")):
            code = re.sub(r'"""(?s:.*?)"""|#.*', "", path.read_text(encoding="utf-8"))
            if banned.search(code):
                opening.append(path.relative_to(ROOT).as_posix())
    assert opening == ["pyfsb/models/importing_child.py"]
