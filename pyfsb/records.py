# SPDX-License-Identifier: Apache-2.0
"""Records: the small JSON files that stages hand to each other.

A record is written last, so its presence means "complete". It carries its files' digests, the hash
of its settings, and links to the records it was made from. Its own digest covers content only:
without times, places and names, the same work gives the same digest. Stages write, engines read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, TypeAlias

import xxhash
from pydantic import Field, TypeAdapter, ValidationError

from pyfsb import __version__, storage
from pyfsb.consumption import ResourceUse
from pyfsb.errors import CheckpointError, DataError
from pyfsb.schema import Json, Schema, canonical_json

RECORD_NAME: Final = "record.json"
MODEL_FOLDER: Final = "model"  # of a CheckpointRecord, what `from_pretrained` loads
CORPUS_FOLDER: Final = "corpus"
LABELLED_FOLDER: Final = "labelled"
ROWS_FOLDER: Final = "rows"
"""Sub-folders of the data stage, a DatasetRecord in each."""
WEIGHTS_KIND: Final = "ModelFolder"  # kind of a parent that is a folder without a record
_WEIGHT_FILES: Final = ("*.json", "*.safetensors", "*.txt", "*.model")


class FileEntry(Schema):
    """One file that belongs to a record."""

    path: str
    """Relative to the record's folder."""
    num_bytes: int
    """Size in bytes."""
    xxh3: str
    """Hexadecimal xxh3-128 of the bytes."""


class Parent(Schema):
    """A link to a record, or to a Hugging Face folder, that this one was made from."""

    kind: str
    """Kind of that record; `ModelFolder` for a folder without one."""
    uri: str
    """Its folder: relative inside one run, absolute otherwise."""
    digest: str
    """Its digest when it was read (of a folder: `describe_weights`)."""


class BaseRecord(Schema):
    """What all records share."""

    schema_version: Literal[1] = 1
    """Raised when a field changes its meaning."""
    run: str
    """Name of the run that wrote it."""
    created_at: str
    """UTC time of writing, ISO 8601."""
    seconds: float
    """Wall time of the work."""
    platform_version: str = __version__
    """Version of pyfsb that did the work."""
    config_hash: str
    """Digest of the settings the result depends on (`pyfsb.config.stage_hash`)."""
    seeds: tuple[int, ...]
    """Seeds of the random choices."""
    parents: tuple[Parent, ...] = ()
    """The records this one was made from."""
    files: tuple[FileEntry, ...] = ()
    """The files that belong to it."""

    NOT_CONTENT: ClassVar[frozenset[str]] = frozenset(
        {"run", "created_at", "seconds", "platform_version", "files", "parents"}
    )

    @property
    def digest(self) -> str:
        """`sha256:` over the content: fields, file hashes and the parents' digests."""
        content = self.model_dump(mode="json", exclude=set(self.NOT_CONTENT))
        content["parents"] = [[parent.kind, parent.digest] for parent in self.parents]
        content["files"] = [[file.path, file.xxh3] for file in self.files]
        return "sha256:" + hashlib.sha256(canonical_json(content).encode()).hexdigest()


class DatasetRecord(BaseRecord):
    """Token shards of a corpus, or validated rows of a labelled set."""

    kind: Literal["DatasetRecord"] = "DatasetRecord"
    """Which record this is."""
    form: Literal["corpus", "labelled", "rows"]
    """corpus: token shards; labelled: rows with labels; rows: those of a row objective."""
    inputs: tuple[FileEntry, ...]
    """The files that were read, paths relative to data.root."""
    num_read: int
    """Documents or rows found in the inputs."""
    num_kept: int
    """Those that are in the result."""
    dropped: dict[str, int]
    """Those that are not, by reason; num_read = num_kept + their sum."""
    num_tokens: int = 0
    """Tokens in the shards, special tokens not counted."""
    num_samples: int = 0
    """Training samples the shards are cut into."""
    num_words: int = 0
    """Words the segmenter found."""
    vocabulary_size: int = 0
    """Pieces of the vocabulary."""
    vocabulary_digest: str = ""
    """sha256 of the pieces as canonical JSON; a checkpoint with another one does not fit."""
    tokenizer: str = "wordpiece"
    """Kind of the tokenizer: wordpiece, unigram, byte_bpe, jieba_wordpiece, or other."""
    columns: tuple[str, ...] = ()
    """What the shards hold of each token beside id and word bit."""
    base_vocabulary_digest: str = ""
    """Of an extended vocabulary: that of the pieces before."""
    num_new_pieces: int = 0
    """Pieces put behind those."""
    splits: dict[str, int] = {}
    """Rows of each split of a labelled set."""
    labels: tuple[str, ...] = ()
    """Label set of a labelled set."""
    task: Json = {}
    """The task of a labelled set (`pyfsb.config.TaskSpec`)."""


class CheckpointRecord(BaseRecord):
    """Weights that `from_pretrained` loads, in the sub-folder `model/`."""

    NOT_CONTENT: ClassVar[frozenset[str]] = BaseRecord.NOT_CONTENT | {"resources"}
    kind: Literal["CheckpointRecord"] = "CheckpointRecord"
    """Which record this is."""
    model: str
    """Name of the registry entry."""
    architecture: str
    """Transformers' `model_type`, or `ngram`."""
    family: str
    """What the model takes and gives (`pyfsb.config.Family`)."""
    objective: str
    """What it was trained on: an objective, or `finetune`."""
    task: str | None = None
    """The task it was fine-tuned for."""
    labels: tuple[str, ...] = ()
    """Labels in the order of the model's outputs."""
    num_parameters: int
    """Parameters, tied ones once."""
    step: int
    """Optimizer steps taken."""
    num_samples: int
    """Samples seen, repeats counted."""
    num_tokens: int
    """Tokens seen, repeats counted, padding not."""
    loss: float | None
    """Mean loss over the last tenth of the steps, in nats per target; None without steps."""
    max_tokens: int
    """Tokens of an input at most, special ones included; of an n-gram model characters."""
    vocabulary_digest: str
    """sha256 of the pieces as canonical JSON."""
    resources: ResourceUse | None = None
    """What the training took; not part of the digest. None for a model that took no training."""


class Score(Schema):
    """One runner's result on one task."""

    task: str
    """Name of the task."""
    task_version: str
    """Version of the task's definition."""
    runner: str
    """`finetune` or `ngram`."""
    metric: str
    """What `value` is: accuracy, or exact-match rows of a tagging task."""
    value: float
    """Share of correct rows among those without overlap, mean over the seeds."""
    num_rows: int
    """Held-out rows that share nothing with training rows; what value is about."""
    num_correct: int
    """Correct ones of them, first seed."""
    interval: tuple[float, float]
    """95 % Wilson interval of the first seed's value."""
    seeds: tuple[int, ...]
    """Seeds of the fine-tunings."""
    seed_values: tuple[float, ...]
    """Value of each seed."""
    majority_label: str
    """Most frequent label of the scored rows; tagging: `no entities` or `known entities`."""
    majority_value: float
    """Share of rows right by always answering it; tagging: by the better of the two."""
    p_value: float
    """One-sided exact binomial test that the first seed is not above the majority."""
    value_all_rows: float
    """First seed's value on every labelled held-out row, overlap included."""
    num_all_rows: int
    """Those rows."""
    num_overlap: int
    """Held-out rows left out because their text (or template) is in the training rows."""
    num_train: int
    """Training rows."""
    num_excluded: int
    """Rows without a valid gold label, such as OCNLI's `-`; in neither count."""
    num_truncated: int
    """Held-out rows cut to the maximum length."""
    is_degenerate: bool
    """More than 95 % of the answers are one label."""
    details: dict[str, float] = {}
    """Further metrics, such as macro_f1 or entity_f1."""
    checkpoint: str
    """Folder of the scored model, relative to the report."""
    checkpoint_digest: str
    """Its digest."""
    split_hash: str
    """xxh3-128 of the scored file."""
    seconds: float
    """Wall time of training and scoring."""


class GateResult(Schema):
    """Whether a score allows serving, and why."""

    task: str
    """Task that was judged."""
    runner: str
    """Whose score was judged."""
    has_passed: bool
    """True: it may be served."""
    reason: str
    """The figures behind the decision, in words."""
    p_value: float
    """The p-value that was compared, times the number of runners when the best one was chosen."""


class EvalReport(BaseRecord):
    """All scores of one run."""

    kind: Literal["EvalReport"] = "EvalReport"
    """Which record this is."""
    NOT_CONTENT: ClassVar[frozenset[str]] = BaseRecord.NOT_CONTENT | {"scores"}
    model: str
    """Name of the registry entry."""
    num_parameters: int
    """Parameters of the evaluated model."""
    scores: tuple[Score, ...]
    """One row a task and runner."""
    gate: GateResult
    """The decision about the served task."""
    example: Json
    """A held-out row of that task: text, text_pair and gold, to ask the served model."""

    @property
    def digest(self) -> str:
        """As for every record; the seconds of the scores do not count."""
        rows = [score.model_dump(mode="json", exclude={"seconds"}) for score in self.scores]
        text = super().digest + canonical_json(rows)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


class ServingRecord(BaseRecord):
    """A model that answered over HTTP."""

    kind: Literal["ServingRecord"] = "ServingRecord"
    """Which record this is."""
    NOT_CONTENT: ClassVar[frozenset[str]] = BaseRecord.NOT_CONTENT | {"endpoint", "is_running"}
    endpoint: str
    """URL of the V2 inference call."""
    model_name: str
    """Name of the model: its task's; on one machine also its name in the URL."""
    task: str
    """Task it was trained for."""
    runner: str
    """Whose model is served."""
    gate: GateResult
    """The decision that allowed it."""
    question: Json
    """The input that was asked."""
    answer: Json
    """What the server answered."""
    is_running: bool
    """True: left running at the end of the run; False: stopped after the answer."""


Record: TypeAlias = Annotated[
    DatasetRecord | CheckpointRecord | EvalReport | ServingRecord, Field(discriminator="kind")
]
_RECORDS: TypeAdapter[Record] = TypeAdapter(Record)


def now() -> str:
    """Return the current UTC time for `created_at`."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def hash_file(path: Path) -> str:
    """Return the hexadecimal xxh3-128 of a file."""
    state = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def hash_bytes(data: bytes) -> str:
    """Return the hexadecimal xxh3-128 of bytes."""
    return xxhash.xxh3_128(data).hexdigest()


def describe_files(folder: Path, paths: Iterable[Path]) -> tuple[FileEntry, ...]:
    """Return entries of files below a record's folder, sorted by path."""
    return tuple(
        FileEntry(
            path=path.relative_to(folder).as_posix(),
            num_bytes=path.stat().st_size,
            xxh3=hash_file(path),
        )
        for path in sorted(paths)
    )


def write_record(record: BaseRecord, folder: str) -> None:
    """Write `record.json` into a folder or prefix; do it last, after every file it names."""
    text = json.dumps(record.to_json() | {"digest": record.digest}, ensure_ascii=False, indent=2)
    storage.write_text(storage.join(folder, RECORD_NAME), text + "\n")


def find_record(folder: str) -> Record | None:
    """Return the record of a folder or prefix, or None when it is not complete.

    Raises:
        DataError: There is one and it cannot be used.
    """
    uri = storage.join(folder, RECORD_NAME)
    return read_record(folder) if storage.exists(uri) else None


def read_record(folder: str) -> Record:
    """Return the record of a folder or prefix (or of a record.json named itself).

    Raises:
        DataError: There is none, it is not a record, or its digest does not match its content.
    """
    uri = folder if folder.endswith(".json") else storage.join(folder, RECORD_NAME)
    try:
        value = json.loads(storage.read_text(uri))
        stored = value.pop("digest")
        record = _RECORDS.validate_python(value)
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as exc:
        raise DataError(f"{uri} is not a record of this version: {str(exc)[:300]}") from None
    if record.digest != stored:
        raise DataError(f"{uri}: digest {stored} does not match its content ({record.digest})")
    return record


def link(record: Record, uri: str, *, base: str, root: str) -> Parent:
    """Return a lineage link to a record at `uri` for a record in `base`, of the run in `root`."""
    place = storage.relative(uri, base, root=root)
    return Parent(kind=record.kind, uri=place, digest=record.digest)


def link_weights(folder: Path, uri: str, *, base: str, root: str) -> Parent:
    """Return a lineage link to a Hugging Face folder without a record.

    Args:
        folder: Its files, on this machine.
        uri: Where it lies on storage.
        base: Folder of the record that gets the link.
        root: Output of the run.
    """
    place = storage.relative(uri, base, root=root)
    return Parent(kind=WEIGHTS_KIND, uri=place, digest=describe_weights(folder))


def describe_weights(folder: Path) -> str:
    """Return the digest of a Hugging Face folder: names and hashes of config, weights, tokenizer.

    Every byte is read, so that other weights of the same shape give another digest.
    """
    paths = {path for pattern in _WEIGHT_FILES for path in folder.glob(pattern)}
    rows = [[entry.path, entry.xxh3] for entry in describe_files(folder, paths)]
    return "sha256:" + hashlib.sha256(canonical_json(rows).encode()).hexdigest()


def verify_files(files: Iterable[FileEntry], folder: Path) -> None:
    """Check files against their recorded size and hash.

    Raises:
        CheckpointError: Names the first file that is missing or changed.
    """
    for file in files:
        path = folder / file.path
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; its record lists it")
        if path.stat().st_size != file.num_bytes or hash_file(path) != file.xxh3:
            raise CheckpointError(f"{path} differs from its record (expected xxh3 {file.xxh3})")
