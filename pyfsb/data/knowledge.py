# SPDX-License-Identifier: Apache-2.0
"""How much each word of a corpus means, for knowledge-based masking (KDM).

    w = 1 + entity·[name] + idiom·[four hanzi or more, or an idiom of the dictionary]
          + rarity·idf + content·[noun, verb or number]

A token gets the weight of its word, as a byte: w as a share of the largest possible sum, times 255.
What a word is comes from the tags of jieba's dictionary, word by word and without its context
(jieba.posseg reads contexts, 300 times slower); a word that is not in it counts as a number when it
has digits only, and as a noun when it has Latin letters. `idf` is log(N / d) of N documents, d of
them with the word, scaled so that a word in every document has 0 and one in five or fewer has 1.
Called by the data stage and its workers.

Source: our choice throughout. Published is that Erlangshen-MegatronBert masks "with knowledge
rather than at random", nothing else; the rule of four characters is that of the published base
model.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pyfsb.config.corpus_sections import KnowledgeSpec
from pyfsb.data.segmenting import Cutter, cut_runs
from pyfsb.data.tokenizing import is_outside_runs
from pyfsb.errors import ConfigError

RARE_DOCUMENTS: Final = 5
"""Words in as many documents or fewer are equally rare: below it, chance decides."""
_LARGEST: Final = 255
_ENTITY_TAGS: Final = ("nr", "ns", "nt", "nz")
_CONTENT_TAGS: Final = ("n", "v", "m", "i", "l", "j", "t", "s")
_IDIOM_TAGS: Final = ("i", "l")
_IDIOM_CHARACTERS: Final = 4
_MAX_CACHED_WORDS: Final = 2_000_000


class WordWeights:
    """The weight of every word, remembered."""

    def __init__(
        self,
        spec: KnowledgeSpec,
        *,
        tags: Mapping[str, str],
        documents: Mapping[str, int],
        num_documents: int,
    ) -> None:
        """Keep what weights depend on.

        Args:
            spec: The weights of the sum.
            tags: jieba's tag of each word, from `load_tags`.
            documents: In how many documents of a sample each word is; words in few may be missing.
            num_documents: Documents of that sample.
        """
        self._spec = spec
        self._tags = tags
        self._documents = documents
        self._num_documents = num_documents
        largest = 1.0 + spec.entity + spec.idiom + spec.rarity + spec.content
        self._scale = _LARGEST / largest
        self._known: dict[str, int] = {}
        self.least = round(self._scale)
        """The weight of what is no word, such as punctuation: that of w = 1."""

    def __getitem__(self, word: str) -> int:
        """Return the weight of a word, 1 to 255."""
        found = self._known.get(word)
        if found is None:
            found = max(1, round(self._scale * self.weigh(word)))
            if len(self._known) < _MAX_CACHED_WORDS:
                self._known[word] = found
        return found

    def weigh(self, word: str) -> float:
        """Return w of a word, see the module."""
        spec, tag = self._spec, self._tags.get(word) or _guess_tag(word)
        is_hanzi = not word.isascii()
        is_entity = len(word) > 1 and tag.startswith(_ENTITY_TAGS)
        is_idiom = is_hanzi and (len(word) >= _IDIOM_CHARACTERS or tag in _IDIOM_TAGS)
        is_content = tag.startswith(_CONTENT_TAGS)
        return (
            1.0
            + spec.entity * is_entity
            + spec.idiom * is_idiom
            + spec.rarity * self.rarity(word)
            + spec.content * is_content
        )

    def rarity(self, word: str) -> float:
        """Return the inverse document frequency of a word, scaled to 0 … 1."""
        if self._num_documents <= RARE_DOCUMENTS:
            return 0.0
        num_documents = max(RARE_DOCUMENTS, self._documents.get(word.lower(), 0))
        largest = math.log(self._num_documents / RARE_DOCUMENTS)
        return math.log(self._num_documents / num_documents) / largest


def load_tags() -> dict[str, str]:
    """Return the tag of every word of jieba's dictionary.

    Raises:
        ConfigError: jieba is not installed.
    """
    try:
        import jieba
    except ImportError:
        raise ConfigError("data.columns: knowledge needs the package jieba") from None
    with jieba.get_dict_file() as file:
        rows = [line.split(" ") for line in file.read().decode("utf-8").splitlines()]
    return {row[0]: row[2] for row in rows if len(row) == 3}


def count_documents(texts: Iterable[str], cut: Cutter) -> tuple[Counter[str], int]:
    """Count in how many texts each word is, in lower case; returns also the number of texts.

    Words in `RARE_DOCUMENTS` texts or fewer are left out: none of them is rarer than another.
    """
    counts: Counter[str] = Counter()
    num_texts = 0
    for text in texts:
        num_texts += 1
        counts.update({word.lower() for _, word in cut_runs(text, cut)})
    return Counter({word: n for word, n in counts.items() if n > RARE_DOCUMENTS}), num_texts


def weigh_tokens(
    text: str,
    positions: NDArray[np.integer],
    word_starts: NDArray[np.bool_],
    *,
    weights: WordWeights,
    cut: Cutter,
) -> NDArray[np.uint8]:
    """Return the weight of each token of a text.

    Args:
        text: A document.
        positions: The character at which each token begins, ascending, [T].
        word_starts: Word bits of the tokens, [T].
        weights: Of words.
        cut: A word segmenter, the one that word bits are from.

    Returns:
        Weights [T], the same for all tokens of a word; where a token reaches over several words of
        the segmenter, the largest.
    """
    if not positions.size:
        return np.empty(0, dtype=np.uint8)
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    characters = np.full(points.size, weights.least, dtype=np.uint8)
    words = [word for _, word in cut_runs(text, cut)]
    by_character = np.repeat(
        np.array([weights[word] for word in words], dtype=np.uint8),
        np.array([len(word) for word in words], dtype=np.int64),
    )
    characters[~is_outside_runs(points)] = by_character  # runs hold words and nothing else
    firsts = np.flatnonzero(word_starts)
    if not firsts.size or firsts[0]:  # the text begins inside a word
        firsts = np.concatenate(([0], firsts))
    places = positions[firsts]
    by_word = np.maximum.reduceat(characters, places)
    return np.repeat(by_word, np.diff(firsts, append=positions.size))


def _guess_tag(word: str) -> str:
    """Return a tag for a word that is not in the dictionary."""
    if word.isdigit():
        return "m"
    return "n" if word.isascii() and any(map(str.isalpha, word)) else ""
