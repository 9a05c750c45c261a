from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from pyfsb.errors import DataError
from pyfsb.objectives.sentence_order import SentenceOrder
from tests.helpers.objective_samples import CLS, SEP, SPECIAL, documents, make_samples, rows_of


def _build(samples, *, seed: int = 0):
    return SentenceOrder(SPECIAL, mask_ratio=0.15, sentence_weight=77).build(samples, seed=seed)


def _clean(document: dict) -> list[int]:
    """The tokens of a document with what is right in place of what is shown."""
    ids = list(document["ids"])
    for place, target in document["targets"]:
        ids[place] = target
    return ids


def _parts(document: dict) -> tuple[list[int], list[int]]:
    ids = _clean(document)
    assert ids[0] == CLS and ids[-1] == SEP
    first = ids.index(SEP)
    return ids[1:first], ids[first + 1 : -1]


def test_parts_are_the_sample_in_order_or_swapped_and_one_token_is_lost() -> None:
    samples = make_samples([40] * 300)
    starts = np.cumsum(samples.lengths_B) - samples.lengths_B
    for start, row, document in zip(
        starts, rows_of(samples), documents(_build(samples)), strict=True
    ):
        first, second = _parts(document)
        assert document["types"] == [0] * (len(first) + 2) + [1] * (
            len(document["ids"]) - len(first) - 2
        )
        if document["weight"] == 0:
            assert (first, second, document["label"]) == (row, [], 0)
            continue
        assert document["weight"] == 77
        assert len(document["ids"]) == len(row) + 2
        before, after = (second, first) if document["label"] else (first, second)
        assert len(before) + len(after) == len(row) - 1
        sentences = np.flatnonzero(samples.sentences_N[start : start + len(row)])[1:].tolist()
        assert any(_fits(row, cut, before, after) for cut in sentences)


def _fits(row: list[int], cut: int, before: list[int], after: list[int]) -> bool:
    """Whether the parts are those of a cut, one of them without a token at an end."""
    parts = row[:cut], row[cut:]
    shorter = [part[1:] for part in parts], [part[:-1] for part in parts]
    longer = 0 if len(parts[0]) >= len(parts[1]) else 1
    for ends in shorter:
        found = list(parts)
        found[longer] = ends[longer]
        if found == [before, after]:
            return True
    return False


def test_labels_are_balanced_and_do_not_tell_lengths() -> None:
    inputs = _build(make_samples([60] * 4000, sentence_rate=0.15))
    has_order = inputs.sentence_weights_B > 0
    labels = inputs.sentence_labels_B[has_order]
    assert has_order.mean() > 0.95
    assert labels.mean() == pytest.approx(0.5, abs=0.03)
    assert set(labels.tolist()) == {0, 1}


def test_every_boundary_has_the_same_chance() -> None:
    base = make_samples([40], sample_ids=[3], sentence_rate=0.0)
    sentences = np.isin(np.arange(40), [0, 8, 19, 33])
    num = 3000
    samples = replace(
        base, ids_N=np.tile(np.arange(40) % 20 + 7, num), words_N=np.tile(base.words_N, num),
        sentences_N=np.tile(sentences, num), gaps_N=None, knowledge_N=None,
        lengths_B=np.full(num, 40), sample_ids_B=np.arange(num), passes_B=np.zeros(num, dtype=int),
    )  # fmt: skip
    firsts = Counter()
    for document in documents(_build(samples)):
        first, second = _parts(document)
        first = second if document["label"] else first
        firsts[min((8, 19, 33), key=lambda cut: abs(cut - len(first)))] += 1
    assert sum((firsts[cut] - 1000) ** 2 / 1000 for cut in (8, 19, 33)) < 13.8


@pytest.mark.parametrize("lengths", [[30], [1], [2]])
def test_a_single_sentence_has_no_order(lengths: list[int]) -> None:
    samples = make_samples(lengths, sentence_rate=0.0)
    if lengths == [2]:  # two sentences of a token each: too short to divide
        samples = replace(samples, sentences_N=np.ones(2, dtype=bool))
    for seed in range(5):
        (document,) = documents(_build(samples, seed=seed))
        assert (document["label"], document["weight"]) == (0, 0)
        assert _clean(document) == [CLS, *samples.ids_N.tolist(), SEP]
        assert set(document["types"]) == {0}


def test_targets_count_with_the_weights_of_the_labels() -> None:
    inputs = _build(make_samples([60] * 50, sentence_rate=0.2))
    weights = int(inputs.sentence_weights_B.sum())
    assert weights > 0
    assert inputs.num_targets == inputs.target_ids_P.size + weights
    share = inputs.target_ids_P.size / (59 * 50)
    assert share == pytest.approx(0.15, abs=0.015)


def test_words_are_hidden_whole_and_never_cross_the_parts() -> None:
    samples = make_samples([40] * 200, word_rate=0.2, sentence_rate=0.1)
    # Ids that tell the word of each token: what is hidden of a word is hidden whole.
    word = 100 + np.cumsum(samples.words_N | (samples.positions_N == 0))
    num_words = 0
    for document in documents(_build(replace(samples, ids_N=word))):
        clean = _clean(document)
        hidden = Counter(clean[place] for place, _ in document["targets"])
        num_words += len(hidden)
        assert all(hidden[own] == clean.count(own) for own in hidden)
    assert num_words > 200


def test_samples_without_sentences_are_refused() -> None:
    with pytest.raises(DataError, match="sentence_order needs to know where sentences begin"):
        _build(replace(make_samples([9]), sentences_N=None))
