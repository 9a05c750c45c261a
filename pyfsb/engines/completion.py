# SPDX-License-Identifier: Apache-2.0
"""Which stages of a run are complete: told by their records, never guessed from files.

A stage is complete when its record is there, was made with the same settings, and was made from
the records that are there now. A record made otherwise stops the run: nothing is overwritten.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

from pyfsb import records, storage
from pyfsb.config import RunSpec, Stage, pin_checkpoint, stage_hash
from pyfsb.engines.protocol import StageResult
from pyfsb.errors import ConfigError
from pyfsb.records import (
    CORPUS_FOLDER,
    LABELLED_FOLDER,
    MODEL_FOLDER,
    ROWS_FOLDER,
    WEIGHTS_KIND,
    DatasetRecord,
    FileEntry,
    Parent,
    Record,
)
from pyfsb.schema import Json, parse_yaml_mapping
from pyfsb.storage.workspace import localise

SPEC_NAME = "spec.yaml"
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_REMEDY = "choose another output, or remove that folder and those after it"
_log = logging.getLogger(__name__)


def record_places(spec: RunSpec, stage: Stage) -> list[str]:
    """Return the folders in which a stage leaves its records; none for the leaderboard."""
    output = spec.output_of(stage)
    if stage is Stage.DATA:
        folders = {
            LABELLED_FOLDER: spec.has_labelled_rows,
            CORPUS_FOLDER: spec.data.corpus,
            ROWS_FOLDER: spec.data.rows,
        }
        return [storage.join(output, name) for name, is_wanted in folders.items() if is_wanted]
    return [] if stage is Stage.LEADERBOARD else [output]


def find_complete(spec: RunSpec, stage: Stage, before: Json | None) -> StageResult | None:
    """Return the result of a stage that an earlier run finished, or None.

    Args:
        spec: The run.
        stage: Which stage.
        before: The spec of the earlier run, as `read_spec` gave it, for the error text.

    Raises:
        ConfigError: It was finished with other settings or from other inputs.
    """
    places = record_places(spec, stage)
    found = [records.find_record(place) for place in places]
    made = [record for record in found if record is not None]
    for place, record in zip(places, found, strict=True):
        if record is not None:
            _check_same(spec, stage, place, record, before)
    if not places or len(made) < len(places):
        return None
    return StageResult(
        stage=stage,
        seconds=sum(record.seconds for record in made),
        was_complete=True,
        places=tuple(places),
        records=tuple(made),
    )


def read_spec(output: str) -> Json | None:
    """Return the spec that an earlier run left in an output, or None."""
    uri = storage.join(output, SPEC_NAME)
    if not storage.exists(uri):
        return None
    return parse_yaml_mapping(storage.read_text(uri), source=uri)


def _check_same(
    spec: RunSpec, stage: Stage, place: str, record: Record, before: Json | None
) -> None:
    if record.config_hash != stage_hash(spec, stage):
        changes = changed_keys(before or {}, spec.to_json())
        shown = "; ".join(changes[:6]) or "settings that are not in its spec.yaml"
        raise ConfigError(
            f"{place} is complete, but was made with other settings ({shown}); {_REMEDY}"
        )
    if isinstance(record, DatasetRecord):
        _check_inputs(spec, place, record)
    for parent in record.parents:
        _check_parent(spec, place, parent)
    if stage in (Stage.TRAINING, Stage.EVALUATION):
        _check_base(spec, stage, place, record)


def _check_parent(spec: RunSpec, place: str, parent: Parent) -> None:
    """Refuse a parent that is another one now; task files are read by no stage but evaluation."""
    uri = storage.resolve(parent.uri, place)
    if parent.kind == WEIGHTS_KIND:
        return
    now = records.find_record(uri)
    if now is None:
        return
    if now.digest != parent.digest:
        raise ConfigError(
            f"{place} was made from another {parent.kind} than the one in {uri}; {_REMEDY}"
        )
    if isinstance(now, DatasetRecord) and uri.startswith(spec.output_of(Stage.EVALUATION)):
        _compare(place, now.inputs, _stored(spec.data.root, now.inputs))


def _check_base(spec: RunSpec, stage: Stage, place: str, record: Record) -> None:
    """Refuse a result that started from other weights than the spec names now."""
    checkpoint = pin_checkpoint(spec).model.checkpoint
    if checkpoint is None or (stage is Stage.EVALUATION and spec.data.corpus):
        return
    links = [p for p in record.parents if p.kind in (WEIGHTS_KIND, "CheckpointRecord")]
    if not (storage.is_s3(checkpoint) or os.path.isabs(checkpoint)):
        _check_hub_base(place, checkpoint, links)
        return
    now = records.find_record(checkpoint)
    digest = now.digest if now else records.describe_weights(localise(checkpoint))
    if digest not in {parent.digest for parent in links}:
        raise ConfigError(
            f"{place} started from other weights than those in {checkpoint}; {_REMEDY}"
        )


def _check_hub_base(place: str, checkpoint: str, links: Iterable[Parent]) -> None:
    """Compare repositories by name and stated commit: a branch may have moved on since.

    A registered name is compared with any repository, because engines do not know the registry.
    """
    name, _, revision = checkpoint.partition("@")
    found = [link.uri.partition("@") for link in links if storage.is_hub(link.uri)]
    pins = [pin for repository, _, pin in found if repository == name or not storage.is_hub(name)]
    if not pins or (_COMMIT.fullmatch(revision) and revision not in pins):
        raise ConfigError(f"{place} started from other weights than {checkpoint}; {_REMEDY}")


def _check_inputs(spec: RunSpec, place: str, record: DatasetRecord) -> None:
    """Compare the files that were read with those that would be read now.

    A user's rows and vocabulary are small and compared byte by byte, a corpus by names and sizes.
    """
    data = spec.data
    if record.form == "labelled":
        now = [_read_entry(uri) for uri in spec.labelled_files]
    else:
        patterns = data.rows if record.form == "rows" else data.corpus
        files = [file for pattern in patterns for file in storage.find_files(data.root, pattern)]
        now = [FileEntry(path=file.path, num_bytes=file.num_bytes, xxh3="") for file in files]
        now += [_read_entry(uri) for uri in [data.vocabulary.file] if uri]
        now += _tokenizer_entries(data.tokenizer, record.inputs) if data.tokenizer else []
    _compare(place, record.inputs, now)


def _tokenizer_entries(uri: str, then: Iterable[FileEntry]) -> list[FileEntry]:
    """Return a tokenizer's files as they are now; of a hub's repository those that were read."""
    found = []
    for entry in then:
        folder, _, name = entry.path.partition("/")
        if folder != "tokenizer" or not name:
            continue
        if storage.is_hub(uri):
            found.append(entry)
            continue
        places = [storage.join(uri, MODEL_FOLDER, name), storage.join(uri, name)]
        there = next((place for place in places if storage.exists(place)), None)
        if there:
            found.append(_read_entry(there).model_copy(update={"path": entry.path}))
    return found


def _read_entry(uri: str) -> FileEntry:
    content = storage.read_bytes(uri)
    name = storage.normalise(uri).rpartition("/")[2]
    return FileEntry(path=name, num_bytes=len(content), xxh3=records.hash_bytes(content))


def _stored(root: str, entries: Iterable[FileEntry]) -> list[FileEntry]:
    """Return the files of a record that are still there, with the sizes they have now."""
    uris = {entry.path: storage.join(root, entry.path) for entry in entries}
    return [
        FileEntry(path=path, num_bytes=storage.size(uri), xxh3="")
        for path, uri in uris.items()
        if storage.exists(uri)
    ]


def _by_name(entries: Iterable[FileEntry]) -> dict[tuple[str, int], FileEntry]:
    """Return entries by name and number: training and test files may have the same name."""
    seen: Counter[str] = Counter()
    result = {}
    for entry in entries:
        result[entry.path, seen[entry.path]] = entry
        seen[entry.path] += 1
    return result


def _compare(place: str, then: Iterable[FileEntry], now: Iterable[FileEntry]) -> None:
    """Refuse files that were added, taken away or changed; a hash of "" is not compared."""
    before, after = _by_name(then), _by_name(now)
    for key in sorted(before.keys() | after.keys()):
        old, new, path = before.get(key), after.get(key), key[0]
        if old is None:
            change = f"without {path}, which the spec names now"
        elif new is None:
            change = f"from {path}, which is gone or not named any more"
        elif old.num_bytes != new.num_bytes:
            change = f"from {path} with {old.num_bytes} bytes; it has {new.num_bytes} now"
        elif new.xxh3 and new.xxh3 != old.xxh3:
            change = f"from {path} with other content"
        else:
            continue
        raise ConfigError(f"{place} was made {change}: {_REMEDY}")


def changed_keys(before: Json, after: Json, prefix: str = "") -> list[str]:
    """Return `key: old → new` of every value that differs between two nested mappings."""
    changes = []
    for key in sorted(before.keys() | after.keys()):
        old, new, path = before.get(key), after.get(key), f"{prefix}{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            changes += changed_keys(old, new, f"{path}.")
        elif old != new:
            changes.append(f"{path}: {old!r} → {new!r}")
    return changes
