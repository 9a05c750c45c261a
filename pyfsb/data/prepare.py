# SPDX-License-Identifier: Apache-2.0
"""The data stage: raw files to token shards and validated rows, each with its record.

    read → normalise → filter → deduplicate → (vocabulary) → segment and tokenise → cut → shards

Documents keep the order of files and lines whatever the number of worker processes, so the same
input gives the same bytes. Everything is written beside its place and moved there when complete.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pyfsb import records, storage
from pyfsb.config import DataSpec, RunSpec, Stage, stage_hash
from pyfsb.data import labelled, readers
from pyfsb.data.corpus_shards import Written, write_ngrams, write_shards
from pyfsb.data.corpus_tokenizer import ChosenTokenizer, choose_tokenizer, write_chosen
from pyfsb.data.dedup import SeenTexts
from pyfsb.data.documents import Counts, Document, Rejected
from pyfsb.data.filters import drop_short
from pyfsb.data.folders import describe_inputs, make_partial, publish
from pyfsb.data.knowledge_report import write_report
from pyfsb.data.normalizing import normalise_text
from pyfsb.data.own_rows import TRAIN_NAME, read_labelled
from pyfsb.data.row_sets import prepare_rows
from pyfsb.data.tokenizer_files import FILES
from pyfsb.data.vocabulary import vocabulary_digest
from pyfsb.data.wanted import complete_data
from pyfsb.errors import ConfigError, DataError
from pyfsb.records import (
    CORPUS_FOLDER,
    LABELLED_FOLDER,
    ROWS_FOLDER,
    DatasetRecord,
    FileEntry,
    Parent,
)
from pyfsb.seeding import uniform
from pyfsb.storage.workspace import Workspace

_MAX_RAW_BYTES = 400
_DRAWS = 4096
"""Documents whose choice is drawn at a time."""

_log = logging.getLogger(__name__)


def prepare(spec: RunSpec) -> list[DatasetRecord]:
    """Run the data stage of a spec; what is complete is kept.

    Returns:
        The record of the labelled rows (if `data.train` is set), then that of the corpus.

    Raises:
        DataError: A file is missing or wrong, or nothing is left of the corpus.
        StorageError: The output cannot be written.
    """
    workspace = Workspace(spec.output_of(Stage.DATA))
    made: list[DatasetRecord] = []
    if spec.has_labelled_rows:
        made.append(_complete(workspace, LABELLED_FOLDER) or _prepare_labelled(spec, workspace))
    if spec.data.rows:
        made.append(_complete(workspace, ROWS_FOLDER) or prepare_rows(spec, workspace))
    if spec.data.corpus:
        made.append(_complete(workspace, CORPUS_FOLDER) or _prepare_corpus(spec, workspace))
    return made


def _complete(workspace: Workspace, name: str) -> DatasetRecord | None:
    record = records.find_record(storage.join(workspace.uri, name))
    return record if isinstance(record, DatasetRecord) else None


def _prepare_labelled(spec: RunSpec, workspace: Workspace) -> DatasetRecord:
    """Validate the user's rows, split them and write them down."""
    started = time.monotonic()
    found = read_labelled(spec)
    partial = make_partial(workspace, LABELLED_FOLDER)
    for name, rows in found.files.items():
        (partial / name).parent.mkdir(exist_ok=True)
        labelled.write_examples(rows, partial / name)
    inputs = [readers.local_path("", uri) for uri in spec.labelled_files]
    num_kept = sum(len(rows) for rows in found.files.values())
    record = DatasetRecord(
        run=spec.name,
        created_at=records.now(),
        seconds=time.monotonic() - started,
        config_hash=stage_hash(spec, Stage.DATA),
        seeds=(spec.seed,),
        form="labelled",
        files=records.describe_files(partial, partial.rglob("*.jsonl")),
        inputs=describe_inputs(inputs, [item.name for item in inputs]),
        num_read=num_kept + sum(found.dropped.values()),
        num_kept=num_kept,
        dropped=found.dropped,
        splits=found.splits,
        labels=found.task.labels,
        task=found.task.to_json(),
    )
    publish(workspace, partial, LABELLED_FOLDER, record)
    _log.info(
        "%s: %d training rows, %d held out, dropped: %s",
        found.task.name, found.splits["train"], found.splits["held_out"], found.dropped or "none",
    )  # fmt: skip
    return record


def _prepare_corpus(spec: RunSpec, workspace: Workspace) -> DatasetRecord:
    """Make the token shards of the corpus."""
    started, data = time.monotonic(), complete_data(spec)
    names = readers.find_files(data.root, data.corpus)
    corpus = _Corpus(
        data=data,
        names=names,
        paths=[readers.local_path(data.root, name) for name in names],
        extra=_train_texts(workspace) if data.corpus_includes_train else [],
        seed=spec.seed,
    )
    partial = make_partial(workspace, CORPUS_FOLDER)
    chosen = choose_tokenizer(
        data, corpus.texts, lambda: corpus.sample(data.vocabulary.sample_bytes)
    )
    write_chosen(chosen, partial / "tokenizer")
    counts = Counts()
    with (partial / "rejected.jsonl").open("wb") as rejected:
        texts = corpus.kept(counts, rejected)
        written = write_shards(texts, chosen, data, partial, counted=corpus.sample)
    if data.ngrams:
        num_ngrams = write_ngrams(
            partial, chosen, data.ngrams, kind=data.ngrams.kind or "zen2", seed=spec.seed
        )
        _log.info("lexicon: %d n-grams", num_ngrams)
    write_report(spec, chosen, partial)
    counts.num_kept -= written.num_empty
    counts.dropped["no_tokens"] += written.num_empty
    counts.check()
    record = _describe_corpus(spec, corpus, chosen, written, counts, partial).model_copy(
        update={"parents": _links(workspace, data), "seconds": time.monotonic() - started}
    )
    publish(workspace, partial, CORPUS_FOLDER, record)
    _log.info(
        "corpus: %d of %d documents kept, %d tokens, dropped: %s",
        record.num_kept, record.num_read, record.num_tokens, record.dropped or "none",
    )  # fmt: skip
    return record


def _describe_corpus(
    spec: RunSpec,
    corpus: _Corpus,
    chosen: ChosenTokenizer,
    written: Written,
    counts: Counts,
    partial: Path,
) -> DatasetRecord:
    """Return the record of a folder that is complete but for it."""
    index = json.loads((partial / "index.json").read_text())
    num_documents = sum(shard["num_documents"] for shard in index["shards"])
    if num_documents != counts.num_kept:
        raise DataError(f"{num_documents} documents in the shards, {counts.num_kept} were kept")
    files = [path for path in partial.rglob("*") if path.is_file()]
    inputs = describe_inputs(corpus.paths, corpus.names)
    return DatasetRecord(
        run=spec.name,
        created_at=records.now(),
        seconds=0.0,
        config_hash=stage_hash(spec, Stage.DATA),
        seeds=(spec.seed,),
        form="corpus",
        files=records.describe_files(partial, files),
        inputs=(*inputs, *_vocabulary_inputs(corpus.data, chosen)),
        num_read=counts.num_read,
        num_kept=counts.num_kept,
        dropped={reason: n for reason, n in sorted(counts.dropped.items()) if n},
        num_tokens=sum(shard["num_tokens"] for shard in index["shards"]),
        num_samples=sum(shard["num_samples"] for shard in index["shards"]),
        num_words=written.num_words,
        vocabulary_size=len(chosen.pieces),
        vocabulary_digest=vocabulary_digest(chosen.pieces),
        tokenizer=chosen.parts.kind,
        columns=written.columns,
        base_vocabulary_digest=chosen.base_digest,
        num_new_pieces=len(chosen.new_pieces),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Corpus:
    """The raw files of a corpus, read as often as is needed."""

    data: DataSpec
    names: list[str]
    paths: list[Path]
    extra: list[str]
    """Texts on top: of the labelled training rows."""
    seed: int

    def texts(self) -> Iterator[str]:
        """Yield the normalised documents that stay."""
        return self.kept(Counts(), None)

    def sample(self, num_bytes: int) -> Iterator[str]:
        """Yield those of them that make up about so many bytes of the files, by the seed."""
        share = num_bytes / max(1, sum(path.stat().st_size for path in self.paths))
        for number, text in enumerate(self.texts()):
            place = number % _DRAWS
            if place == 0:
                is_chosen = uniform(self.seed, np.arange(number, number + _DRAWS)) < share
            if is_chosen[place]:
                yield text

    def kept(self, counts: Counts, rejected: BinaryIO | None) -> Iterator[str]:
        """Yield the normalised documents that stay, counting the others by reason."""
        drop_reason, seen = drop_short(self.data.min_characters), SeenTexts()
        for item in _read_all(self.data, self.names, self.paths, self.extra):
            counts.num_read += 1
            if isinstance(item, Rejected):
                counts.drop(item.reason)
                _set_aside(item, rejected)
                continue
            text = normalise_text(item.text)
            reason = drop_reason(text) or (None if seen.is_new(text) else "duplicate")
            if reason:
                counts.drop(reason)
                continue
            counts.num_kept += 1
            yield text


def _read_all(
    data: DataSpec, names: Sequence[str], paths: Sequence[Path], extra: Sequence[str]
) -> Iterator[Document | Rejected]:
    for name, path in zip(names, paths, strict=True):
        yield from readers.read_documents(
            path, source=name, text_field=data.text_field, txt_documents=data.txt_documents
        )
    for number, text in enumerate(extra, start=1):
        yield Document(text=text, source="data.train", line_number=number)


def _set_aside(item: Rejected, file: BinaryIO | None) -> None:
    if file is not None:
        raw = item.raw[:_MAX_RAW_BYTES].decode("utf-8", "backslashreplace")
        row = {"file": item.source, "line": item.line_number, "reason": item.reason, "raw": raw}
        file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def _train_texts(workspace: Workspace) -> list[str]:
    """Return the texts of the labelled training rows; held-out texts stay unseen."""
    record = _complete(workspace, LABELLED_FOLDER)
    if record is None:
        raise ConfigError("data.corpus_includes_train is true, but data.train is not set")
    folder = workspace.pull(LABELLED_FOLDER) / LABELLED_FOLDER
    names = [file.path for file in record.files if file.path.endswith(TRAIN_NAME)]
    rows = (row for name in names for row in labelled.load_examples(folder / name))
    texts = [text for row in rows for text in (row.text, row.text_pair) if text]
    return list(dict.fromkeys(texts))


def _links(workspace: Workspace, data: DataSpec) -> tuple[Parent, ...]:
    """Return the link to the labelled rows if their texts are part of the corpus."""
    if not data.corpus_includes_train:
        return ()
    uri = storage.join(workspace.uri, LABELLED_FOLDER)
    base = storage.join(workspace.uri, CORPUS_FOLDER)
    return (records.link(records.read_record(uri), uri, base=base, root=workspace.uri),)


def _vocabulary_inputs(data: DataSpec, chosen: ChosenTokenizer) -> tuple[FileEntry, ...]:
    if chosen.source is not None:
        found = [chosen.source / name for name in FILES if (chosen.source / name).is_file()]
        own = [path for path in found if path.name != "config.json"]  # of the model, not of this
        return describe_inputs(own, [f"tokenizer/{path.name}" for path in own])
    if not data.vocabulary.file:
        return ()
    path = readers.local_path("", data.vocabulary.file)
    return describe_inputs([path], [path.name])
