"""Cut or extended, a model says of the old pieces what it said before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from pyfsb.config import Family
from pyfsb.data.vocabulary import write_tokenizer
from pyfsb.errors import CheckpointError, ConfigError
from pyfsb.models.loading import load_model
from pyfsb.models.vocabulary_surgery import (
    cut_folder,
    cut_model,
    extend_folder,
    extend_model,
    extend_rows,
    find_sources,
    vocabulary_size,
    vocabulary_tensors,
)
from pyfsb.tokenizers.choosing import load_tokenizer
from pyfsb.tokenizers.vocabulary_cut import VocabularyCut
from tests.helpers.models import PIECES, write_model
from tests.helpers.tokenizers import TEXTS
from tests.unit.tokenizers.test_choosing import write_t5
from tests.unit.tokenizers.test_vocabulary_cut import open_t5

ENCODER = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 24,
}
T5 = {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 20,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
SEQ2SEQ = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 20, "decoder_ffn_dim": 20, "max_position_embeddings": 24, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 2, "forced_eos_token_id": 2,
}  # fmt: skip
V = 40
CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "BertForMaskedLM": ("BertConfig", ENCODER),
    "MegatronBertForMaskedLM": ("MegatronBertConfig", ENCODER),
    "DebertaV2ForMaskedLM": ("DebertaV2Config", ENCODER | {"type_vocab_size": 0}),
    "GPT2LMHeadModel": ("GPT2Config", {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 24, "bos_token_id": 1, "eos_token_id": 1}),
    "T5ForConditionalGeneration": ("T5Config", T5),
    "MT5ForConditionalGeneration": ("MT5Config", T5 | {"tie_word_embeddings": False}),
    "BartForConditionalGeneration": ("BartConfig", SEQ2SEQ),
    "PegasusForConditionalGeneration": ("PegasusConfig", SEQ2SEQ),
    "BertForSequenceClassification": ("BertConfig", ENCODER),
}  # fmt: skip


def make(name: str) -> Any:
    config, values = CLASSES[name]
    torch.manual_seed(3)
    model = getattr(transformers, name)(
        getattr(transformers, config)(vocab_size=V, **values)
    ).eval()
    with torch.no_grad():
        for tensor_name, tensor in model.state_dict().items():
            if tensor_name.endswith("bias"):
                tensor.normal_()  # biases of a fresh model are 0 and would hide mistakes
    return model


def logits_of(model: Any, ids: list[int]) -> Tensor:
    rows = torch.tensor([ids])
    extra = {"decoder_input_ids": rows} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=rows, **extra).logits


@pytest.mark.parametrize("name", CLASSES)
def test_kept_ids_keep_their_logits(name: str) -> None:
    model = make(name)
    kept = (0, 1, 2, 5, 9, 17, 30, 39)
    smaller = cut_model(model, VocabularyCut(tokenizer=None, kept_ids=kept))
    ids = [5, 9, 30, 39, 17, 2]
    before = logits_of(model, ids)
    after = logits_of(smaller, [kept.index(number) for number in ids])
    if before.shape[-1] == V:
        before = before[..., list(kept)]
    assert torch.allclose(before, after, atol=1e-6)
    assert vocabulary_size(smaller.config) == len(kept)
    assert vocabulary_size(model.config) == V


@pytest.mark.parametrize("name", CLASSES)
def test_new_pieces_leave_the_logits_of_old_ones(name: str, tmp_path: Path) -> None:
    model = make(name)
    sources = {V - 1: [4], V: [5, 6, 7], V + 1: []}
    larger = extend_model(model, sources, num_old=V - 1)
    ids = [5, 9, 30, 17, 2]
    before, after = logits_of(model, ids), logits_of(larger, ids)
    if before.shape[-1] == V:
        assert after.shape[-1] == V + 2
        # The head of a new piece is the mean of its parts' heads, so are its logits.
        assert torch.allclose(after[..., V], before[..., [5, 6, 7]].mean(-1), atol=1e-5)
        assert torch.allclose(after[..., V - 1], before[..., 4], atol=1e-6)
        assert torch.allclose(after[..., V + 1], before[..., : V - 1].mean(-1), atol=1e-5)
    else:
        assert torch.allclose(before, after, atol=1e-6)
    assert torch.allclose(before[..., : V - 1], after[..., : V - 1], atol=1e-6)
    larger.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert torch.equal(logits_of(again, [V, 5]), logits_of(larger, [V, 5]))


def test_ids_that_the_config_names_are_renumbered() -> None:
    kept = (0, 2, 7, 9)
    smaller = cut_model(
        make("BartForConditionalGeneration"), VocabularyCut(tokenizer=None, kept_ids=kept)
    )
    assert smaller.config.pad_token_id == 0
    assert smaller.config.eos_token_id == smaller.config.decoder_start_token_id == 1
    assert smaller.generation_config.forced_eos_token_id == 1
    assert smaller.config.bos_token_id is None


def test_layers_as_wide_as_the_vocabulary_are_left_alone() -> None:
    config = transformers.BertConfig(vocab_size=20, **ENCODER)  # as intermediate_size
    model = transformers.BertForMaskedLM(config)
    names = vocabulary_tensors(model)
    assert "bert.encoder.layer.0.intermediate.dense.weight" not in names
    assert "bert.encoder.layer.0.intermediate.dense.bias" not in names
    assert cut_model(model, VocabularyCut(tokenizer=None, kept_ids=(0, 3))).config.vocab_size == 2


def test_rows_of_padding_are_used_first() -> None:
    table = torch.arange(12.0).reshape(6, 2)
    grown = extend_rows(table, 0, {4: [0, 1], 5: []}, size=6, num_old=4)
    assert grown[4].tolist() == [1.0, 2.0]
    assert grown[5].tolist() == [3.0, 4.0]
    assert torch.equal(grown[:4], table[:4])


def test_new_pieces_are_cut_by_the_old_tokenizer(tmp_path: Path) -> None:
    write_tokenizer(PIECES, tmp_path, lowercase=True)
    old = load_tokenizer(tmp_path)
    pieces = [*PIECES, "中国人", "##worlds", "新"]
    sources = find_sources(old, pieces, num_old=len(PIECES))
    ids = old.get_vocab()
    assert sources[len(PIECES)] == [ids["中"], ids["国"], ids["人"]]
    assert sources[len(PIECES) + 2] == []  # unknown so far: the mean of all
    with pytest.raises(ConfigError, match="begins with the old one"):
        find_sources(old, [*reversed(PIECES), "新"], num_old=len(PIECES))


def test_a_t5_folder_is_cut(tmp_path: Path) -> None:
    write_t5(tmp_path / "old")
    size = open_t5(tmp_path / "tokenizer").get_vocab_size()
    config = transformers.MT5Config(vocab_size=size + 5, tie_word_embeddings=False, **T5)
    model = transformers.MT5ForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path / "old")
    old = load_tokenizer(tmp_path / "old")
    keep = sorted({number for text in TEXTS[:2] for number in old(text)["input_ids"]})
    cut = cut_folder(tmp_path / "old", tmp_path / "new", keep, Family.REWRITE)
    new = load_tokenizer(tmp_path / "new")
    smaller = load_model(tmp_path / "new", Family.REWRITE).eval()
    assert len(new) == smaller.config.vocab_size == len(cut.kept_ids) < size
    assert json.loads((tmp_path / "new" / "kept_ids.json").read_text()) == list(cut.kept_ids)
    for text in TEXTS[:2]:
        before = logits_of(model, old(text)["input_ids"])[..., list(cut.kept_ids)]
        assert torch.allclose(logits_of(smaller, new(text)["input_ids"]), before, atol=1e-5)
    with pytest.raises(ConfigError, match="is not empty"):
        cut_folder(tmp_path / "old", tmp_path / "new", keep, Family.REWRITE)


def test_a_folder_gets_new_pieces(tmp_path: Path) -> None:
    name = "Erlangshen-MegatronBert-1.3B"
    write_model(tmp_path / "old", name, Family.FILL_MASK)
    write_tokenizer([*PIECES, "新", "##ss"], tmp_path / "words", lowercase=True)
    count = extend_folder(tmp_path / "old", tmp_path / "words", tmp_path / "new", Family.FILL_MASK)
    assert count == 2
    model = load_model(tmp_path / "new", Family.FILL_MASK).eval()
    assert vocabulary_size(model.config) == len(PIECES) + 2
    ids = load_tokenizer(tmp_path / "new")("中国新")["input_ids"]
    assert len(PIECES) in ids
    old = load_model(tmp_path / "old", Family.FILL_MASK).eval()
    assert torch.allclose(
        logits_of(model, [5, 6, 7])[..., : len(PIECES)], logits_of(old, [5, 6, 7]), atol=1e-6
    )


def test_what_cannot_be_cut(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the model has 40 rows"):
        cut_model(make("BertForMaskedLM"), VocabularyCut(tokenizer=None, kept_ids=(0, 40)))
    from tests.helpers.tokenizers import write_pegasus

    with pytest.raises(CheckpointError, match=r"no tokenizer\.json to cut"):
        cut_folder(write_pegasus(tmp_path / "p"), tmp_path / "new", [1], Family.REWRITE)
