"""What an import refuses and what it says: old pickles, lexicons, targets, classes of theirs."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from pyfsb.errors import CheckpointError
from pyfsb.models.import_sources import build_config as build_import_config
from pyfsb.models.importing import RECORD_NAME, import_model
from pyfsb.models.loading import imported_name
from pyfsb.registry import find_entry
from tests.helpers.models import PIECES
from tests.helpers.reference import GOLDEN, ReferenceCase
from tests.unit.models.test_importing import (
    NAME,
    ORIGINALS,
    Malicious,
    make_state,
    publish,
    publish_plain,
)


def test_old_and_plain_pickles_are_refused_without_a_hint_to_trust_them(tmp_path: Path) -> None:
    folder = publish(tmp_path / "from")
    trace, path = tmp_path / "trace", folder / "pytorch_model.bin"
    content = {"a": Malicious(trace), "b": torch.zeros(2)}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"refused.*asks for (posix|os)\.system"):
        import_model(str(folder), NAME, tmp_path / "to")
    path.write_bytes(pickle.dumps(Malicious(trace)))
    with pytest.raises(CheckpointError, match="cannot be read as weights") as caught:
        import_model(str(folder), NAME, tmp_path / "to")
    assert "weights_only" not in str(caught.value)
    assert not trace.exists()


def test_a_folder_one_is_in_is_no_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="name a folder to make"):
        import_model("from", NAME, Path("."))


def test_differences_of_a_part_are_named_field_by_field(tmp_path: Path) -> None:
    entry = find_entry("Taiyi-CLIP-Roberta-102M-Chinese")
    theirs = {"text_config": {"hidden_size": 32}, "vision_config": {"image_size": 12}}
    (tmp_path / "config.json").write_text(json.dumps(theirs))
    _, differences = build_import_config(tmp_path, entry)
    assert differences["text_config.hidden_size"] == "32, entry: 768"
    assert all(len(text) < 80 for text in differences.values())


def test_the_config_names_the_class_that_loads_it_whatever_was_published(tmp_path: Path) -> None:
    folder = publish(tmp_path / "from")
    path = folder / "config.json"
    published = json.loads(path.read_text())
    for number, theirs in enumerate((["TheirModel"], None)):
        path.write_text(json.dumps({**published, "architectures": theirs}))
        import_model(str(folder), NAME, tmp_path / str(number))
        config = json.loads((tmp_path / str(number) / "config.json").read_text())
        assert config["architectures"] == ["MegatronBertForMaskedLM"]
        assert imported_name(tmp_path / str(number)) == NAME
    (tmp_path / "0" / RECORD_NAME).write_text("[]")
    with pytest.raises(CheckpointError, match="not the record of an import"):
        imported_name(tmp_path / "0")


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    state = make_state()
    state["bert.encoder.layer.0.output.dense.bias"][1] = torch.nan
    state["bert.encoder.layer.0.output.dense.bias"][2] = torch.inf
    folder = publish_plain(tmp_path / "from", state)
    with pytest.raises(CheckpointError, match=r"2 of the \d+ numbers of bert\.encoder\.layer\.0"):
        import_model(str(folder), NAME, tmp_path / "to")
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("lexicon", "text"),
    [(None, "n-gram lexicon"), ("\n".join(f"中{n},1" for n in range(99)), "needs word_size = 100")],
)
def test_a_lexicon_that_is_missing_or_does_not_fit(
    lexicon: str | None, text: str, tmp_path: Path
) -> None:
    case = ReferenceCase(GOLDEN / "reference_models" / "zen1" / "a")
    source = publish_plain(tmp_path / "from", case.weights())
    (source / "config.json").write_text(json.dumps(case.config["model"]))
    (source / "vocab.txt").write_text("\n".join(PIECES), encoding="utf-8")
    if lexicon is not None:
        (source / "ngram.txt").write_text(lexicon, encoding="utf-8")
    with pytest.raises(CheckpointError, match=text):
        import_model(str(source), ORIGINALS["zen1"], tmp_path / "to", allow_extra=("*",))
    assert not (tmp_path / "to").exists()
