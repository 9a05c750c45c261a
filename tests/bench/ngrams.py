"""Finding a lexicon's n-grams in training batches, beside looking up every run in a dict.

A batch of 64 x 512 tokens drawn as in natural text (Zipf), a lexicon of about 210,000 n-grams of 2
to 7 tokens taken from such text. The peer is what ZEN's collators do: for every length, every run
of a document as a tuple in a dict. The limit is reading the batch's tokens once for each length.
CPU time of one process; the smallest of the repetitions.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from pyfsb.tokenizers.ngram_lexicon import NgramKind, NgramLexicon, NgramLimit

NUM_ROWS, ROW_TOKENS = 64, 512
NUM_RUNS = {2: 120_000, 3: 80_000, 4: 50_000, 5: 8_000, 6: 2_000, 7: 1_400}


def main() -> None:
    generator = np.random.default_rng(0)
    shares = 1 / np.arange(1, 6001)
    text = generator.choice(6000, size=4_000_000, p=shares / shares.sum()) + 672
    runs = sorted(
        {
            tuple(text[start : start + length].tolist())
            for length, number in NUM_RUNS.items()
            for start in generator.integers(0, text.size - 8, number)
        }
    )
    lines = [f"{number},{number + 1}" for number in range(len(runs))]
    lexicons = {}
    for kind in NgramKind:
        started = time.process_time()
        lexicons[kind] = NgramLexicon(lines, kind=kind, encode=lambda _: runs, unknown_id=None)
        print(f"{kind}: lexicon of {len(runs):,} built in {time.process_time() - started:.2f} s")
    ids_N, lengths_B = text[: NUM_ROWS * ROW_TOKENS], np.full(NUM_ROWS, ROW_TOKENS)
    numbers = {run: number for number, run in enumerate(runs, start=1)}
    found = lexicons[NgramKind.ZEN2].find(ids_N, lengths_B)
    assert found.ids_G.tolist() == _look_up(ids_N, numbers)
    print(f"{found.ids_G.size / ids_N.size:.2f} n-grams a token\n")
    limit, keys_B = NgramLimit(max_tokens=ROW_TOKENS), np.arange(NUM_ROWS)
    peer = _report("dict", lambda: _look_up(ids_N, numbers), ids_N.size, repeats=3)
    for kind, lexicon in lexicons.items():
        _report(f"{kind}, all", lambda: lexicon.find(ids_N, lengths_B), ids_N.size, peer)  # noqa: B023
        _report(
            f"{kind}, 128 a row",
            lambda: lexicon.find(ids_N, lengths_B, limit=limit, keys_B=keys_B),  # noqa: B023
            ids_N.size,
            peer,
        )
    _report("read 6 times", lambda: [ids_N.copy() for _ in range(6)], ids_N.size, peer)


def _look_up(ids_N: np.ndarray, numbers: dict[tuple[int, ...], int]) -> list[int]:
    """Return the n-grams of the rows as the original finds them, in the order of their ids."""
    found = []
    for row in ids_N.reshape(NUM_ROWS, ROW_TOKENS).tolist():
        runs = (
            tuple(row[start : start + length])
            for length in range(2, 8)
            for start in range(len(row) - length + 1)
        )
        found += sorted(numbers[run] for run in runs if run in numbers)
    return found


def _report(
    name: str, work: Callable[[], object], num_tokens: int, peer: float = 0.0, repeats: int = 30
) -> float:
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    ratio = f"{peer / best:8.0f}x" if peer else ""
    print(f"{name:16} {num_tokens / best / 1e6:8.2f} Mtok/s {best * 1e3:8.2f} ms a batch{ratio}")
    return best


if __name__ == "__main__":
    main()
