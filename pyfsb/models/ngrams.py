# SPDX-License-Identifier: Apache-2.0
"""The n-gram lexicon of a model that reads n-grams, from the tokenizer beside it.

Called by training and fine-tuning; prediction asks the model itself (`match_ngrams`).
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from pyfsb.errors import DataError
from pyfsb.tokenizers.ngram_lexicon import NgramLexicon


def find_lexicon(
    config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> NgramLexicon | None:
    """Return the lexicon of a model; None if it reads no n-grams.

    Raises:
        DataError: It reads n-grams, and the tokenizer has no lexicon.
        ConfigError: The lexicon has more n-grams than the model.
    """
    num_ngrams = getattr(config, "word_size", None)
    if num_ngrams is None:
        return None
    own: Any = tokenizer
    if not hasattr(own, "lexicon"):
        raise DataError(
            f"{config.model_type} reads n-grams, and the tokenizer has no lexicon; expected "
            "ngram.txt beside vocab.txt"
        )
    lexicon: NgramLexicon = own.lexicon(config.model_type)
    lexicon.check_fits(num_ngrams)
    return lexicon
