# SPDX-License-Identifier: Apache-2.0
"""What the registry knows of one model; an entry is the whole cost of adding one.

Entries are data: they never import torch or transformers, and every fact names its source.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import PositiveInt

from pyfsb.registry.taxonomy import Demand, Series, Task
from pyfsb.schema import Schema

ConfigValues: TypeAlias = dict[str, bool | int | float | str]


class Claim(Schema):
    """A published statement about a model, kept as it was made."""

    subject: str
    """What it is about, such as corpus or compute."""
    statement: str
    """The figure and its unit."""
    source: str
    """Who says so, and where."""


class ModelEntry(Schema):
    """One model of the family."""

    name: str
    """Series-Model-Parameters-Extra, as published."""
    series: Series
    """The series it belongs to."""
    demand: Demand
    """General or special."""
    task: Task
    """What it is for."""
    architecture: Literal["megatron-bert", "deberta-v2", "gpt2"]
    """Transformers' `model_type`."""
    config: ConfigValues
    """Architecture config of the published size; a spec may override single values."""
    num_parameters: PositiveInt
    """Parameters that the name states."""
    max_tokens: PositiveInt
    """Longest input in tokens."""
    objective: Literal["whole_word", "causal_lm"]
    """Pretraining objective."""
    tokenizer: Literal["wordpiece", "byte_bpe"]
    """Kind of the published tokenizer; a run from raw text trains WordPiece for all."""
    hub_id: str
    """Repository on the Hugging Face hub."""
    aliases: tuple[str, ...] = ()
    """Older and Chinese names."""
    licence: str = "Apache-2.0"
    """Licence of the published weights."""
    claims: tuple[Claim, ...] = ()
    """Published statements, contradicting ones side by side."""
    known_issues: tuple[str, ...] = ()
    """What users ran into."""
    source: str
    """Where the config comes from."""
