"""N-grams in training: matched on what is shown, and nothing of what is hidden."""

from __future__ import annotations

import numpy as np
import pytest

from pyfsb.objectives.ngrams import WithNgrams
from pyfsb.objectives.protocol import Samples
from pyfsb.objectives.special import SpecialIds
from pyfsb.objectives.whole_word import WholeWord
from pyfsb.tokenizers.ngram_lexicon import NgramLexicon, NgramLimit

SPECIAL = SpecialIds.of(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(20))])
PAIRS = [[a, b] for a in range(5, 15) for b in range(5, 15)]


def lexicon(kind: str = "zen2") -> NgramLexicon:
    lines = [f"{number},{number + 1}" for number in range(len(PAIRS))]
    return NgramLexicon(lines, kind=kind, encode=lambda _: PAIRS, unknown_id=1)


def samples(seed: int = 0, pass_: int = 0) -> Samples:
    generator = np.random.default_rng(seed)
    lengths = np.array([40, 0, 25])
    ids = generator.integers(5, 15, lengths.sum())
    return Samples(
        ids_N=ids,
        words_N=generator.random(ids.size) < 0.6,
        lengths_B=lengths,
        sample_ids_B=np.array([7, 8, 9]),
        passes_B=np.full(3, pass_),
    )


def inner() -> WholeWord:
    return WholeWord(SPECIAL, mask_ratio=0.3)


def test_inputs_are_those_of_the_objective_within() -> None:
    wrapped = WithNgrams(inner(), lexicon())
    assert (wrapped.name, wrapped.columns) == (WholeWord.name, WholeWord.columns)
    found, plain = wrapped.build(samples(), seed=4), inner().build(samples(), seed=4)
    for name, values in plain.arguments.items():
        assert np.array_equal(found.arguments[name], values)
    assert set(found.arguments) - set(plain.arguments) == {
        "ngram_ids", "ngram_starts", "ngram_lengths", "ngram_counts", "ngram_frequencies",
    }  # fmt: skip


def test_every_ngram_stands_in_what_is_shown() -> None:
    found = WithNgrams(inner(), lexicon()).build(samples(), seed=4)
    assert found.ngram_ids_G is not None
    assert found.ngram_starts_G is not None
    assert found.ngram_counts_B is not None
    shown = found.input_ids_N
    pairs = np.array(PAIRS)[found.ngram_ids_G - 1]
    assert np.array_equal(shown[found.ngram_starts_G], pairs[:, 0])
    assert np.array_equal(shown[found.ngram_starts_G + 1], pairs[:, 1])
    is_pair = (shown[:-1] >= 5) & (shown[1:] >= 5) & (shown[:-1] < 15) & (shown[1:] < 15)
    assert found.ngram_ids_G.size == is_pair.sum() > 10
    ends = np.cumsum(found.lengths_B)
    rows = np.searchsorted(ends, found.ngram_starts_G, side="right")
    assert np.bincount(rows, minlength=3).tolist() == found.ngram_counts_B.tolist()
    assert found.ngram_counts_B[1] == 0
    assert np.array_equal(found.ngram_frequencies_G, found.ngram_ids_G)


def test_a_hidden_token_has_no_say() -> None:
    objective = WithNgrams(inner(), lexicon())
    one = samples()
    built = objective.build(one, seed=4)
    is_hidden = built.input_ids_N[built.target_positions_P] == SPECIAL.mask
    assert is_hidden.sum() > 5
    # Where the targets lie in the samples: without [CLS] and [SEP] in front of them.
    rows = np.searchsorted(np.cumsum(built.lengths_B), built.target_positions_P, side="right")
    places = (built.target_positions_P - 1 - 2 * rows)[is_hidden]
    other = samples()
    other.ids_N[places] = (other.ids_N[places] - 5 + 3) % 10 + 5
    again = objective.build(other, seed=4)
    assert not np.array_equal(built.target_ids_P, again.target_ids_P)
    for name, values in built.arguments.items():
        assert np.array_equal(values, again.arguments[name]) == (name != "target_ids"), name


@pytest.mark.parametrize("kind", ["zen1", "zen2"])
def test_the_key_decides_and_the_limit_holds(kind: str) -> None:
    limit = NgramLimit(max_tokens=42, max_ngrams=8)
    objective = WithNgrams(inner(), lexicon(kind), limit=limit)
    one, same = (objective.build(samples(), seed=4) for _ in range(2))
    assert one.ngram_counts_B is not None
    assert one.ngram_counts_B.tolist() == [8, 0, 6]
    for name, values in one.arguments.items():
        assert np.array_equal(values, same.arguments[name])
    for changed in (objective.build(samples(), seed=5), objective.build(samples(pass_=1), seed=4)):
        assert not np.array_equal(one.ngram_starts_G, changed.ngram_starts_G)
