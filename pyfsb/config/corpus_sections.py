# SPDX-License-Identifier: Apache-2.0
"""What the data stage makes of a corpus beside its tokens: vocabulary, columns, n-grams.

Parts of `DataSpec`; defaults live here and nowhere else. Never reads a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field

from pyfsb.config.objective_section import ObjectiveName
from pyfsb.config.training_sections import PositiveInt
from pyfsb.schema import Schema

NonNegativeFloat = Annotated[float, Field(ge=0.0)]
Column: TypeAlias = Literal["gaps", "knowledge"]

COLUMNS_OF: Final[dict[ObjectiveName, tuple[Column, ...]]] = {
    ObjectiveName.GAP_SENTENCES: ("gaps",),
    ObjectiveName.KNOWLEDGE_MASKING: ("knowledge",),
}
"""What `data.columns` must hold for an objective; the others need nothing."""


class TokenizerKind(StrEnum):
    """How text becomes pieces."""

    WORDPIECE = "wordpiece"
    """BERT: a hanzi is a piece, Latin words are cut into some."""
    UNIGRAM = "unigram"
    """SentencePiece's unigram model with bytes for unknown characters: T5, BART."""
    BYTE_BPE = "byte_bpe"
    """Byte pairs, as GPT-2."""
    JIEBA_WORDPIECE = "jieba_wordpiece"
    """jieba's words, and WordPiece for the others: Pegasus."""


LEAST_SIZES: Final = {TokenizerKind.UNIGRAM: 300, TokenizerKind.BYTE_BPE: 260}
"""Pieces at least, of kinds that have a piece for every byte."""


class VocabularySpec(Schema):
    """Where the pieces come from that text is cut into."""

    kind: TokenizerKind | None = None
    """What is trained on the corpus, or what `file` is of. None takes what the model was published
    with, wordpiece in place of byte_bpe."""
    file: str | None = None
    """A vocab.txt of wordpiece or jieba_wordpiece, one piece a line. None trains one on the
    corpus, unless data.tokenizer is given."""
    size: Annotated[int, Field(ge=16)] = 12800
    """Pieces at most when trained; 12,800 is the size of the Erlangshen-DeBERTa-v2 vocabulary.
    unigram needs more than 300 and byte_bpe more than 260, for their bytes."""
    lowercase: bool = True
    """Lower-case Latin text and strip accents, as the Chinese BERT vocabularies expect; unigram
    and byte_bpe keep every letter."""
    num_sentinels: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Pieces <extra_id_N> … <extra_id_0> at the end of what is trained, for T5's span corruption.
    None: 100 (as T5 has) where that is the objective, else none."""
    sample_bytes: PositiveInt = 32 * 2**20
    """Bytes of the corpus files, about, that unigram, byte_bpe and jieba_wordpiece are trained on
    and `extend` looks at, documents chosen by the seed; wordpiece counts the whole corpus."""
    extend: PositiveInt | None = None
    """New pieces at most for what `file` or data.tokenizer lacks in this corpus; they are put
    behind the old ones, whose ids stay. None adds none."""


class KnowledgeSpec(Schema):
    """How much a word means, for knowledge-based masking; the weights of a sum that starts at 1.

    Published is one sentence: mask what is rich in meaning. The formula and its numbers are ours.
    """

    entity: NonNegativeFloat = 2.0
    """For names of people, places, organisations and works: what a model cannot guess from
    grammar; with all weights a name is drawn about five times as often as a particle."""
    idiom: NonNegativeFloat = 1.0
    """For words of four hanzi or more: idioms and terms (the published base model always hid
    these)."""
    rarity: NonNegativeFloat = 1.0
    """Times the word's inverse document frequency in the corpus, scaled to 0 … 1."""
    content: NonNegativeFloat = 0.5
    """For nouns, verbs and numbers: half an idiom, since most words are one of them."""
    sample_bytes: PositiveInt = 2**30
    """Bytes of the corpus files, about, whose documents are counted for `rarity`, chosen by the
    seed."""


class GapSpec(Schema):
    """Which sentences of a sample Pegasus has to write."""

    ratio: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    """Sentences are taken until their characters are more than this share of the others'."""


class NgramSpec(Schema):
    """The lexicon of ZEN, made of the corpus by pointwise mutual information."""

    kind: Literal["zen1", "zen2"] | None = None
    """Whose conventions ngram.txt follows. None takes the model's, zen2 for any other model."""
    size: PositiveInt = 104_000
    """N-grams at most; about what ZEN1 was published with (104,089)."""
    max_tokens: Annotated[int, Field(ge=2, le=7)] = 7
    """Pieces of an n-gram at most; ZEN looks for 2 to 7."""
    min_count: PositiveInt = 5
    """N-grams that occur less often are left out: their information is chance."""
    min_pmi: float = 4.0
    """Bits by which the neighbours in an n-gram hold together at least; words of two hanzi have
    some 6 to 12."""
    sample_tokens: PositiveInt = 100_000_000
    """Tokens of the corpus, about, that it is made of, documents chosen by the seed."""


def find_conflict(
    vocabulary: VocabularySpec,
    *,
    tokenizer: str | None,
    concatenate: bool,
    columns: Sequence[str] | None,
) -> str | None:
    """Return what does not go together in a DataSpec, or None."""
    columns = columns or ()
    if tokenizer and (vocabulary.file or vocabulary.num_sentinels or vocabulary.kind):
        return "tokenizer stands in place of vocabulary.kind, file and num_sentinels"
    if vocabulary.extend and not (tokenizer or vocabulary.file):
        return "vocabulary.extend needs one to extend: set tokenizer or vocabulary.file"
    if concatenate and "gaps" in columns:
        return "column gaps needs whole documents: concatenate must be false"
    if len(set(columns)) != len(columns):
        return "columns must not repeat"
    return _find_conflict_of_kind(vocabulary)


def _find_conflict_of_kind(vocabulary: VocabularySpec) -> str | None:
    kind, num_sentinels = vocabulary.kind, vocabulary.num_sentinels or 0
    if vocabulary.file and num_sentinels:
        return "num_sentinels is of a vocabulary that is trained; write them into vocabulary.file"
    if vocabulary.file and kind in (TokenizerKind.UNIGRAM, TokenizerKind.BYTE_BPE):
        return (
            f"vocabulary.file is a vocab.txt, and kind {kind.value} has none; give the folder of "
            "its tokenizer.json as tokenizer"
        )
    if num_sentinels and kind is TokenizerKind.JIEBA_WORDPIECE:
        return "kind jieba_wordpiece has no sentinels: num_sentinels must be 0"
    least = LEAST_SIZES.get(kind, 16) if kind else 16
    if vocabulary.size < least + num_sentinels:
        return (
            f"vocabulary.size = {vocabulary.size}: kind {kind.value if kind else 'wordpiece'} with "
            f"{num_sentinels} sentinels needs {least + num_sentinels} at least"
        )
    return None
