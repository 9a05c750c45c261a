# SPDX-License-Identifier: Apache-2.0
"""The data stage: raw files to token shards and validated rows, each with its record.

    read → normalise → filter → deduplicate → (vocabulary) → segment and tokenise → cut → shards

Documents keep the order of files and lines whatever the number of worker processes, so the same
input gives the same bytes. Everything is written beside its place and moved there when complete.
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pyfsb import records, storage
from pyfsb.config import DataSpec, RunSpec, Stage, stage_hash
from pyfsb.config.run_spec import available_cores
from pyfsb.data import labelled, readers
from pyfsb.data.dedup import SeenTexts
from pyfsb.data.documents import Counts, Document, Rejected
from pyfsb.data.filters import drop_short
from pyfsb.data.normalizing import normalise_text
from pyfsb.data.own_rows import TRAIN_NAME, read_labelled
from pyfsb.data.segmenting import load_cutter
from pyfsb.data.shards import NUM_SPECIAL_TOKENS, ShardWriter
from pyfsb.data.tokenizing import DocumentTokenizer, cut_samples
from pyfsb.data.vocabulary import (
    read_vocabulary,
    train_vocabulary,
    vocabulary_digest,
    write_tokenizer,
)
from pyfsb.errors import ConfigError, DataError
from pyfsb.processes import die_with_parent
from pyfsb.records import CORPUS_FOLDER, LABELLED_FOLDER, DatasetRecord, FileEntry, Parent
from pyfsb.storage.workspace import Workspace

_BATCH_CHARACTERS = 400_000
_MAX_RAW_BYTES = 400

_log = logging.getLogger(__name__)
_Tokens: TypeAlias = tuple[NDArray[np.int32], NDArray[np.bool_], list[int]]


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
    partial = _partial_folder(workspace, LABELLED_FOLDER)
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
        inputs=_describe_inputs(inputs, [item.name for item in inputs]),
        num_read=num_kept + sum(found.dropped.values()),
        num_kept=num_kept,
        dropped=found.dropped,
        splits=found.splits,
        labels=found.task.labels,
        task=found.task.to_json(),
    )
    _publish(workspace, partial, LABELLED_FOLDER, record)
    _log.info(
        "%s: %d training rows, %d held out, dropped: %s",
        found.task.name, found.splits["train"], found.splits["held_out"], found.dropped or "none",
    )  # fmt: skip
    return record


def _prepare_corpus(spec: RunSpec, workspace: Workspace) -> DatasetRecord:
    """Make the token shards of the corpus."""
    started, data = time.monotonic(), spec.data
    names = readers.find_files(data.root, data.corpus)
    paths = [readers.local_path(data.root, name) for name in names]
    extra = _train_texts(workspace) if data.corpus_includes_train else []
    partial = _partial_folder(workspace, CORPUS_FOLDER)
    pieces = _load_vocabulary(data, lambda: _kept_texts(data, names, paths, extra, Counts(), None))
    write_tokenizer(pieces, partial / "tokenizer", lowercase=data.vocabulary.lowercase)
    parents, vocabulary = _links(workspace, data), _vocabulary_inputs(data)
    counts = Counts()
    with (partial / "rejected.jsonl").open("wb") as rejected:
        texts = _kept_texts(data, names, paths, extra, counts, rejected)
        num_words, num_empty = _write_shards(texts, pieces, data, partial)
    counts.num_kept -= num_empty
    counts.dropped["no_tokens"] += num_empty
    counts.check()
    files = [path for path in partial.rglob("*") if path.is_file()]
    index = json.loads((partial / "index.json").read_text())
    num_documents = sum(shard["num_documents"] for shard in index["shards"])
    if num_documents != counts.num_kept:
        raise DataError(f"{num_documents} documents in the shards, {counts.num_kept} were kept")
    record = DatasetRecord(
        run=spec.name,
        created_at=records.now(),
        seconds=time.monotonic() - started,
        config_hash=stage_hash(spec, Stage.DATA),
        seeds=(spec.seed,),
        parents=parents,
        form="corpus",
        files=records.describe_files(partial, files),
        inputs=(*_describe_inputs(paths, names), *vocabulary),
        num_read=counts.num_read,
        num_kept=counts.num_kept,
        dropped={reason: n for reason, n in sorted(counts.dropped.items()) if n},
        num_tokens=sum(shard["num_tokens"] for shard in index["shards"]),
        num_samples=sum(shard["num_samples"] for shard in index["shards"]),
        num_words=num_words,
        vocabulary_size=len(pieces),
        vocabulary_digest=vocabulary_digest(pieces),
    )
    _publish(workspace, partial, CORPUS_FOLDER, record)
    _log.info(
        "corpus: %d of %d documents kept, %d tokens, dropped: %s",
        record.num_kept, record.num_read, record.num_tokens, record.dropped or "none",
    )  # fmt: skip
    return record


def _kept_texts(
    data: DataSpec,
    names: Sequence[str],
    paths: Sequence[Path],
    extra: Sequence[str],
    counts: Counts,
    rejected: BinaryIO | None,
) -> Iterator[str]:
    """Yield the normalised documents that stay, counting the others by reason."""
    drop_reason, seen = drop_short(data.min_characters), SeenTexts()
    for item in _read_all(data, names, paths, extra):
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


def _vocabulary_inputs(data: DataSpec) -> tuple[FileEntry, ...]:
    if not data.vocabulary.file:
        return ()
    path = readers.local_path("", data.vocabulary.file)
    return _describe_inputs([path], [path.name])


def _load_vocabulary(data: DataSpec, texts: Callable[[], Iterator[str]]) -> list[str]:
    if data.vocabulary.file:
        return read_vocabulary(storage.read_text(data.vocabulary.file), source=data.vocabulary.file)
    return train_vocabulary(texts(), size=data.vocabulary.size, lowercase=data.vocabulary.lowercase)


def _write_shards(
    texts: Iterator[str], pieces: Sequence[str], data: DataSpec, folder: Path
) -> tuple[int, int]:
    """Tokenise in worker processes, write in order.

    Returns:
        The number of words, and of documents that hold no token.
    """
    max_tokens = data.max_tokens - NUM_SPECIAL_TOKENS
    writer = ShardWriter(
        folder,
        vocabulary_size=len(pieces),
        max_tokens=max_tokens,
        shard_tokens=data.shard_tokens,
    )
    num_words = num_empty = 0
    for batch in _tokenized(_batches(texts), pieces, data, max_tokens):
        for ids, words, sample_starts in batch:
            if ids.size:
                writer.add(ids, words, sample_starts)
                num_words += int(words.sum())
            else:
                num_empty += 1
    writer.close(vocabulary_digest(pieces))
    return num_words, num_empty


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    num_characters = 0
    for text in texts:
        batch.append(text)
        num_characters += len(text)
        if num_characters >= _BATCH_CHARACTERS:
            yield batch
            batch, num_characters = [], 0
    if batch:
        yield batch


def _tokenized(
    batches: Iterator[list[str]], pieces: Sequence[str], data: DataSpec, max_tokens: int
) -> Iterator[list[_Tokens]]:
    """Yield the tokens of each batch in order, a bounded number of batches ahead."""
    settings = (list(pieces), data.vocabulary.lowercase, data.segmenter, max_tokens)
    num_processes = data.num_processes or available_cores()
    if num_processes == 1:
        _start_worker(*settings)
        yield from map(_tokenize_batch, batches)
        return
    with ProcessPoolExecutor(
        num_processes, initializer=_start_quiet_worker, initargs=settings
    ) as pool:
        waiting: deque[Future[list[_Tokens]]] = deque()
        for batch in batches:
            waiting.append(pool.submit(_tokenize_batch, batch))
            if len(waiting) > 2 * num_processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _start_quiet_worker(*settings: object) -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _start_worker(*settings)  # type: ignore[arg-type]


def _start_worker(pieces: list[str], lowercase: bool, segmenter: str, max_tokens: int) -> None:
    global _worker
    tokenizer = DocumentTokenizer(pieces, lowercase=lowercase, cut=load_cutter(segmenter))
    _worker = (tokenizer, max_tokens)


_worker: tuple[DocumentTokenizer, int]


def _tokenize_batch(texts: list[str]) -> list[_Tokens]:
    tokenizer, max_tokens = _worker
    documents = tokenizer.tokenize_batch(texts)
    return [
        (document.ids, document.word_starts, cut_samples(document, max_tokens))
        for document in documents
    ]


def _partial_folder(workspace: Workspace, name: str) -> Path:
    """Return an empty folder beside the final one; what an earlier, killed run left is removed."""
    partial = workspace.path / f".partial-{name}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    except OSError as exc:
        raise storage.explain_os_error(exc, str(partial), "make") from exc
    return partial


def _publish(workspace: Workspace, partial: Path, name: str, record: DatasetRecord) -> None:
    """Move a complete folder to its place, its record last."""
    final = workspace.path / name
    shutil.rmtree(final, ignore_errors=True)
    if workspace.is_mirror:
        partial.rename(final)
        workspace.push([final])
        records.write_record(record, storage.join(workspace.uri, name))
    else:
        records.write_record(record, str(partial))
        partial.rename(final)


def _describe_inputs(paths: Sequence[Path], names: Sequence[str]) -> tuple[FileEntry, ...]:
    return tuple(
        FileEntry(path=name, num_bytes=path.stat().st_size, xxh3=records.hash_file(path))
        for name, path in zip(names, paths, strict=True)
    )
