# SPDX-License-Identifier: Apache-2.0
"""What the registry knows of one model; an entry is the whole cost of adding one.

Entries are data: they never import torch or transformers, and every fact names its source.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import PositiveInt

from pyfsb.config import Family, ObjectiveName
from pyfsb.registry.taxonomy import Demand, Series, Task
from pyfsb.schema import Schema

ConfigValue: TypeAlias = bool | int | float | str
ConfigValues: TypeAlias = dict[str, ConfigValue | dict[str, ConfigValue]]
"""Fields of an architecture's config; one level of nesting for the two towers of CLIP."""

Architecture: TypeAlias = Literal[
    # Our own, in pyfsb/models/architectures.
    "megatron-t5", "rope-longformer", "taiyi-clip", "transfo-xl-denoise", "ubert", "uniex", "zen1",
    "zen2", "zhouwenwang",
    # Those of transformers that the family uses.
    "bart", "bert", "deberta-v2", "gpt2", "llama", "megatron-bert", "mt5", "pegasus", "roberta",
    "t5", "vit",
    # And those that only models of the catalogue use.
    "albert", "bloom", "chinese_clip", "electra", "ernie", "mobilebert", "openai-gpt", "roformer",
    "xlnet",
]  # fmt: skip
"""`model_type` of a config."""

TokenizerKind: TypeAlias = Literal[
    "wordpiece", "byte_bpe", "sentencepiece", "sentencepiece_bpe", "jieba_wordpiece",
    "jieba_sentencepiece", "ngram_wordpiece", "none",
]  # fmt: skip
"""wordpiece: BERT's. byte_bpe: GPT-2's. sentencepiece: unigram pieces (T5, DeBERTa-v2).
sentencepiece_bpe: BPE in SentencePiece's file (Randeng-BART, LLaMA). jieba_wordpiece: words of
jieba that the vocabulary has stay whole (Pegasus). jieba_sentencepiece: pieces of jieba's words
(Transformer-XL of CPM's kind). ngram_wordpiece: WordPiece with an n-gram lexicon beside (ZEN).
none: the model reads no text."""


class Claim(Schema):
    """A published statement about a model, kept as it was made."""

    subject: str
    """What it is about, such as corpus or compute."""
    statement: str
    """The figure and its unit."""
    source: str
    """Who says so, and where."""


class Score(Schema):
    """A published score; never one of our own measurements."""

    task: str
    """Task of the evaluation room where there is one, else the benchmark's own name."""
    metric: str
    """Name of the figure."""
    value: float
    """The figure, shares in [0, 1]."""
    split: str = "dev"
    """Rows that it was measured on, as the source says."""
    source: str
    """Who says so, and where."""


class ModelEntry(Schema):
    """One model of the family, or one of the catalogue in the same form."""

    name: str
    """Series-Model-Parameters-Extra, as published."""
    series: Series
    """The series it belongs to."""
    demand: Demand
    """General or special."""
    task: Task
    """What it is for."""
    family: Family
    """What the published model is asked for."""
    other_families: tuple[Family, ...] = ()
    """What else the published weights can be asked for, without fine-tuning."""
    architecture: Architecture
    """`model_type`: ours or transformers'."""
    config: ConfigValues
    """Architecture config of the published size; a spec may override single values."""
    num_parameters: PositiveInt
    """Parameters that the name states."""
    size_note: str = ""
    """Why a build of `config` has over 1 % more or fewer; empty where it has not."""
    built_parameters: PositiveInt | None = None
    """Parameters of a build of `config`, to 1 %; None: those of the name."""
    max_tokens: PositiveInt
    """Longest input in tokens."""
    objective: ObjectiveName
    """Pretraining objective; of a fine-tuned model what it learned last."""
    other_objectives: tuple[ObjectiveName, ...] = ()
    """Further ones that the publishers name."""
    tokenizer: TokenizerKind
    """Kind of the published tokenizer."""
    languages: tuple[str, ...] = ("zh",)
    """ISO 639-1 codes of what it reads or writes, the main one first."""
    labels: tuple[str, ...] = ()
    """Labels of a fine-tuned classifier, ids in order; empty where there are none."""
    hub_id: str
    """Repository on the Hugging Face hub; empty where a catalogue's row names none."""
    other_hub_ids: tuple[str, ...] = ()
    """Further repositories with the same weights."""
    aliases: tuple[str, ...] = ()
    """Other names in use, Chinese ones too."""
    legacy_names: tuple[str, ...] = ()
    """Names of earlier publications, misprints too."""
    parent: str = ""
    """The model that it was made from, by name; empty: from random weights, or unsaid."""
    licence: str = "Apache-2.0"
    """Licence of the published weights."""
    card: str = ""
    """Where what claims and scores call the model card can be read; empty: no card is known."""
    claims: tuple[Claim, ...] = ()
    """Published statements, contradicting ones side by side."""
    scores: tuple[Score, ...] = ()
    """Published scores."""
    known_issues: tuple[str, ...] = ()
    """What users ran into."""
    unknown: tuple[str, ...] = ()
    """What was never published."""
    our_choices: tuple[str, ...] = ()
    """What stands in `config` or elsewhere by our choice, and why."""
    source: str
    """Where the config comes from: published, derived from a count, or our choice."""
    paper_number: PositiveInt | None = None
    """Its number among the 49 models of the paper; None of later ones."""

    @property
    def real_parameters(self) -> int:
        """Parameters that a build has, whatever the name states."""
        return self.built_parameters or self.num_parameters

    @property
    def families(self) -> tuple[Family, ...]:
        """Everything that the published weights can be asked for."""
        return (self.family, *self.other_families)
