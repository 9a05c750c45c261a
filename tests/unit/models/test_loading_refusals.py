"""Folders whose files do not go together: each is refused with what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pyfsb.config import Family
from pyfsb.errors import CheckpointError
from pyfsb.models.loading import load_config, load_model, load_tokenizer
from tests.helpers.models import write_model

NAME = "Erlangshen-MegatronBert-1.3B"


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path, metadata={"format": "pt"})


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", NAME, Family.FILL_MASK)


def test_layers_that_the_config_does_not_count_are_listed(folder: Path) -> None:
    extra = {f"bert.encoder.layer.7.{n}.weight": torch.zeros(2) for n in "abcd"}
    change_weights(folder, lambda state: state.update(extra))
    with pytest.raises(
        CheckpointError, match=r"4 weights .* no place for, such as bert.encoder.layer.7.a"
    ):
        load_model(folder, Family.FILL_MASK)


def test_a_pooler_and_other_heads_may_be_there(folder: Path) -> None:
    change_weights(
        folder,
        lambda state: state.update(
            {"bert.pooler.dense.weight": torch.zeros(2, 2), "other.weight": torch.zeros(2)}
        ),
    )
    assert load_model(folder, Family.FILL_MASK, is_whole=True)


def test_other_shapes_are_named_with_both(folder: Path) -> None:
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    change_weights(folder, lambda state: state.update({name: torch.zeros(3, 3)}))
    with pytest.raises(CheckpointError, match=rf"{name} is \(3, 3\), expected \(\d+, \d+\)"):
        load_model(folder, Family.FILL_MASK)


def test_a_head_of_other_labels_starts_anew(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", NAME, Family.CLASSIFY, labels=("a", "b"))
    model = load_model(folder, Family.CLASSIFY, labels=("x", "y", "z"))
    assert model.config.num_labels == 3
    assert model.classifier.weight.shape[0] == 3
    assert model.classifier.weight.abs().sum() > 0
    change_config(folder, id2label={"0": "a", "1": "b", "2": "c"})
    with pytest.raises(CheckpointError, match="classifier.bias is"):
        load_model(folder, Family.CLASSIFY, is_whole=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", "expected a mapping, got list"),
        ("{", "is not JSON"),
        ('{"model_type": "megatron_bert"}', "did you mean 'megatron-bert'"),
        ('{"model_type": 5}', "model_type = 5 is no architecture"),
        ('{"model_type": "bert", "hidden_size": "32"}', "hidden_size = '32': expected int"),
    ],
)
def test_a_config_that_cannot_be_used(folder: Path, text: str, expected: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=expected):
        load_config(folder)


def test_a_vocabulary_without_the_unknown_piece(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("")
    with pytest.raises(CheckpointError, match=r"the tokenizer's 0 pieces lack \[UNK\]"):
        load_tokenizer(folder)
