from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyfsb.data import shards as shards_module
from pyfsb.data.shards import INDEX_NAME, Shards, ShardWriter, check_vocabulary
from pyfsb.errors import CheckpointError, DataError

DOCUMENTS = st.lists(
    st.lists(st.tuples(st.integers(0, 65535), st.booleans()), min_size=1, max_size=30),
    min_size=1, max_size=20,
)  # fmt: skip


def _write(folder: Path, documents: list[list[tuple[int, bool]]], **options: int) -> Shards:
    settings = {"vocabulary_size": 65536, "max_tokens": 7, "shard_tokens": 40, **options}
    writer = ShardWriter(folder, **settings)
    for document in documents:
        ids = np.array([token for token, _ in document], dtype=np.int64)
        words = np.array([word for _, word in document])
        writer.add(ids, words, range(0, len(document), 7))
    writer.close("sha256:v")
    return Shards.open(folder, verify=True)


@given(documents=DOCUMENTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_samples_come_back_by_number(
    documents: list[list[tuple[int, bool]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    shards = _write(tmp_path_factory.mktemp("shards"), documents)
    expected = [doc[start : start + 7] for doc in documents for start in range(0, len(doc), 7)]
    assert len(shards) == len(expected)
    lengths = [len(sample) for sample in expected]
    assert shards.lengths_of(np.arange(len(expected))).tolist() == lengths
    assert shards.num_tokens == sum(lengths)
    for number in reversed(range(len(expected))):
        ids, words = shards.read(number)
        assert list(zip(ids.tolist(), words.tolist(), strict=True)) == expected[number]


@given(documents=DOCUMENTS, chosen=st.lists(st.integers(0, 10**6), max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_many_samples_come_end_to_end(
    documents: list[list[tuple[int, bool]]],
    chosen: list[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    shards = _write(tmp_path_factory.mktemp("shards"), documents)
    sample_ids = np.array([number % len(shards) for number in chosen], dtype=np.int64)
    ids, words, lengths = shards.read_many(sample_ids)
    alone = [shards.read(number) for number in sample_ids.tolist()]
    assert (
        lengths.tolist() == [own.size for own, _ in alone] == shards.lengths_of(sample_ids).tolist()
    )
    assert ids.tolist() == [token for own, _ in alone for token in own.tolist()]
    assert words.tolist() == [word for _, own in alone for word in own.tolist()]
    assert ids.dtype == np.dtype("<u2")
    assert words.dtype == np.bool_


def test_files_are_mapped_when_read_and_closed_again(tmp_path: Path) -> None:
    shards = _write(tmp_path, [[(number, True)] * 50 for number in range(6)])
    assert not shards._maps
    shards._max_maps = 6
    expected = [shards.read(number)[0].tolist() for number in range(len(shards))]
    assert len(shards._maps) == 6
    assert [shards.read(number)[0].tolist() for number in range(len(shards))] == expected
    shards.release({5})
    assert {shard for _, shard in shards._maps} == {5}
    assert shards.read(0)[0].tolist() == expected[0]


def test_few_files_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(1024, 4096)]
    monkeypatch.setattr("resource.getrlimit", lambda _: limits[-1])
    monkeypatch.setattr("resource.setrlimit", lambda _, pair: limits.append(pair))
    assert shards_module._allow_open_files(300) == 512
    assert shards_module._allow_open_files(30_000) == 4096 - 512
    assert limits == [(1024, 4096), (4096, 4096)]


def test_a_file_that_goes_away_is_named(tmp_path: Path) -> None:
    shards = _write(tmp_path, [[(1, True)] * 9])
    (tmp_path / "shard-00000.words").unlink()
    with pytest.raises(DataError, match="shard-00000.words: No such file"):
        shards.read(0)


def test_large_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    shards = _write(tmp_path, [[(128_000, True)]], vocabulary_size=200_000)
    assert shards.index.token_type == "uint32"
    assert shards.read(0)[0].tolist() == [128_000]


def test_the_index_counts(tmp_path: Path) -> None:
    shards = _write(tmp_path, [[(1, True)] * 20, [(2, True)] * 30, [(3, True)]])
    counts = [(s.num_tokens, s.num_documents, s.num_samples) for s in shards.index.shards]
    assert counts == [(50, 2, 8), (1, 1, 1)]
    ends = np.fromfile(tmp_path / "shard-00000.documents", dtype="<u8")
    assert ends.tolist() == [20, 50]


def test_no_document_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the corpus is empty"):
        _write(tmp_path, [])


def test_a_sample_beyond_the_end_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IndexError, match="sample 1 of 1"):
        _write(tmp_path, [[(1, True)]]).read(1)


def test_changed_and_missing_files_are_named(tmp_path: Path) -> None:
    _write(tmp_path, [[(1, True)] * 9])
    tokens = tmp_path / "shard-00000.tokens"
    data = bytearray(tokens.read_bytes())
    data[3] ^= 1
    tokens.write_bytes(data)
    with pytest.raises(DataError, match=r"shard-00000.tokens differs from the index"):
        Shards.open(tmp_path, verify=True)
    tokens.write_bytes(data[:-2])
    with pytest.raises(DataError, match=r"shard-00000.tokens differs"):
        Shards.open(tmp_path)
    tokens.unlink()
    with pytest.raises(DataError, match=r"shard-00000.tokens is missing"):
        Shards.open(tmp_path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, [[(1, True)]])
    index = tmp_path / INDEX_NAME
    index.write_text(index.read_text().replace('"format_version": 2', '"format_version": 3'))
    with pytest.raises(DataError, match="shard format 3, this version reads 1 and 2"):
        Shards.open(tmp_path)


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    shards = _write(tmp_path, [[(1, True)]])
    check_vocabulary(shards.index, "sha256:v", owner="the model")
    with pytest.raises(CheckpointError, match=r"vocabulary sha256:v, the model has sha256:w"):
        check_vocabulary(shards.index, "sha256:w", owner="the model")


def test_a_folder_of_the_first_format_opens_without_columns(tmp_path: Path) -> None:
    _write(tmp_path, [[(1, True), (2, False)]])
    index = json.loads((tmp_path / INDEX_NAME).read_text())
    assert index.pop("columns") == []
    (tmp_path / INDEX_NAME).write_text(json.dumps({**index, "format_version": 1}))
    shards = Shards.open(tmp_path, verify=True)
    assert shards.read(0)[0].tolist() == [1, 2]
    shards.require(())
    with pytest.raises(
        DataError, match=rf"{tmp_path} holds no column 'sentences' \(it has: none\)"
    ):
        shards.read_columns(np.array([0]), ["sentences"])


COLUMNS = ("sentences", "gaps", "knowledge")


@given(
    documents=st.lists(
        st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 255)), min_size=1,
                 max_size=30),
        min_size=1, max_size=12,
    ),
    chosen=st.lists(st.integers(0, 10**6), max_size=30),
)  # fmt: skip
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_columns_come_end_to_end(
    documents: list[list[tuple[bool, bool, int]]],
    chosen: list[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    writer = ShardWriter(
        folder, vocabulary_size=1000, max_tokens=7, shard_tokens=40, columns=COLUMNS
    )
    expected = []
    for document in documents:
        sentences, gaps, knowledge = (np.array(values) for values in zip(*document, strict=True))
        starts = range(0, len(document), 7)
        expected += [document[start : start + 7] for start in starts]
        writer.add(
            knowledge, sentences, starts,
            columns={"sentences": sentences, "gaps": gaps, "knowledge": knowledge.astype("u1")},
        )  # fmt: skip
    assert writer.close("sha256:v").columns == COLUMNS
    shards = Shards.open(folder, verify=True)
    sample_ids = np.array([number % len(shards) for number in chosen], dtype=np.int64)
    found = shards.read_columns(sample_ids, COLUMNS)
    whole = [values for number in sample_ids.tolist() for values in expected[number]]
    for place, name in enumerate(COLUMNS):
        assert found[name].tolist() == [values[place] for values in whole]
    assert found["knowledge"].dtype == np.uint8
    assert found["gaps"].dtype == np.bool_
    assert shards.read_columns(sample_ids, ["gaps"]).keys() == {"gaps"}


def test_a_missing_column_says_how_to_get_it(tmp_path: Path) -> None:
    writer = ShardWriter(
        tmp_path, vocabulary_size=10, max_tokens=7, shard_tokens=40, columns=["sentences"]
    )
    bits = np.array([True])
    writer.add(np.array([1]), bits, [0], columns={"sentences": bits})
    writer.close("sha256:v")
    with pytest.raises(DataError, match=r"it has: sentences.*with data.columns: \[gaps\]"):
        Shards.open(tmp_path).require(["sentences", "gaps"])
