# SPDX-License-Identifier: Apache-2.0
"""What the data stage has to make, where the spec leaves it to the model and its objective.

Called by the data stage; the digest of its settings covers model and objective for that reason.
Never reads a file.
"""

from __future__ import annotations

from typing import Final, Literal

from pyfsb.config import DataSpec, ObjectiveName, RunSpec
from pyfsb.config.corpus_sections import COLUMNS_OF, NgramSpec, TokenizerKind, find_conflict
from pyfsb.errors import ConfigError
from pyfsb.registry import find_model

NUM_SENTINELS: Final = 100
"""Of T5 (Raffel et al. 2020)."""
_KINDS: Final = {
    "sentencepiece": TokenizerKind.UNIGRAM,
    "sentencepiece_bpe": TokenizerKind.UNIGRAM,
    "jieba_sentencepiece": TokenizerKind.UNIGRAM,
    "jieba_wordpiece": TokenizerKind.JIEBA_WORDPIECE,
}
"""What is trained for a published kind; wordpiece for the others, byte_bpe too: its published
merges are English."""
_NGRAM_KIND: Final = "ngram_wordpiece"


def complete_data(spec: RunSpec) -> DataSpec:
    """Return the data section with every choice made; what the spec says stays.

    Raises:
        UnknownNameError: No such model.
        ConfigError: What the spec says does not fit the objective.
    """
    entry, data = find_model(spec.model.name), spec.data
    objective = ObjectiveName(spec.objective.name or entry.objective)
    vocabulary, is_trained = data.vocabulary, not (data.tokenizer or data.vocabulary.file)
    kind = vocabulary.kind
    if kind is None and not data.tokenizer:
        kind = _KINDS.get(entry.tokenizer, TokenizerKind.WORDPIECE)
        if vocabulary.file and kind is TokenizerKind.UNIGRAM:
            kind = TokenizerKind.WORDPIECE  # a vocab.txt
    num_sentinels = vocabulary.num_sentinels
    if num_sentinels is None:
        needs_some = is_trained and objective is ObjectiveName.SPAN_CORRUPTION
        num_sentinels = NUM_SENTINELS if needs_some else 0
    needed = COLUMNS_OF.get(objective, ())
    columns = needed if data.columns is None else data.columns
    missing = [column for column in needed if column not in columns]
    if missing:
        raise ConfigError(
            f"data.columns = {list(columns)}: objective {objective.value} of {entry.name} needs "
            f"{', '.join(missing)}; add it, or leave data.columns out"
        )
    ngrams = data.ngrams
    if ngrams is None and entry.tokenizer == _NGRAM_KIND and not data.tokenizer:
        ngrams = NgramSpec()  # a given tokenizer brings its own lexicon
    if ngrams is not None and ngrams.kind is None:
        kind_of_zen: Literal["zen1", "zen2"] = "zen1" if entry.architecture == "zen1" else "zen2"
        ngrams = ngrams.model_copy(update={"kind": kind_of_zen})
    completed = data.model_copy(
        update={
            "vocabulary": vocabulary.model_copy(
                update={"kind": kind, "num_sentinels": num_sentinels}
            ),
            "columns": columns,
            "ngrams": ngrams,
        }
    )
    conflict = find_conflict(
        completed.vocabulary, tokenizer=data.tokenizer, concatenate=data.concatenate,
        columns=columns,
    )  # fmt: skip
    if conflict:
        raise ConfigError(f"data for {entry.name}, objective {objective.value}: {conflict}")
    return completed
