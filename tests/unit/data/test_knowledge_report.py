from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from pyfsb.data.knowledge_report import REPORT_NAME
from pyfsb.data.prepare import prepare
from tests.unit.data.test_corpus_kinds import corpus_of, spec_of


def test_what_knowledge_masking_hides_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="pyfsb"):
        spec = spec_of(tmp_path, objective="knowledge_masking")
        record = prepare(spec)[0]
    folder, shards = corpus_of(record, spec)
    assert REPORT_NAME in [file.path for file in record.files]
    found = json.loads((folder / REPORT_NAME).read_text())
    _, words, lengths = shards.read_many(np.arange(len(shards)))
    assert found["mask_ratio"] == 0.15
    assert found["num_samples"] == len(shards)
    assert found["realised_ratio"] == pytest.approx(0.15, abs=0.02)
    firsts = np.cumsum(lengths) - lengths
    words[firsts] = True
    assert sum(row["num_words"] for row in found["words_by_weight"]) == words.sum()
    light, *_, heavy = found["words_by_weight"]
    assert light["hidden_ratio"] < heavy["hidden_ratio"]
    told = next(text for text in caplog.messages if text.startswith("knowledge masking of"))
    assert f"of {len(shards)} samples" in told
    other = spec_of(tmp_path, "other", data__columns=["knowledge"])
    assert REPORT_NAME not in [file.path for file in prepare(other)[0].files]
