# SPDX-License-Identifier: Apache-2.0
"""The section of a run spec on objectives: how inputs and targets are made from text.

Defaults of objectives live here and nowhere else. Never reads a file.
"""

from __future__ import annotations

from enum import StrEnum

from pyfsb.config.training_sections import Ratio
from pyfsb.schema import Schema


class ObjectiveName(StrEnum):
    """Every objective by its name."""

    TOKEN_MLM = "token_mlm"  # noqa: S105
    WHOLE_WORD = "whole_word"
    NGRAM_MLM = "ngram_mlm"
    KNOWLEDGE_MASKING = "knowledge_masking"
    SENTENCE_ORDER = "sentence_order"
    SPAN_CORRUPTION = "span_corruption"
    TEXT_INFILLING = "text_infilling"
    GAP_SENTENCES = "gap_sentences"
    DENOISING = "denoising"
    CAUSAL_LM = "causal_lm"
    PREFIX_LM = "prefix_lm"
    SFT = "sft"
    MULTIPLE_CHOICE = "multiple_choice"
    EXTRACTION = "extraction"
    CONTRASTIVE = "contrastive"


class ObjectiveSpec(Schema):
    """How inputs and labels are made from text."""

    name: ObjectiveName | None = None
    """None takes the entry's own objective."""
    mask_ratio: Ratio = 0.15
    """Share of tokens hidden by masked language modelling (Devlin et al. 2019)."""
