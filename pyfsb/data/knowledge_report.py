# SPDX-License-Identifier: Apache-2.0
"""Which words knowledge-based masking hides in a corpus, told when its weights have been computed.

The weights and the formula are our choice, so whoever trains with them should see what they do.
Called by the data stage; the masks are those of the first pass over the samples looked at. Never
changes a corpus.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Final

import numpy as np

from pyfsb.config import ObjectiveName, RunSpec
from pyfsb.data.corpus_tokenizer import ChosenTokenizer
from pyfsb.data.shards import Shards
from pyfsb.objectives.knowledge_masking import NUM_BINS, ChoiceReport, KnowledgeMasking
from pyfsb.objectives.protocol import Samples
from pyfsb.objectives.special import SpecialIds
from pyfsb.registry import find_model

REPORT_NAME: Final = "knowledge.json"
"""In a corpus folder: how often words of each weight are hidden."""
MAX_SAMPLES: Final = 2000
"""Samples that are looked at, spread over the corpus."""
_NUM_WEIGHTS: Final = 256
_SHOWN_BINS: Final = 4
"""Bins of the report that the log tells as one."""
_log = logging.getLogger(__name__)


def write_report(spec: RunSpec, chosen: ChosenTokenizer, folder: Path) -> None:
    """Write what `knowledge_masking` hides of a corpus; nothing for other objectives.

    Args:
        spec: Objective, share of tokens and seed.
        chosen: The corpus' tokenizer.
        folder: With the shards; the report is written there.

    Raises:
        ConfigError: The vocabulary lacks a token that the objective needs.
    """
    name = ObjectiveName(spec.objective.name or find_model(spec.model.name).objective)
    if name is not ObjectiveName.KNOWLEDGE_MASKING:
        return
    shards = Shards.open(folder)
    places = np.linspace(0, len(shards) - 1, num=min(len(shards), MAX_SAMPLES)).astype(np.int64)
    ratio = spec.objective.mask_ratio
    masking = KnowledgeMasking(SpecialIds.of(chosen.pieces), mask_ratio=ratio)
    report = masking.describe(_read(shards, places), seed=spec.seed)
    width = _NUM_WEIGHTS // NUM_BINS
    shares = report.chosen_ratio_of_bin
    value = {
        "mask_ratio": ratio,
        "num_samples": int(places.size),
        "realised_ratio": round(report.realised_ratio, 6),
        "words_by_weight": [
            {
                "first": number * width,
                "last": (number + 1) * width - 1,
                "num_words": report.words_of_bin[number],
                "hidden_ratio": round(shares[number], 6),
            }
            for number in range(NUM_BINS)
            if report.words_of_bin[number]
        ],
    }
    (folder / REPORT_NAME).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    _log.info(
        "knowledge masking of %d samples: %.1f %% of tokens are asked for; words by weight: %s",
        places.size, 100 * report.realised_ratio, _summarise(report),
    )  # fmt: skip


def _read(shards: Shards, places: np.ndarray) -> Samples:
    ids, words, lengths = shards.read_many(places)
    columns = shards.read_columns(places, ("knowledge",))
    return Samples(
        ids_N=ids.astype(np.int64),
        words_N=words,
        lengths_B=lengths,
        sample_ids_B=places,
        passes_B=np.zeros(places.size, dtype=np.int64),
        knowledge_N=columns["knowledge"],
    )


def _summarise(report: ChoiceReport) -> str:
    """Return the share hidden of light to heavy words, in few words."""
    parts, width = [], _NUM_WEIGHTS // NUM_BINS
    for first in range(0, NUM_BINS, _SHOWN_BINS):
        words = sum(report.words_of_bin[first : first + _SHOWN_BINS])
        hidden = sum(report.chosen_of_bin[first : first + _SHOWN_BINS])
        if words:
            last = (first + _SHOWN_BINS) * width - 1
            parts.append(f"{first * width}-{last}: {100 * hidden / words:.1f} % of {words:,}")
    return "; ".join(parts)
