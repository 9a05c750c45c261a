# SPDX-License-Identifier: Apache-2.0
"""Which stages of a run are complete: told by their records, never guessed from files.

A stage is complete when its record is there, was made with the same settings, and was made from
the records that are there now. A record made otherwise stops the run: nothing is overwritten.
"""

from __future__ import annotations

import logging

from pyfsb import records, storage
from pyfsb.config import RunSpec, Stage, stage_hash
from pyfsb.engines.protocol import StageResult
from pyfsb.errors import ConfigError, DataError
from pyfsb.records import DatasetRecord, Record
from pyfsb.schema import Json, parse_yaml_mapping

SPEC_NAME = "spec.yaml"
CORPUS_FOLDER = "corpus"
LABELLED_FOLDER = "labelled"
_log = logging.getLogger(__name__)


def record_places(spec: RunSpec, stage: Stage) -> list[str]:
    """Return the folders in which a stage leaves its records; none for the leaderboard."""
    output = spec.output_of(stage)
    if stage is Stage.DATA:
        folders = {LABELLED_FOLDER: spec.data.train, CORPUS_FOLDER: spec.data.corpus}
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
            f"{place} is complete, but was made with other settings ({shown}); choose another "
            "output, or remove that folder and those after it"
        )
    if isinstance(record, DatasetRecord):
        _check_inputs(spec, place, record)
    for parent in record.parents:
        uri = storage.resolve(parent.uri, place)
        now = records.find_record(uri)
        if now is not None and now.digest != parent.digest:
            raise ConfigError(
                f"{place} was made from another {parent.kind} than the one in {uri}; choose "
                "another output, or remove that folder and those after it"
            )


def _check_inputs(spec: RunSpec, place: str, record: DatasetRecord) -> None:
    """Compare names and sizes of the files that were read; contents are not read again."""
    for entry in record.inputs:
        if record.form == "labelled":
            continue
        uri = storage.join(spec.data.root, entry.path)
        if storage.is_s3(uri):
            continue
        try:
            size = storage.size(uri)
        except DataError:
            raise ConfigError(f"{place} was made from {uri}, which is gone") from None
        if size != entry.num_bytes:
            raise ConfigError(
                f"{place} was made from {uri} with {entry.num_bytes} bytes; it has {size} now: "
                "choose another output, or remove that folder and those after it"
            )


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
