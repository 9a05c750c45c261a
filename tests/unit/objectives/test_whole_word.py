from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfsb.data.segmenting import load_cutter
from pyfsb.data.tokenizing import DocumentTokenizer
from pyfsb.data.vocabulary import train_vocabulary
from pyfsb.objectives import CausalLm, SpecialIds, WholeWord
from pyfsb.objectives.protocol import Samples
from pyfsb.objectives.whole_word import choose_words
from pyfsb.seeding import uniform
from tests.conftest import SAMPLES
from tests.helpers.objective_samples import FIRST, MASK, NUM_ORDINARY, SPECIAL, make_samples

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=6)


@given(LENGTHS, st.floats(0.05, 0.9))
def test_words_are_hidden_whole(lengths: list[int], ratio: float) -> None:
    samples = make_samples(lengths)
    chosen = choose_words(samples, ratio=ratio, seed=1)
    goes_on = ~samples.words_N
    goes_on[np.cumsum(lengths) - lengths] = False
    inside = np.flatnonzero(goes_on)
    assert np.array_equal(chosen[inside], chosen[inside - 1])


def _reference(samples: Samples, *, ratio: float, seed: int) -> list[bool]:
    """The definition, a word after the other."""
    found, start = [], 0
    rows = zip(
        samples.lengths_B.tolist(),
        samples.sample_ids_B.tolist(),
        samples.passes_B.tolist(),
        strict=True,
    )
    for length, sample_id, data_pass in rows:
        bits = samples.words_N[start : start + length].tolist()
        starts = [place for place in range(length) if bits[place] or place == 0]
        spans = list(zip(starts, [*starts[1:], length], strict=True))
        order = uniform(seed, data_pass, 0, sample_id, np.arange(len(spans)))
        last = uniform(seed, data_pass, 1, sample_id, np.arange(len(spans)))
        chosen, room = [False] * length, ratio * length
        for word in np.argsort(order).tolist():
            first, stop = spans[word]
            if last[word] * (stop - first) < room:
                chosen[first:stop] = [True] * (stop - first)
            room -= stop - first
        found += chosen
        start += length
    return found


@given(LENGTHS, st.sampled_from([0.1, 0.15, 0.3, 0.5, 0.85]), st.integers(0, 2))
def test_the_whole_batch_is_what_word_after_word_gives(
    lengths: list[int], ratio: float, passes: int
) -> None:
    samples = make_samples(lengths, passes=passes)
    assert choose_words(samples, ratio=ratio, seed=4).tolist() == _reference(
        samples, ratio=ratio, seed=4
    )


@given(LENGTHS, st.integers(0, 3))
def test_targets_are_the_original_tokens(lengths: list[int], passes: int) -> None:
    samples = make_samples(lengths, passes=passes)
    inputs = WholeWord(SPECIAL, mask_ratio=0.4).build(samples, seed=3)
    clean = CausalLm(SPECIAL).build(samples, seed=3).input_ids_N
    assert np.array_equal(clean[inputs.target_positions_P], inputs.target_ids_P)
    untouched = np.ones(clean.size, dtype=bool)
    untouched[inputs.target_positions_P] = False
    assert np.array_equal(clean[untouched], inputs.input_ids_N[untouched])


def test_samples_of_several_passes_may_share_a_batch() -> None:
    objective = WholeWord(SPECIAL, mask_ratio=0.15)
    both = replace(make_samples([60, 60], sample_ids=[7, 7]), passes_B=np.array([1, 4]))
    together = objective.build(both, seed=1).input_ids_N.reshape(2, -1)
    for number, passes in enumerate((1, 4)):
        alone = objective.build(make_samples([60], sample_ids=[7], passes=passes), seed=1)
        assert np.array_equal(alone.input_ids_N, together[number])
    assert not np.array_equal(together[0], together[1])


@pytest.mark.parametrize("ratio", [0.15, 0.3])
@pytest.mark.parametrize("length", [3, 50])
def test_the_share_of_predicted_tokens_is_the_ratio(ratio: float, length: int) -> None:
    samples = make_samples([length] * (100_000 // length))
    assert choose_words(samples, ratio=ratio, seed=1).mean() == pytest.approx(ratio, abs=0.004)


def test_every_word_has_the_same_chance() -> None:
    base = make_samples([30], sample_ids=[5])
    num = 6000
    samples = replace(
        base, ids_N=np.tile(base.ids_N, num), words_N=np.tile(base.words_N, num),
        lengths_B=np.full(num, 30), sample_ids_B=np.arange(num), passes_B=np.zeros(num, dtype=int),
    )  # fmt: skip
    rates = choose_words(samples, ratio=0.15, seed=1).reshape(num, -1).mean(axis=0)
    assert rates.max() - rates.min() < 0.05


def test_eighty_ten_ten() -> None:
    inputs = WholeWord(SPECIAL, mask_ratio=0.15).build(make_samples([40] * 3000), seed=1)
    shown = inputs.input_ids_N[inputs.target_positions_P]
    assert (shown == MASK).mean() == pytest.approx(0.8, abs=0.01)
    # A random token is sometimes the original one.
    kept = (shown == inputs.target_ids_P).mean()
    assert kept == pytest.approx(0.1 + 0.1 / NUM_ORDINARY, abs=0.01)
    replaced = shown[(shown != MASK) & (shown != inputs.target_ids_P)] - FIRST
    counts = np.bincount(replaced, minlength=NUM_ORDINARY)
    assert counts.size == NUM_ORDINARY and counts.min() > 0.6 * counts.mean()


@pytest.mark.parametrize("segmenter", ["jieba", "rjieba"])
def test_what_is_hidden_are_words_of_the_segmenter(segmenter: str) -> None:
    """Real text, the data stage's bits: every word that is touched is hidden whole."""
    texts = _texts()
    pieces = train_vocabulary(texts, size=3000, lowercase=True)
    cut = load_cutter(segmenter)
    documents = DocumentTokenizer(pieces, lowercase=True, cut=cut).tokenize_batch(texts)
    lengths = np.array([document.ids.size for document in documents])
    samples = Samples(
        ids_N=np.concatenate([document.ids for document in documents]).astype(np.int64),
        words_N=np.concatenate([document.word_starts for document in documents]),
        lengths_B=lengths, sample_ids_B=np.arange(lengths.size), passes_B=np.zeros_like(lengths),
    )  # fmt: skip
    hidden = np.split(choose_words(samples, ratio=0.15, seed=2), np.cumsum(lengths)[:-1])
    assert np.concatenate(hidden).mean() == pytest.approx(0.15, abs=0.02)
    num_words = sum(
        _count_hidden(text, pieces, document.ids.tolist(), bits, cut)
        for text, document, bits in zip(texts, documents, hidden, strict=True)
    )
    assert num_words > 200
    assert SpecialIds.of(pieces).mask == pieces.index("[MASK]")


def _count_hidden(
    text: str, pieces: list[str], ids: list[int], bits: np.ndarray, cut: Callable[[str], list[str]]
) -> int:
    """Count words of several hanzi that are hidden; none may be hidden in part."""
    characters = [character for character in text if not character.isspace()]
    if any(
        len(pieces[number]) > 1 or character.isascii()
        for number, character in zip(ids, characters, strict=False)
    ):
        return 0  # Latin and unknown pieces: token and character are not the same
    if len(characters) != len(ids):
        return 0
    place, num_words = 0, 0
    for word in cut(text):
        size = len(word.strip())
        if size > 1 and all("一" <= character <= "鿿" for character in word):
            own = bits[place : place + size]
            assert own.all() or not own.any(), word
            num_words += bool(own.all())
        place += size
    return num_words


def _texts() -> list[str]:
    import gzip
    import json

    texts = []
    for path in sorted((SAMPLES / "rawcorpus").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                text = json.loads(line)["text"]
                runs = [
                    "".join(c for c in part if "一" <= c <= "鿿" or c in "，。！？；")
                    for part in text.split("\n")
                ]
                texts += [run for run in runs if len(run) > 5]
    return texts[:1500]
