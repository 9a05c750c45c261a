# SPDX-License-Identifier: Apache-2.0
"""Users' texts as tokens: what reads like a special token in them is text like any other.

A row or a request could otherwise end an answer early or forge a turn by writing `</s>`. The words
around a text that belong to a model (its prompt) may name special tokens. Called by training and
inference, so a model is asked in the tokens that it was taught with. Never cuts or adds tokens.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, Final

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pyfsb.data.offset_tokenizing import hidden_names, hide_specials
from pyfsb.objectives.row_objective import PLACE, Tokenize, Tokenized

_SENTINEL: Final = re.compile(r"▁?<extra_id_\d+>")


def make_tokenize(tokenizer: PreTrainedTokenizerBase, *, keeps_gaps: bool = False) -> Tokenize:
    """Return the callable through which objectives and predictors tokenise texts.

    Args:
        tokenizer: The model's.
        keeps_gaps: Texts may name the mask and `<extra_id_N>`: what encoder-decoders fill that were
            pretrained by span corruption or infilling.
    """
    gaps = _find_gaps(tokenizer) if keeps_gaps else ()
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if isinstance(backend, Tokenizer):
        text = backend.to_str()
        return _Hidden(Tokenizer.from_str(hide_specials(text)), hidden_names(text), gaps)
    return _Split(tokenizer, gaps)


def _find_gaps(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the names of the mask and of the sentinels."""
    sentinels = [name for name in tokenizer.get_added_vocab() if _SENTINEL.fullmatch(name)]
    return [*sentinels, *filter(None, [tokenizer.mask_token])]


@lru_cache(maxsize=8)
def plain_twin(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return a tokenizer that takes every text for text, and puts the same tokens around texts.

    For what needs pairs, truncation or batches, which `make_tokenize` does not give. Texts must
    hold no U+0000, which marks hidden names. It has no names of special tokens, so it neither pads
    nor decodes. One in Python is returned as it is.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        return tokenizer
    hidden = Tokenizer.from_str(hide_specials(backend.to_str(), keeps_frame=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=hidden,
        truncation_side=tokenizer.truncation_side,
        model_max_length=tokenizer.model_max_length,
    )


class _Hidden:
    """A copy of a tokenizer whose special tokens have names that no text can write.

    Telling a tokenizer to split special tokens would not do: a unigram vocabulary has `</s>` among
    its pieces, and would find it whole.
    """

    def __init__(
        self, tokenizer: Tokenizer, names: Mapping[str, str], gaps: Collection[str]
    ) -> None:
        self._tokenizer = tokenizer
        self._names = names
        self._pattern = _any_of(names)
        self._gaps = _any_of([name for name in gaps if name in names])
        self._templates: dict[str, str] = {}

    def __call__(self, text: str, template: str = PLACE, /) -> Tokenized:
        around = self._templates.get(template)
        if around is None:
            around = self._hide(self._pattern, template)
            self._templates[template] = around
        whole = around.replace(PLACE, self._hide(self._gaps, text.replace("\0", " ")))
        encoding = self._tokenizer.encode(whole, add_special_tokens=False)
        return _tokenized(encoding.ids, encoding.offsets)

    def _hide(self, pattern: re.Pattern[str], text: str) -> str:
        return pattern.sub(lambda found: self._names[found.group()], text)


class _Split:
    """A tokenizer in Python; it knows no places, those who need them find that there are none."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, gaps: Collection[str]) -> None:
        self._tokenizer = tokenizer
        self._ids: dict[str, int] = tokenizer.get_added_vocab()
        self._pattern = _any_of(self._ids)
        self._gaps = _any_of([name for name in gaps if name in self._ids])

    def __call__(self, text: str, template: str = PLACE, /) -> Tokenized:
        parts: list[str] = []  # text, name, text … name, text
        for number, part in enumerate(self._pattern.split(template)):
            parts += [part] if number % 2 else self._gaps.split(part.replace(PLACE, text))
        ids: list[int] = []
        for number, part in enumerate(parts):
            if number % 2:
                ids.append(self._ids[part])
                continue
            ids += self._tokenizer(
                part.strip() if len(parts) > 1 else part,
                add_special_tokens=False,
                split_special_tokens=True,
            )["input_ids"]
        return _tokenized(ids, ())


def _any_of(names: Collection[str]) -> re.Pattern[str]:
    """Return a pattern that finds any of some names, the longest first; none finds nothing.

    `split` keeps what it found, at odd places.
    """
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})" if longest_first else "(?!)")


def _tokenized(ids: Any, offsets: Any) -> Tokenized:
    return Tokenized(
        ids_T=np.asarray(ids, dtype=np.int32),
        offsets_T2=np.asarray(offsets, dtype=np.int32).reshape(-1, 2),
    )
