from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pyfsb import records
from pyfsb.config import RunSpec, resolve_spec
from pyfsb.data.prepare import prepare
from pyfsb.data.shards import Shards
from pyfsb.errors import CheckpointError, DataError
from tests.helpers.specs import tiny_spec

GOOD = ["今天天气很好，我们去公园玩。", "机器学习需要很多数据。", "他说：“走吧。”于是大家都走了。"]


def _spec(tmp_path: Path, **changes: Any) -> RunSpec:
    fields = {"data__root": str(tmp_path), "data__corpus": ["*.jsonl"], **changes}
    return resolve_spec(yaml.safe_dump(tiny_spec(fields.pop("output", tmp_path / "out"), **fields)))


def _write(path: Path, texts: list[str]) -> None:
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_counts_add_up_and_reasons_are_told(tmp_path: Path) -> None:
    _write(tmp_path / "a.jsonl", [*GOOD, GOOD[0] + " ", "短", ""])
    with (tmp_path / "a.jsonl").open("ab") as file:
        file.write(b"{bad\n\xff\xfe\n")
    record = prepare(_spec(tmp_path))[0]
    assert (record.num_read, record.num_kept) == (8, 3)
    assert record.dropped == {
        "duplicate": 1, "empty": 1, "not_json": 1, "not_utf8": 1, "too_short": 1,
    }  # fmt: skip
    rejected = (tmp_path / "out/data/corpus/rejected.jsonl").read_text().splitlines()
    assert [(row["file"], row["line"]) for row in map(json.loads, rejected)] == [
        ("a.jsonl", 7), ("a.jsonl", 8),
    ]  # fmt: skip
    assert record.inputs[0].path == "a.jsonl"
    records.verify_files(record.files, tmp_path / "out/data/corpus")


def test_the_number_of_processes_does_not_matter(tmp_path: Path) -> None:
    _write(tmp_path / "a.jsonl", [f"{text}第{n}次。" * 40 for n in range(60) for text in GOOD])
    digests = set()
    for count in (1, 3):
        spec = _spec(tmp_path, output=str(tmp_path / f"out{count}"), data__num_processes=count)
        digests.add(prepare(spec)[0].digest)
    assert len(digests) == 1


def test_tokens_are_those_of_the_texts(tmp_path: Path) -> None:
    _write(tmp_path / "a.jsonl", GOOD)
    prepare(_spec(tmp_path))
    folder = tmp_path / "out/data/corpus"
    pieces = (folder / "tokenizer/vocab.txt").read_text(encoding="utf-8").split("\n")
    shards = Shards.open(folder, verify=True)
    texts = ["".join(pieces[token] for token in shards.read(n)[0]) for n in range(len(shards))]
    assert texts == GOOD


def test_what_is_complete_is_kept(tmp_path: Path) -> None:
    _write(tmp_path / "a.jsonl", GOOD)
    first = prepare(_spec(tmp_path))[0]
    (tmp_path / "a.jsonl").unlink()
    assert prepare(_spec(tmp_path))[0] == first


def test_a_killed_run_leaves_nothing_that_counts(tmp_path: Path) -> None:
    partial = tmp_path / "out/data/.partial-corpus"
    partial.mkdir(parents=True)
    (partial / "shard-00000.tokens").write_bytes(b"half")
    _write(tmp_path / "a.jsonl", GOOD)
    record = prepare(_spec(tmp_path))[0]
    assert record.num_kept == 3
    assert not partial.exists()


def test_an_empty_corpus_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    _write(tmp_path / "a.jsonl", ["", "短"])
    with pytest.raises(DataError, match="holds no text"):
        prepare(_spec(tmp_path))
    assert records.find_record(str(tmp_path / "out/data/corpus")) is None


def test_a_given_vocabulary_is_used(tmp_path: Path) -> None:
    _write(tmp_path / "a.jsonl", GOOD)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n今\n天\n")
    record = prepare(_spec(tmp_path, data__vocabulary={"file": str(tmp_path / "vocab.txt")}))[0]
    assert record.vocabulary_size == 7
    shards = Shards.open(tmp_path / "out/data/corpus")
    assert shards.read(0)[0][:4].tolist() == [5, 6, 6, 1]


def test_a_file_that_is_no_vocabulary_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "a.jsonl", GOOD)
    with pytest.raises(DataError, match="not a WordPiece vocabulary"):
        prepare(_spec(tmp_path, data__vocabulary={"file": str(tmp_path / "a.jsonl")}))


def test_own_rows_are_split_and_their_training_texts_may_join_the_corpus(tmp_path: Path) -> None:
    _write(tmp_path / "a.jsonl", GOOD)
    rows = "".join(f"这是第{n}条训练文本,{'正负'[n % 2]}\n" for n in range(40))
    (tmp_path / "mine.csv").write_text("text,label\n" + rows, encoding="utf-8")
    spec = _spec(tmp_path, data__train=str(tmp_path / "mine.csv"), data__corpus_includes_train=True)
    labelled, corpus = prepare(spec)
    assert labelled.splits == {"train": 16, "held_out": 24}
    assert labelled.labels == ("正", "负")
    assert corpus.num_kept == 3 + 16


def test_given_held_out_rows_are_taken_as_they_are(tmp_path: Path) -> None:
    _write(tmp_path / "a.jsonl", GOOD)
    for name, count in (("train", 6), ("test", 4)):
        rows = "".join(f"{name}{n},{n % 2}\n" for n in range(count))
        (tmp_path / f"{name}.csv").write_text("text,label\n" + rows)
    spec = _spec(
        tmp_path, data__train=str(tmp_path / "train.csv"), data__test=str(tmp_path / "test.csv")
    )
    assert prepare(spec)[0].splits == {"train": 6, "held_out": 4}


def test_wrong_rows_stop_before_the_corpus_is_read(tmp_path: Path) -> None:
    _write(tmp_path / "a.jsonl", GOOD)
    (tmp_path / "mine.csv").write_text("text,label\n好,正\n坏,负\n中,?\n", encoding="utf-8")
    spec = _spec(
        tmp_path, data__train=str(tmp_path / "mine.csv"), data__task={"labels": ["正", "负"]}
    )
    with pytest.raises(DataError, match=r"mine.csv: 1 wrong rows:\s+line 4: label = '\?'"):
        prepare(spec)
    assert not (tmp_path / "out/data").exists() or not list((tmp_path / "out/data").iterdir())


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    _write(tmp_path / "a.jsonl", GOOD)
    record = prepare(_spec(tmp_path))[0]
    path = tmp_path / "out/data/corpus/shard-00000.tokens"
    data = np.fromfile(path, dtype=np.uint8)
    data[1] ^= 4
    data.tofile(path)
    with pytest.raises(CheckpointError, match=r"shard-00000.tokens differs"):
        records.verify_files(record.files, tmp_path / "out/data/corpus")


def test_documents_without_a_token_are_counted(tmp_path: Path) -> None:
    texts = ["第一篇文章的文字", "\ue000" * 6, "第二篇文章的文字"]
    (tmp_path / "raw.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8"
    )
    changes = {"data__root": str(tmp_path), "data__corpus": ["raw.jsonl"]}
    (record,) = prepare(resolve_spec(yaml.safe_dump(tiny_spec(tmp_path / "out", **changes))))
    assert (record.num_read, record.num_kept, record.dropped) == (3, 2, {"no_tokens": 1})
