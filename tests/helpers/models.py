"""Tiny models with their tokenizers, in memory and as folders."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel

from pyfsb.config import Family
from pyfsb.data.vocabulary import SPECIAL_TOKENS, write_tokenizer
from pyfsb.models.building import build_config, build_model
from pyfsb.registry import find_entry
from tests.helpers.specs import TINY_CONFIGS

PIECES = [
    *SPECIAL_TOKENS,
    *"中国人民大学北京的首都好坏很不是我们在，。！？",
    "hello",
    "##s",
    "w",
    "##orld",
]
MODELS = tuple(TINY_CONFIGS)
ENCODERS = MODELS[:2]


def make_model(name: str, family: Family, *, labels: tuple[str, ...] = ()) -> PreTrainedModel:
    """Return a tiny model of an entry with random weights, in evaluation mode."""
    config = build_config(find_entry(name), TINY_CONFIGS[name], vocabulary=PIECES)
    return build_model(config, family, seed=1, labels=labels).eval()


def write_model(folder: Path, name: str, family: Family, *, labels: tuple[str, ...] = ()) -> Path:
    """Write a tiny model and its tokenizer as a Hugging Face folder."""
    make_model(name, family, labels=labels).save_pretrained(folder)
    write_tokenizer(PIECES, folder, lowercase=True)
    return folder
