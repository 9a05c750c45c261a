# SPDX-License-Identifier: Apache-2.0
"""The section of a run spec on objectives: how inputs and targets are made from text.

Defaults of objectives live here and nowhere else. Never reads a file.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pyfsb.config.training_sections import PositiveFloat, Ratio
from pyfsb.schema import Schema

OpenRatio = Annotated[float, Field(gt=0.0, lt=1.0)]
NoiseRatio = Annotated[float, Field(ge=0.0, le=0.5)]


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
    REWRITING = "rewriting"
    MULTIPLE_CHOICE = "multiple_choice"
    EXTRACTION = "extraction"
    CONTRASTIVE = "contrastive"
    IMAGE_LABELS = "image_labels"


class SentenceOrderSpec(Schema):
    """Telling whether two parts of a text stand in their order, beside whole-word masking."""

    sentence_weight: Annotated[int, Field(ge=1)] = 77
    """Predicted tokens that the label of one text counts as. 77 is what is masked of 510 tokens:
    the label then weighs as much as all of them, as in a sum of two means (Lan et al. 2020)."""


class SpanCorruptionSpec(Schema):
    """T5: spans become sentinels, the decoder writes what was there."""

    noise_ratio: OpenRatio = 0.15
    """Share of tokens in spans (Raffel et al. 2020, table 6)."""
    mean_span_tokens: Annotated[float, Field(ge=1.0)] = 3.0
    """Mean tokens of a span (Raffel et al. 2020, table 7)."""


class TextInfillingSpec(Schema):
    """BART: sentences shuffled, spans behind one mask each, the decoder writes the text."""

    mask_ratio: OpenRatio = 0.3
    """Share of tokens chosen (Lewis et al. 2020, section 5.3); twice that of BERT."""
    spans: Literal["words", "poisson"] = "words"
    """words: whole words as in Erlangshen, of whose tokens 80 % are hidden, 10 % replaced and 10 %
    kept, neighbouring masks made one, as Randeng-BART was trained; about 24 % of the tokens are
    hidden then. poisson: spans of whole words, all hidden, with Poisson lengths, as BART was."""
    mean_span_words: PositiveFloat = 3.0
    """Mean words of a span of poisson (Lewis et al. 2020, section 2.2); ones of 0 words put in a
    mask."""
    shuffles_sentences: bool = True
    """Show the encoder the sentences in random order."""


class GapSentencesSpec(Schema):
    """Pegasus: sentences become masks, the decoder writes them; `data.columns` chose which."""

    hidden_ratio: Ratio = 0.9
    """Share of the gap sentences that become a mask; the others stay where they are and are
    written, too (the Randeng-Pegasus recipe)."""


class DenoisingSpec(Schema):
    """Randeng-Transformer: a spoiled text, a prompt, the text: a causal model writes the last.

    How much noise was used is not published: our choice.
    """

    template: str = "“{text}”改写后是“"
    """What the model reads, with {text} once; {text} is the spoiled text (the published prompt)."""
    end: str = "”"
    """What stands behind the text that is written."""
    insert_ratio: NoiseRatio = 0.05
    """Share of tokens behind which a random one is put."""
    delete_ratio: NoiseRatio = 0.05
    """Share of tokens left out."""
    replace_ratio: NoiseRatio = 0.05
    """Share of tokens that become a random one."""
    swap_ratio: NoiseRatio = 0.05
    """Share of tokens that change places with a neighbour."""
    reorder_ratio: Ratio = 0.3
    """Share of texts whose sentences are shuffled."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.template.count("{text}") != 1:
            raise ValueError(f"template = {self.template!r}: {{text}} must stand in it once")
        return self


class PrefixLmSpec(Schema):
    """Zhouwenwang: some texts masked, some written from their beginning, some from a prefix.

    Shares were never published: one third each is UniLM's (Dong et al. 2019), our choice.
    """

    mlm_ratio: Ratio = 1 / 3
    """Share of texts with masked whole words, read in both directions."""
    lm_ratio: Ratio = 1 / 3
    """Share of texts that are written from their first token. The rest is written from a prefix of
    random length, which is read in both directions."""

    @model_validator(mode="after")
    def _ratios_fit(self) -> Self:
        if self.mlm_ratio + self.lm_ratio > 1.0:
            raise ValueError(
                f"mlm_ratio {self.mlm_ratio} and lm_ratio {self.lm_ratio} are more than 1 together"
            )
        return self


class RewritingSpec(Schema):
    """Encoder-decoders: a text is read, another one is written."""

    max_target_tokens: Annotated[int, Field(ge=2)] | None = None
    """Tokens of what is written at most, its end included; longer ones are cut (published: 64 of
    LCSTS, 128 of CMRC). None takes data.max_tokens."""


class ObjectiveSpec(Schema):
    """How inputs and labels are made from text."""

    name: ObjectiveName | None = None
    """None takes the entry's own objective."""
    mask_ratio: Ratio = 0.15
    """Share of tokens hidden by masked language modelling (Devlin et al. 2019)."""
    max_ngram_words: Annotated[int, Field(ge=1, le=16)] = 3
    """Words that ngram_mlm hides together at most; n of them with a chance that falls as 1/n
    (3 in the published Erlangshen code)."""
    sentence_order: SentenceOrderSpec = SentenceOrderSpec()
    """Of sentence_order."""
    span_corruption: SpanCorruptionSpec = SpanCorruptionSpec()
    """Of span_corruption."""
    text_infilling: TextInfillingSpec = TextInfillingSpec()
    """Of text_infilling."""
    gap_sentences: GapSentencesSpec = GapSentencesSpec()
    """Of gap_sentences."""
    denoising: DenoisingSpec = DenoisingSpec()
    """Of denoising."""
    prefix_lm: PrefixLmSpec = PrefixLmSpec()
    """Of prefix_lm."""
    rewriting: RewritingSpec = RewritingSpec()
    """Of rewriting."""
    freezes_vision: bool = True
    """contrastive: keep the vision tower and its map into the space as they are, as Taiyi-CLIP was
    trained; every image is then computed once for the whole training. False trains both towers."""
    min_crop_ratio: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """contrastive: least share of an image that training sees of it, cut out at random in each pass
    and scaled up; validation and inference see all of it. 1 cuts nothing. Taiyi-CLIP was trained
    with 0.9; a frozen vision tower then has to compute every image in every step."""
