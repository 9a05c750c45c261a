# SPDX-License-Identifier: Apache-2.0
"""How sure a score is: intervals, tests against the majority, paired comparisons."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_Z_95 = 1.959963984540054


def wilson_interval(num_correct: int, num_rows: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share.

    Source: Wilson 1927; unlike the normal interval it stays sensible at 0 and 1.
    """
    if num_rows <= 0:
        return 0.0, 1.0
    share, square = num_correct / num_rows, _Z_95**2
    centre = (share + square / (2 * num_rows)) / (1 + square / num_rows)
    spread = math.sqrt(share * (1 - share) / num_rows + square / (4 * num_rows**2))
    half = _Z_95 * spread / (1 + square / num_rows)
    low = 0.0 if num_correct == 0 else max(0.0, centre - half)
    high = 1.0 if num_correct == num_rows else min(1.0, centre + half)
    return low, high


def binomial_p_value(num_correct: int, num_rows: int, baseline: float) -> float:
    """Return the chance of at least this many correct rows at the baseline's rate.

    The one-sided exact binomial test. A baseline of 0 is taken as one row.
    """
    from scipy.stats import binomtest

    if num_rows <= 0:
        return 1.0
    rate = min(1.0, max(baseline, 1 / num_rows))
    return float(binomtest(num_correct, num_rows, rate, alternative="greater").pvalue)


def format_p_value(p_value: float) -> str:
    """Return `= p` in two digits, or `< 1e-300` for one too small for a float."""
    return f"= {p_value:.2g}" if p_value else "< 1e-300"


def majority(labels: Sequence[str]) -> tuple[str, float]:
    """Return the most frequent label and its share; ties go to the first in order of text."""
    counts = Counter(labels)
    label = min(counts, key=lambda name: (-counts[name], name))
    return label, counts[label] / len(labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """How two methods differ over the same seeds."""

    mean: float
    """Mean of a - b."""
    interval: tuple[float, float]
    """95 % interval of the mean (Student)."""
    p_value: float
    """Two-sided paired t-test that the mean is 0."""


def paired_difference(first: Sequence[float], second: Sequence[float]) -> PairedDifference:
    """Compare two methods, pair by pair.

    Args:
        first: Scores of one method.
        second: Scores of the other with the same seeds; at least two pairs.
    """
    from scipy import stats

    differences = [a - b for a, b in zip(first, second, strict=True)]
    count = len(differences)
    mean = sum(differences) / count
    variance = sum((value - mean) ** 2 for value in differences) / (count - 1)
    error = math.sqrt(variance / count)
    half = float(stats.t.ppf(0.975, count - 1)) * error
    p_value = float(stats.ttest_rel(first, second).pvalue) if error else float(mean == 0)
    return PairedDifference(mean=mean, interval=(mean - half, mean + half), p_value=p_value)
