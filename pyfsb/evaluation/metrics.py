# SPDX-License-Identifier: Apache-2.0
"""Figures about predictions; pure functions of gold and predicted answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pyfsb.data.labelled import parse_spans

DEGENERATE_SHARE = 0.95


def macro_f1(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> float:
    """Return the mean over the labels of each label's F1; a label never met counts 0.

    Source: QBQTC and DataCLUE rank on it.
    """
    hits: Counter[str] = Counter()
    for answer, guess in zip(gold, predicted, strict=True):
        hits[answer] += answer == guess
    golds, guesses = Counter(gold), Counter(predicted)
    scores = [
        2 * hits[label] / total if (total := golds[label] + guesses[label]) else 0.0
        for label in labels
    ]
    return sum(scores) / len(labels)


def entity_f1(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """Return the micro F1 of typed spans, each row's spans as `entities_text` writes them."""
    num_hits = num_gold = num_found = 0
    for answer, guess in zip(gold, predicted, strict=True):
        spans, found = parse_spans(answer), parse_spans(guess)
        num_hits += len(spans & found)
        num_gold += len(spans)
        num_found += len(found)
    return 2 * num_hits / (num_gold + num_found) if num_gold + num_found else 1.0


def is_degenerate(predicted: Sequence[str]) -> bool:
    """Say whether more than 95 % of the answers are one and the same."""
    if not predicted:
        return False
    return Counter(predicted).most_common(1)[0][1] > DEGENERATE_SHARE * len(predicted)
