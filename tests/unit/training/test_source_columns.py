"""Columns of shards reach the objective, token by token, from one part or several."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from pyfsb import storage
from pyfsb.config import DataSpec
from pyfsb.data.shards import Column, Shards, ShardWriter
from pyfsb.errors import DataError
from pyfsb.objectives.protocol import Inputs, Samples
from pyfsb.training.sources import CorpusPlace, open_corpus

COLUMNS: tuple[Column, ...] = ("sentences", "gaps", "knowledge")


class Noting:
    """Keeps the samples that it is given."""

    name: ClassVar[str] = "noting"
    columns: ClassVar[tuple[str, ...]] = COLUMNS

    def __init__(self) -> None:
        self.seen: list[Samples] = []

    def build(self, samples: Samples, *, seed: int) -> Inputs:
        """Note the samples and return them as they are."""
        assert seed == 3
        self.seen.append(samples)
        return Inputs(
            input_ids_N=samples.ids_N, lengths_B=samples.lengths_B,
            target_positions_P=np.array([0]), target_ids_P=np.array([0]),
        )  # fmt: skip


def write_part(folder: Path, seed: int, columns: tuple[Column, ...] = COLUMNS) -> Path:
    rng = np.random.default_rng(seed)
    writer = ShardWriter(
        folder, vocabulary_size=300, max_tokens=20, shard_tokens=150, columns=columns
    )
    for _ in range(12):
        size = int(rng.integers(1, 60))
        ids = rng.integers(0, 256, size)
        values = {
            "sentences": ids % 3 == 0, "gaps": ids % 5 == 0, "knowledge": ids.astype(np.uint8),
        }  # fmt: skip
        writer.add(
            ids, ids % 2 == 0, range(0, size, 20), columns={name: values[name] for name in columns}
        )
    writer.close("sha256:v")
    return folder


def check(places: list[str]) -> None:
    objective = Noting()
    corpus = open_corpus(
        [CorpusPlace(name=str(n), uri=uri) for n, uri in enumerate(places)], objective,
        data=DataSpec(), seed=3, held_out_samples=1,
    )  # fmt: skip
    num_samples = sum(shard.num_samples for index in corpus.indexes for shard in index.shards)
    chosen = np.random.default_rng(0).integers(0, num_samples, 25)
    corpus.source.collate(chosen, np.zeros(25, dtype=np.int64))
    corpus.close()
    (samples,) = objective.seen
    assert samples.ids_N.size == samples.lengths_B.sum() > 100
    assert samples.sentences_N is not None
    assert np.array_equal(samples.sentences_N, samples.ids_N % 3 == 0)
    assert samples.gaps_N is not None
    assert np.array_equal(samples.gaps_N, samples.ids_N % 5 == 0)
    assert samples.knowledge_N is not None
    assert np.array_equal(samples.knowledge_N, samples.ids_N)


def test_columns_of_a_blend_go_with_their_tokens(tmp_path: Path) -> None:
    check([str(write_part(tmp_path / str(seed), seed)) for seed in (1, 2)])


def test_columns_come_from_s3(s3: str, tmp_path: Path) -> None:
    for path in write_part(tmp_path / "local", 1).iterdir():
        storage.upload(path, storage.join(s3, path.name))
    check([s3])


def test_a_part_without_the_column_is_refused_before_training(tmp_path: Path) -> None:
    good = write_part(tmp_path / "good", 1)
    bad = write_part(tmp_path / "bad", 1, columns=("sentences",))
    assert Shards.open(bad).index.columns == ("sentences",)
    with pytest.raises(DataError, match=rf"{bad} holds no column 'gaps'"):
        check([str(good), str(bad)])
