from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from pyfsb import storage
from pyfsb.config import DataSpec, ObjectiveName, ObjectiveSpec
from pyfsb.data.shards import NUM_SPECIAL_TOKENS, ShardWriter
from pyfsb.errors import ConfigError, DataError
from pyfsb.objectives import SpecialIds, make_objective
from pyfsb.training.batching import Position, StepPlanner
from pyfsb.training.loader import Loader
from pyfsb.training.sources import Corpus, CorpusPlace, open_corpus

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"p{n}" for n in range(995))]


def write_part(folder: Path, num_documents: int, *, first_id: int, seed: int = 0) -> Path:
    """Write a shard folder whose ids lie in a range of 100 of its own."""
    rng = np.random.default_rng(seed)
    writer = ShardWriter(folder, vocabulary_size=1000, max_tokens=20, shard_tokens=150)
    for _ in range(num_documents):
        size = int(rng.integers(1, 50))
        ids = rng.integers(first_id, first_id + 100, size)
        writer.add(ids, rng.random(size) < 0.6, range(0, size, 20))
    writer.close("sha256:v")
    return folder


def open_parts(places: list[CorpusPlace], *, held_out_samples: int = 0, **data: object) -> Corpus:
    objective = make_objective(ObjectiveSpec(name=ObjectiveName.WHOLE_WORD), SpecialIds.of(PIECES))
    return open_corpus(
        places, objective, data=DataSpec.model_validate(data), seed=3,
        held_out_samples=held_out_samples,
    )  # fmt: skip


def _originals(batch_ids: np.ndarray, positions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    ids = batch_ids.copy()
    ids[positions] = targets
    return ids


def test_batches_hold_the_samples_flat(tmp_path: Path) -> None:
    corpus = open_parts([CorpusPlace(name="a", uri=str(write_part(tmp_path, 40, first_id=100)))])
    chosen = np.array([5, 0, 17, 5])
    batch = corpus.source.collate(chosen, np.array([0, 0, 0, 1]))
    ids, lengths = batch.inputs["input_ids"].numpy(), batch.inputs["lengths"].numpy()
    assert lengths.tolist() == corpus.source.lengths[chosen].tolist()
    assert ids.size == lengths.sum() == batch.num_tokens
    whole = _originals(
        ids, batch.inputs["target_positions"].numpy(), batch.inputs["target_ids"].numpy()
    )
    rows = np.split(whole, np.cumsum(lengths)[:-1])
    assert all(row[0] == 2 and row[-1] == 3 for row in rows)
    assert rows[0].tolist() == rows[3].tolist()
    again = corpus.source.collate(chosen, np.array([0, 0, 0, 1])).inputs["input_ids"].numpy()
    assert np.array_equal(ids, again)
    hidden = np.split(ids, np.cumsum(lengths)[:-1])
    assert hidden[0].tolist() != hidden[3].tolist()  # other words in another pass


def test_a_blend_reads_every_part_from_its_own_place(tmp_path: Path) -> None:
    places = [
        CorpusPlace(name=str(n), uri=str(write_part(tmp_path / str(n), 30, first_id=100 * n, seed=n)),
                    weight=1.0 + n)
        for n in (1, 2, 3)
    ]  # fmt: skip
    corpus = open_parts(places, held_out_samples=3)
    sizes = [sum(shard.num_samples for shard in index.shards) for index in corpus.indexes]
    ends = np.cumsum(sizes)
    assert corpus.held_out_ids.tolist() == [end - back for end in ends for back in (3, 2, 1)]
    assert corpus.num_tokens == sum(
        shard.num_tokens + NUM_SPECIAL_TOKENS * shard.num_samples
        for index in corpus.indexes for shard in index.shards
    )  # fmt: skip
    for sample in range(0, ends[-1], 7):
        part = int(np.searchsorted(ends, sample, side="right"))
        batch = corpus.source.collate(np.array([sample]), np.array([0]))
        first_id = 100 * int(places[part].name)
        targets = batch.inputs["target_ids"].numpy()
        assert np.all((targets >= first_id) & (targets < first_id + 100))
    mixed = corpus.source.collate(np.array([ends[1], 0, ends[0]]), np.zeros(3, dtype=np.int64))
    lengths = corpus.source.lengths[np.array([0, ends[0], ends[1]])]
    assert mixed.inputs["lengths"].tolist() == lengths.tolist()
    planner = StepPlanner(corpus.source.lengths, corpus.order, tokens=300)
    assert planner.count_steps(1) > 5
    assert (
        sum(corpus.part_tokens) + corpus.source.lengths[corpus.held_out_ids].sum()
        == corpus.num_tokens
    )
    for num_epochs in (1, 3):
        ids = [
            corpus.order.at(np.arange(corpus.order.num_samples), n)[0] for n in range(num_epochs)
        ]
        real = sum(int(corpus.source.lengths[own].sum()) for own in ids)
        assert 0.3 * real < corpus.least_tokens(num_epochs) <= real
    with Loader(
        corpus.source, planner, group_rank=0, group_size=1, micro_tokens=100, layout="flat"
    ) as loader:
        step = loader.load(Position(epoch=1, offset=20))
    assert (
        sum(batch.num_tokens for batch, _ in step.batches)
        == corpus.source.lengths[step.plan.sample_ids].sum()
    )
    assert not set(step.plan.sample_ids) & set(corpus.held_out_ids)


def test_windows_of_a_local_corpus_hold_the_same_samples(tmp_path: Path) -> None:
    place = CorpusPlace(name="a", uri=str(write_part(tmp_path, 60, first_id=100)))
    plain, windowed = open_parts([place]), open_parts([place], shuffle_shards=2)
    everything = np.arange(plain.order.num_samples)
    orders = [corpus.order.at(everything, 0)[0].tolist() for corpus in (plain, windowed)]
    assert plain.least_tokens(2) == windowed.least_tokens(2) == 2 * plain.num_tokens
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == everything.tolist()


def test_what_is_no_shard_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="index.json"):
        open_parts([CorpusPlace(name="a", uri=str(tmp_path))])
    place = CorpusPlace(name="news", uri=str(write_part(tmp_path / "a", 2, first_id=100)))
    with pytest.raises(ConfigError, match="corpus news has"):
        open_parts([place], held_out_samples=1000)


def _take(corpus: Corpus, num_steps: int, *, rank: int = 0, size: int = 1) -> list[list[list[int]]]:
    planner = StepPlanner(corpus.source.lengths, corpus.order, tokens=50)
    taken, position = [], Position()
    with Loader(
        corpus.source, planner, group_rank=rank, group_size=size, micro_tokens=25, layout="flat"
    ) as loader:
        for _ in range(num_steps):
            step = loader.load(position)
            taken.append([batch.inputs["input_ids"].tolist() for batch, _ in step.batches])
            position = step.plan.next
    return taken


def _largest_shards(corpus: Corpus, count: int) -> int:
    sizes = [
        sum(file.num_bytes for file in shard.files if not file.path.endswith(".documents"))
        for index in corpus.indexes for shard in index.shards
    ]  # fmt: skip
    return sum(sorted(sizes)[-count:])


def test_a_corpus_on_s3_is_the_same_sequence_in_a_bounded_cache(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_part(tmp_path / "corpus", 60, first_id=100)
    for path in folder.iterdir():
        storage.upload(path, storage.join(s3, path.name))
    real, most, num_fetched = storage.download, [0], [0]
    local = open_parts([CorpusPlace(name="a", uri=str(folder))], shuffle_shards=2)
    num_shards = len(local.indexes[0].shards)
    # Two windows, and the shard of the held-out samples that there are none of.
    cache_bytes = _largest_shards(local, 5)
    assert num_shards > 8

    def slow(uri: str, path: Path) -> None:
        time.sleep(0.005)
        num_fetched[0] += 1
        real(uri, path)
        cache = Path(os.environ["FSB_CACHE"]) / "shards"
        sizes = [
            file.stat().st_size
            for file in cache.glob("*")
            if file.name.isalnum() and file.is_file()
        ]
        most[0] = max(most[0], sum(sizes) if sizes else 0)

    monkeypatch.setattr(storage, "download", slow)
    streamed = open_parts(
        [CorpusPlace(name="a", uri=s3)], shuffle_shards=2, cache_bytes=cache_bytes
    )
    planner = StepPlanner(local.source.lengths, local.order, tokens=50)
    num_steps = planner.count_steps(2)
    assert _take(streamed, num_steps) == _take(local, num_steps)
    assert 0 < most[0] <= cache_bytes
    assert num_fetched[0] > 3 * num_shards  # in the second epoch what was removed comes again
    streamed.close()
    with pytest.raises(ConfigError, match=r"data.cache_bytes = 100: two windows .* raise it to"):
        open_parts([CorpusPlace(name="a", uri=s3)], shuffle_shards=2, cache_bytes=100)


def test_windows_shorter_than_what_is_looked_up_at_once_are_slow_not_stuck(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSB_S3_PATIENCE_SECONDS", "20")
    folder = write_part(tmp_path / "corpus", 20, first_id=100)
    for path in folder.iterdir():
        storage.upload(path, storage.join(s3, path.name))
    local = open_parts([CorpusPlace(name="a", uri=str(folder))], shuffle_shards=1)
    streamed = open_parts(
        [CorpusPlace(name="a", uri=s3)], shuffle_shards=1, cache_bytes=_largest_shards(local, 3)
    )
    assert _take(streamed, 30) == _take(local, 30)
    streamed.close()


def test_ranks_of_a_node_share_a_small_cache_and_finish(s3: str, tmp_path: Path) -> None:
    """One rank leads into the next window while the other holds the last one."""
    folder = write_part(tmp_path / "corpus", 40, first_id=100)
    for path in folder.iterdir():
        storage.upload(path, storage.join(s3, path.name))
    local = open_parts([CorpusPlace(name="a", uri=str(folder))], shuffle_shards=2)
    cache_bytes = _largest_shards(local, 5)
    taken: dict[int, list[list[list[int]]]] = {}

    def run(rank: int) -> None:
        corpus = open_parts(
            [CorpusPlace(name="a", uri=s3)], shuffle_shards=2, cache_bytes=cache_bytes
        )
        taken[rank] = _take(corpus, 100, rank=rank, size=2)
        corpus.close()

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
        assert not thread.is_alive()
    assert taken == {rank: _take(local, 100, rank=rank, size=2) for rank in (0, 1)}
