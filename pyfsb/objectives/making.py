# SPDX-License-Identifier: Apache-2.0
"""An objective by its section of the run spec.

Called by training through `pyfsb.objectives`; each objective says in its own module what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from pyfsb.config import ObjectiveName, ObjectiveSpec
from pyfsb.errors import ConfigError, UnknownNameError
from pyfsb.objectives.causal_lm import CausalLm
from pyfsb.objectives.denoising import Denoising, NoiseRates, PromptIds
from pyfsb.objectives.gap_sentences import GapSentences
from pyfsb.objectives.knowledge_masking import KnowledgeMasking
from pyfsb.objectives.ngram_mlm import NgramMlm
from pyfsb.objectives.prefix_lm import PrefixLm
from pyfsb.objectives.protocol import Objective
from pyfsb.objectives.sentence_order import SentenceOrder
from pyfsb.objectives.span_corruption import SpanCorruption
from pyfsb.objectives.special import SpecialIds
from pyfsb.objectives.text_infilling import TextInfilling
from pyfsb.objectives.token_mlm import TokenMlm
from pyfsb.objectives.whole_word import WholeWord

Encode: TypeAlias = Callable[[str], Sequence[int]]
"""Turns a text into token ids, without special tokens around it."""

_ROW_OBJECTIVES: Final = {
    ObjectiveName.SFT: "pyfsb.objectives.sft",
    ObjectiveName.REWRITING: "pyfsb.objectives.rewriting",
    ObjectiveName.MULTIPLE_CHOICE: "pyfsb.objectives.multiple_choice",
    ObjectiveName.EXTRACTION: "pyfsb.objectives.extraction_ubert and extraction_uniex",
    ObjectiveName.CONTRASTIVE: "pyfsb.objectives.contrastive",
    ObjectiveName.IMAGE_LABELS: "pyfsb.objectives.image_labels",
}
"""Objectives on labelled rows, which are no samples of shards, and where they are."""
_PLACE: Final = "{text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What objectives are made of."""

    spec: ObjectiveSpec
    special: SpecialIds
    decoder_start: int | None
    encode: Encode | None

    def need_start(self) -> int:
        """Return the decoder's start.

        Raises:
            ConfigError: The model has no decoder.
        """
        if self.decoder_start is None:
            raise ConfigError(
                f"objective.name = {self.spec.name}: the model has no decoder; expected an "
                "encoder-decoder such as BART, T5 or Pegasus, or another objective"
            )
        return self.decoder_start


def make_objective(
    spec: ObjectiveSpec,
    special: SpecialIds,
    *,
    decoder_start: int | None = None,
    encode: Encode | None = None,
) -> Objective:
    """Return the objective of a section whose name is resolved.

    Args:
        spec: Name and options.
        special: Of the vocabulary.
        decoder_start: What the model's decoder begins with; None: it has no decoder.
        encode: The tokenizer; denoising needs it for its prompt.

    Raises:
        ConfigError: An option is out of its range, the vocabulary lacks a special token, the model
            has no decoder, or the objective is one on labelled rows.
        UnknownNameError: There is no such objective.
    """
    if spec.name in _ROW_OBJECTIVES:
        raise ConfigError(
            f"objective.name = {spec.name.value} learns from labelled rows, not from a corpus: it "
            f"is made by {_ROW_OBJECTIVES[spec.name]}"
        )
    maker = _MAKERS.get(spec.name) if spec.name else None
    if maker is None:
        raise UnknownNameError("objective", str(spec.name), [name.value for name in _MAKERS])
    parts = _Parts(spec=spec, special=special, decoder_start=decoder_start, encode=encode)
    return maker(parts)


def _make_ngram_mlm(parts: _Parts) -> Objective:
    return NgramMlm(
        parts.special, mask_ratio=parts.spec.mask_ratio, max_words=parts.spec.max_ngram_words
    )


def _make_sentence_order(parts: _Parts) -> Objective:
    return SentenceOrder(
        parts.special,
        mask_ratio=parts.spec.mask_ratio,
        sentence_weight=parts.spec.sentence_order.sentence_weight,
    )


def _make_span_corruption(parts: _Parts) -> Objective:
    options = parts.spec.span_corruption
    return SpanCorruption(
        parts.special,
        decoder_start=parts.need_start(),
        noise_ratio=options.noise_ratio,
        mean_span_tokens=options.mean_span_tokens,
    )


def _make_text_infilling(parts: _Parts) -> Objective:
    options = parts.spec.text_infilling
    return TextInfilling(
        parts.special,
        decoder_start=parts.need_start(),
        mask_ratio=options.mask_ratio,
        spans=options.spans,
        mean_span_words=options.mean_span_words,
        shuffles_sentences=options.shuffles_sentences,
    )


def _make_gap_sentences(parts: _Parts) -> Objective:
    return GapSentences(
        parts.special,
        decoder_start=parts.need_start(),
        hidden_ratio=parts.spec.gap_sentences.hidden_ratio,
    )


def _make_denoising(parts: _Parts) -> Objective:
    options = parts.spec.denoising
    if parts.encode is None:
        raise ConfigError("objective.name = denoising needs the tokenizer for its prompt")
    before, between = (tuple(parts.encode(text)) for text in options.template.split(_PLACE))
    return Denoising(
        parts.special,
        prompt=PromptIds(before=before, between=between, after=tuple(parts.encode(options.end))),
        rates=NoiseRates(
            insert=options.insert_ratio,
            delete=options.delete_ratio,
            replace=options.replace_ratio,
            swap=options.swap_ratio,
            reorder=options.reorder_ratio,
        ),
    )


def _make_prefix_lm(parts: _Parts) -> Objective:
    options = parts.spec.prefix_lm
    return PrefixLm(
        parts.special,
        mask_ratio=parts.spec.mask_ratio,
        mlm_ratio=options.mlm_ratio,
        lm_ratio=options.lm_ratio,
    )


_MAKERS: Final[dict[ObjectiveName, Callable[[_Parts], Objective]]] = {
    ObjectiveName.TOKEN_MLM: lambda p: TokenMlm(p.special, mask_ratio=p.spec.mask_ratio),
    ObjectiveName.WHOLE_WORD: lambda p: WholeWord(p.special, mask_ratio=p.spec.mask_ratio),
    ObjectiveName.NGRAM_MLM: _make_ngram_mlm,
    ObjectiveName.KNOWLEDGE_MASKING: lambda p: KnowledgeMasking(
        p.special, mask_ratio=p.spec.mask_ratio
    ),
    ObjectiveName.SENTENCE_ORDER: _make_sentence_order,
    ObjectiveName.SPAN_CORRUPTION: _make_span_corruption,
    ObjectiveName.TEXT_INFILLING: _make_text_infilling,
    ObjectiveName.GAP_SENTENCES: _make_gap_sentences,
    ObjectiveName.DENOISING: _make_denoising,
    ObjectiveName.CAUSAL_LM: lambda p: CausalLm(p.special),
    ObjectiveName.PREFIX_LM: _make_prefix_lm,
}
"""How each objective on samples is made."""
