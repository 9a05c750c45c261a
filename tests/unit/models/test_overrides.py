"""Overrides of a config that no model could have are refused with a text, for every architecture."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoConfig

from pyfsb.errors import ConfigError
from pyfsb.models.building import build_config, build_model
from pyfsb.registry import ModelEntry, all_entries
from pyfsb.registry.sizes import tiny_config
from tests.helpers.models import PIECES

ENTRIES: dict[str, ModelEntry] = {entry.architecture: entry for entry in all_entries()}
WRONG: dict[str, tuple[Any, ...]] = {
    "num_attention_heads": (7, 0, -2, "x", 2.5),
    "n_head": (7, 0, -2, "x"),
    "encoder_attention_heads": (7, 0, -2, "x"),
    "num_heads": (0, -1, True),
    "hidden_size": (0, -32, 33, "a", None),
    "d_model": (0, -32, "a", None),
    "n_embd": (0, 33, "a"),
    "num_hidden_layers": (-1, 0, "2"),
    "num_hidden_word_layers": (-1, "2"),
    "vocab_size": (3, -1, 0, "x"),
    "word_size": (-1, "x"),
    "attention_window": (3, 0, -4, "x", [4, 5]),
    "max_position_embeddings": (0, -1, "x"),
    "n_positions": (0, -1, "x"),
    "hidden_act": ("nonsense", -1),
    "activation_function": ("nonsense", -1),
    "hidden_dropout_prob": ("nonsense", -1, 1.5, float("nan")),
    "layer_norm_eps": ("nonsense", -1, 0.0),
    "type_vocab_size": (-1, "nonsense"),
    "pad_token_id": (-1, "nonsense"),
    "biaffine_size": (-1, "nonsense"),
    "projection_dim": (-1, "nonsense"),
    "num_key_value_heads": (0, 7, "x"),
    "n_inner": (0, -1, "x"),
    "conv_act": ("nonsense", -1),
    "relative_attention_num_buckets": (0, -1, "x"),
    "relative_attention_max_distance": (0, -1),
    "is_encoder_decoder": (True, False),
    "is_decoder": (True,),
    "chunk_size_feed_forward": (7,),
    "return_dict": (False,),
    "id2label": (5, {0: "a"}),
    "model_type": ("gpt2",),
    "hiden_size": (64,),
    "text_config.num_attention_heads": (7, 0, "x"),
    "vision_config.hidden_size": (0, 33, None),
    "text_config.foo": (1,),
}


def fields_of(entry: ModelEntry) -> set[str]:
    values = AutoConfig.for_model(entry.architecture).to_dict()
    parts = {
        f"{part}.{name}" for part, inner in values.items() if isinstance(inner, dict)
        for name in inner
    }  # fmt: skip
    return {*values, *entry.config, *parts, "hiden_size", "text_config.foo"}


@pytest.mark.parametrize("architecture", ENTRIES)
def test_values_that_break_an_architecture_are_config_errors(architecture: str) -> None:
    entry = ENTRIES[architecture]
    known = fields_of(entry)
    asked = [(key, value) for key in WRONG if key in known for value in WRONG[key]]
    assert len(asked) > 10
    for key, value in asked:
        with pytest.raises(ConfigError):
            config = build_config(entry, {**tiny_config(entry), key: value}, vocabulary=PIECES)
            build_model(config, entry.family, seed=0)
            pytest.fail(f"{key} = {value!r} was built")


def test_an_error_says_what_would_be_right() -> None:
    entry = ENTRIES["vit"]
    for key, value, text in (
        ("num_attention_heads", 7, "7 attention heads do not divide the width"),
        ("hidden_act", "gelo", "did you mean 'gelu'"),
        ("hiden_size", 64, "did you mean 'hidden_size'"),
        ("hidden_dropout_prob", 3, "from 0 to below 1"),
    ):
        with pytest.raises(ConfigError, match=text):
            build_config(entry, {**tiny_config(entry), key: value}, vocabulary=())


def test_special_ids_are_the_vocabulary_s() -> None:
    entry = ENTRIES["bert"]
    with pytest.raises(ConfigError, match="pad_token_id = 3: the vocabulary has it at 0"):
        build_config(entry, {**tiny_config(entry), "pad_token_id": 3}, vocabulary=PIECES)
    config = build_config(entry, {**tiny_config(entry), "pad_token_id": 0}, vocabulary=PIECES)
    assert config.pad_token_id == 0


def test_no_limit_and_no_token_types_stay_possible() -> None:
    entry = ENTRIES["deberta-v2"]
    overrides = {**tiny_config(entry), "type_vocab_size": 0, "max_relative_positions": -1}
    assert build_config(entry, overrides, vocabulary=PIECES).type_vocab_size == 0


@pytest.mark.parametrize(
    ("architecture", "key", "value", "text"),
    [
        ("gpt2", "summary_activation", 7, "summary_activation = 7: expected str or null"),
        ("bert", "classifier_dropout", True, "classifier_dropout = True: expected float or int"),
        ("llama", "num_key_value_heads", 3, "num_key_value_heads 3 do not divide 4 attention"),
    ],
)
def test_a_value_of_another_kind_is_told_in_a_few_words(
    architecture: str, key: str, value: object, text: str
) -> None:
    entry = ENTRIES[architecture]
    with pytest.raises(ConfigError, match=text) as caught:
        build_config(entry, {**tiny_config(entry), key: value}, vocabulary=PIECES)
    assert len(str(caught.value)) < 200


def test_whole_numbers_stand_for_rates() -> None:
    entry = ENTRIES["bart"]
    config = build_config(entry, {**tiny_config(entry), "decoder_layerdrop": 0}, vocabulary=PIECES)
    assert config.decoder_layerdrop == 0.0
