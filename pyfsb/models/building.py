# SPDX-License-Identifier: Apache-2.0
"""Build the config and the random model of a registry entry, with the head of a task family.

Called by loading, training and the model check. Never reads a file.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from pyfsb.config import Family
from pyfsb.errors import ConfigError, did_you_mean, nearest_names
from pyfsb.models.architectures import find_architecture
from pyfsb.models.overrides import BROKEN, check_heads, check_override, explain
from pyfsb.objectives import SpecialIds
from pyfsb.registry import ModelEntry

AUTO_CLASSES: Final[dict[Family, Any]] = {
    Family.FILL_MASK: AutoModelForMaskedLM,
    Family.GENERATE: AutoModelForCausalLM,
    Family.REWRITE: AutoModelForSeq2SeqLM,
    Family.CLASSIFY: AutoModelForSequenceClassification,
    Family.PAIR: AutoModelForSequenceClassification,
    Family.TAG: AutoModelForTokenClassification,
    Family.CHOOSE: AutoModelForMaskedLM,
    Family.ANSWER: AutoModelForQuestionAnswering,
    Family.EMBED: AutoModel,
    Family.IMAGE_TEXT: AutoModel,
    Family.CLASSIFY_IMAGE: AutoModelForImageClassification,
}
"""The class with a family's head, of architectures that `transformers` has."""
LABELLED: Final = (Family.CLASSIFY, Family.PAIR, Family.TAG, Family.CLASSIFY_IMAGE)
"""Families whose head has one output a label."""
_ORDER_HEADS: Final = (
    "albert", "bert", "ernie", "megatron-bert", "mobilebert", "zen1", "zen2",
)  # fmt: skip
"""Architectures with a head for two sentences beside that of the vocabulary."""
_POSITIONS: Final = ("max_position_embeddings", "n_positions")
_UNBOUNDED: Final = 1 << 20
"""Positions of models whose only positions are relative, such as T5."""

Overrides = Mapping[str, Any]


def find_class(model_type: str, family: Family, *, has_order_head: bool = False) -> Any:
    """Return the model class of an architecture for a family.

    Args:
        model_type: Of the config.
        family: What it is for.
        has_order_head: A masked language model that also judges the order of sentences.

    Raises:
        ConfigError: The architecture has no head for this family; names those that it has.
    """
    if has_order_head:
        if model_type not in _ORDER_HEADS:
            raise ConfigError(
                f"{model_type} has no head for the order of sentences; objective sentence_order "
                f"trains {', '.join(_ORDER_HEADS)}"
            )
        return AutoModelForPreTraining
    own = find_architecture(model_type)
    if own is None:
        auto = AUTO_CLASSES.get(family)
        if auto is None or CONFIG_MAPPING[model_type] not in auto._model_mapping:
            raise ConfigError(f"{model_type} has no head for family {family.value}")
        return auto
    same_head = {Family.PAIR: Family.CLASSIFY, Family.CHOOSE: Family.FILL_MASK}
    for wanted in (family, same_head.get(family, family)):
        if wanted in own.classes:
            return own.classes[wanted]
    if family is Family.EMBED:
        return own.base
    known = ", ".join(sorted(known.value for known in own.classes))
    raise ConfigError(f"{model_type} has no head for family {family.value}; it has {known}")


def class_names(config: PreTrainedConfig, family: Family) -> list[str]:
    """Return the names of the classes that hold an architecture's head for a family.

    Raises:
        ConfigError: The architecture has no head for this family.
    """
    classes = [find_class(config.model_type, family)]
    if family in (Family.FILL_MASK, Family.CHOOSE) and config.model_type in _ORDER_HEADS:
        classes.append(find_class(config.model_type, family, has_order_head=True))
    names: list[str] = []
    for known in classes:
        mapping = getattr(known, "_model_mapping", None)
        found = known if mapping is None else mapping[type(config)]
        names += [one.__name__ for one in (found if isinstance(found, tuple) else (found,))]
    return names


def build_config(
    entry: ModelEntry, overrides: Overrides, *, vocabulary: Sequence[str]
) -> PreTrainedConfig:
    """Return the config of an entry with a spec's overrides and a vocabulary's ids.

    Args:
        entry: The model.
        overrides: Values in place of the entry's; those of a part as `text_config.hidden_size`.
        vocabulary: Pieces, ids in order. Empty keeps the entry's size and ids.

    Raises:
        ConfigError: An override names no field of this architecture, breaks it, or gives fewer
            embeddings than the vocabulary has pieces.
    """
    values = copy.deepcopy(dict(entry.config))
    for key, value in overrides.items():
        _override(entry, values, key, value)
    if vocabulary:
        _fit_vocabulary(entry, values, overrides, vocabulary)
    try:
        config: PreTrainedConfig = AutoConfig.for_model(entry.architecture, **values)
    except BROKEN as exc:
        raise ConfigError(
            f"model.config does not fit {entry.architecture}: {explain(exc)}"
        ) from exc
    check_heads(config, entry.architecture)
    return config


def build_model(
    config: PreTrainedConfig,
    family: Family,
    *,
    seed: int,
    labels: Sequence[str] = (),
    has_order_head: bool = False,
) -> PreTrainedModel:
    """Return a model with random weights that depend on the seed only.

    Raises:
        ConfigError: The config breaks the architecture, such as heads that do not divide the width,
            or the architecture has no head for the family.
    """
    if labels:
        set_labels(config, labels)
    own_or_auto = find_class(config.model_type, family, has_order_head=has_order_head)
    build = getattr(own_or_auto, "from_config", None) or own_or_auto._from_config
    torch.manual_seed(seed)
    try:
        model: PreTrainedModel = build(config)
    except BROKEN as exc:
        raise ConfigError(f"model.config does not fit {config.model_type}: {explain(exc)}") from exc
    if config.model_type == "mt5":
        untie_head(model)
    return model


def untie_head(model: PreTrainedModel) -> None:
    """Give a model a vocabulary head of its own, where `transformers` shares the embedding's.

    Source: mT5 has two matrices (Xue et al. 2021; the published weights); transformers 5 shares
    them whatever the config says, and keeps two only where it loads two. First values with which
    logits begin near variance 1 are our choice.
    """
    head: Any = model.get_output_embeddings()
    weight = torch.empty_like(head.weight)
    nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
    head.weight = nn.Parameter(weight)


def shares_head(model: PreTrainedModel) -> bool:
    """Say whether the vocabulary head is the embedding, or there is none."""
    head: Any = model.get_output_embeddings()
    embedding: Any = model.get_input_embeddings()
    return head is None or getattr(head, "weight", None) is embedding.weight


def set_labels(config: Any, labels: Sequence[str]) -> None:
    """Give a config the labels of a head."""
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}


def max_positions(config: PreTrainedConfig) -> int:
    """Return the longest input in tokens that a config allows."""
    inner: Any = getattr(config, "text_config", config)
    found = next((getattr(inner, name) for name in _POSITIONS if hasattr(inner, name)), None)
    if not found:
        return _UNBOUNDED
    # RoBERTa's first positions are the padding's.
    offset = int(inner.pad_token_id) + 1 if inner.model_type == "roberta" else 0
    return int(found) - offset


def _override(entry: ModelEntry, values: dict[str, Any], key: str, value: Any) -> None:
    """Enter one override; `part.field` reaches into a part's own config."""
    part, dot, field = key.partition(".")
    target = values.setdefault(part, {}) if dot else values
    # Some architectures read fields that their config class does not declare.
    known = {**AutoConfig.for_model(entry.architecture).to_dict(), **entry.config}
    if dot:
        inner = known.get(part)
        stated = entry.config.get(part)
        fields = inner if isinstance(inner, dict) else {}
        fields = {**fields, **stated} if isinstance(stated, dict) else fields
        known = {f"{part}.{name}": default for name, default in fields.items()} or known
    if key not in known:
        near = did_you_mean(nearest_names(key, known))
        raise ConfigError(f"model.config.{key}: {entry.architecture} has no such field{near}")
    check_override(key, value, known[key])
    if isinstance(known[key], float) and isinstance(value, int):
        value = float(value)  # YAML's 0 for 0.0, which some config classes refuse
    target[field if dot else key] = value


def _fit_vocabulary(
    entry: ModelEntry, values: dict[str, Any], overrides: Overrides, vocabulary: Sequence[str]
) -> None:
    """Enter the size and the special ids of a vocabulary, where the architecture keeps them."""
    target = values.setdefault("text_config", {}) if "text_config" in entry.config else values
    prefix = "text_config." if target is not values else ""
    num_pieces = len(vocabulary)
    asked = overrides.get(f"{prefix}vocab_size")
    if isinstance(asked, int) and asked < num_pieces:
        raise ConfigError(
            f"model.config.{prefix}vocab_size = {asked}: the vocabulary has {num_pieces} pieces; "
            "leave the override out, or use a vocabulary that fits"
        )
    special = SpecialIds.of(vocabulary)
    ids = {
        "pad_token_id": special.pad,
        "bos_token_id": special.bos,
        "eos_token_id": special.eos,
    }
    if AutoConfig.for_model(entry.architecture).is_encoder_decoder:
        start = decoder_start(entry.architecture, special)
        ids["decoder_start_token_id"] = start
        if entry.architecture in ("bart", "pegasus"):
            ids["forced_eos_token_id"] = special.eos
    for key, value in ids.items():
        other = overrides.get(f"{prefix}{key}", value)
        if value is not None and other != value:
            raise ConfigError(
                f"model.config.{prefix}{key} = {other!r}: the vocabulary has it at {value}; leave "
                "the override out"
            )
    target.update({key: value for key, value in ids.items() if value is not None})
    target["vocab_size"] = asked if isinstance(asked, int) else num_pieces


def decoder_start(architecture: str, special: SpecialIds) -> int:
    """Return the token that a decoder begins with.

    Source: T5 and Pegasus begin with padding, BART with the end token (Lewis et al. 2019),
    MegatronT5 with its begin token.

    Raises:
        ConfigError: The vocabulary has no such token.
    """
    name = {"bart": "eos", "megatron-t5": "bos"}.get(architecture, "pad")
    begin: int | None = getattr(special, name)
    if begin is None:
        raise ConfigError(f"{architecture} begins with a token that the vocabulary lacks: {name}")
    return begin
