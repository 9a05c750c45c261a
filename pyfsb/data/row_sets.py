# SPDX-License-Identifier: Apache-2.0
"""The data stage of row objectives: files of rows to one validated file, its tokenizer, its record.

Rows are questions with options, texts with spans, dialogues or captioned images. Called by
`prepare`; training reads the result with `load_row_set`. Never imports torch.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from pyfsb import records
from pyfsb.config import ObjectiveName, RunSpec, Stage, stage_hash
from pyfsb.data import readers
from pyfsb.data.chat_rows import load_chat_rows
from pyfsb.data.choice_rows import load_choice_rows
from pyfsb.data.corpus_tokenizer import build_tokenizer_folder
from pyfsb.data.extraction_rows import load_extraction_rows
from pyfsb.data.folders import describe_inputs, make_partial, publish
from pyfsb.data.image_sets import IMAGE_OBJECTIVES, load_image_rows, store_images, texts_of
from pyfsb.data.normalizing import normalise_layout, normalise_text
from pyfsb.data.rewrite_rows import load_rewrite_rows
from pyfsb.data.vocabulary import vocabulary_digest
from pyfsb.data.wanted import complete_data
from pyfsb.errors import ConfigError, DataError
from pyfsb.records import ROWS_FOLDER, DatasetRecord
from pyfsb.registry import find_model
from pyfsb.schema import Json
from pyfsb.storage.workspace import Workspace

ROWS_NAME: Final = "rows.jsonl"
TOKENIZER_NAME: Final = "tokenizer"
_LOADERS: Final[dict[ObjectiveName, Callable[[Path], Sequence[Any]]]] = {
    ObjectiveName.MULTIPLE_CHOICE: load_choice_rows,
    ObjectiveName.EXTRACTION: load_extraction_rows,
    ObjectiveName.SFT: load_chat_rows,
    ObjectiveName.REWRITING: load_rewrite_rows,
}
ROW_OBJECTIVES: Final = frozenset(_LOADERS) | IMAGE_OBJECTIVES
"""Objectives that learn from rows."""
WRITING_OBJECTIVES: Final = frozenset({ObjectiveName.SFT, ObjectiveName.REWRITING})
"""Those that learn to write a text, with its lines and blank lines."""
_WORDS: Final = {ObjectiveName.MULTIPLE_CHOICE: "是非"}
"""What the vocabulary of an objective must have besides the rows' own texts."""
_log = logging.getLogger(__name__)


def load_row_set(path: Path, objective: ObjectiveName, *, root: str | None = None) -> list[Any]:
    """Read rows of an objective; images may lie below a root, a folder or s3://.

    Raises:
        ConfigError: The objective learns from text.
        DataError: Names wrong rows, each with line, field and value.
    """
    if objective in IMAGE_OBJECTIVES:
        return list(load_image_rows(path, objective, root=root))
    if objective not in _LOADERS:
        known = ", ".join(sorted(ROW_OBJECTIVES))
        raise ConfigError(f"objective {objective} learns from text, not from rows; {known} do")
    return list(_LOADERS[objective](path))


def prepare_rows(spec: RunSpec, workspace: Workspace) -> DatasetRecord:
    """Validate the rows of a spec, write them as one file, and make their tokenizer.

    Raises:
        ConfigError: The run's objective learns from text.
        DataError: A file is missing or wrong, or there is no row.
    """
    started, data = time.monotonic(), complete_data(spec)
    objective = ObjectiveName(spec.objective.name or find_model(spec.model.name).objective)
    names = readers.find_files(data.root, data.rows, suffixes=(*readers.SUFFIXES, ".csv", ".tsv"))
    paths = [readers.local_path(data.root, name) for name in names]
    rows = [row for path in paths for row in load_row_set(path, objective, root=data.root)]
    if not rows:
        raise DataError(f"data.rows = {list(data.rows)}: the files hold no row")
    partial = make_partial(workspace, ROWS_FOLDER)
    if objective in IMAGE_OBJECTIVES:
        rows = store_images(rows, spec, partial)
    values = [row.to_json() for row in rows]
    text = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    (partial / ROWS_NAME).write_text(text, encoding="utf-8")
    texts = list(texts_of(rows)) if objective in IMAGE_OBJECTIVES else values
    pieces: list[str] = []
    if spec.model.checkpoint is None and find_model(spec.model.name).tokenizer != "none":
        pieces = build_tokenizer_folder(
            lambda: _texts([_WORDS.get(objective, ""), *texts], objective),
            data,
            partial / TOKENIZER_NAME,
        )
    files = [path for path in partial.rglob("*") if path.is_file()]
    record = DatasetRecord(
        run=spec.name,
        created_at=records.now(),
        seconds=time.monotonic() - started,
        config_hash=stage_hash(spec, Stage.DATA),
        seeds=(spec.seed,),
        form="rows",
        files=records.describe_files(partial, files),
        inputs=describe_inputs(paths, names),
        num_read=len(rows),
        num_kept=len(rows),
        dropped={},
        num_samples=len(rows),
        vocabulary_size=len(pieces),
        vocabulary_digest=vocabulary_digest(pieces) if pieces else "",
        task={"objective": objective.value},
    )
    publish(workspace, partial, ROWS_FOLDER, record)
    _log.info("rows: %d for objective %s", len(rows), objective.value)
    return record


def _texts(values: Sequence[Any], objective: ObjectiveName) -> Iterator[str]:
    """Yield every text in rows, in the spelling that training reads."""
    spell = normalise_layout if objective in WRITING_OBJECTIVES else normalise_text
    for value in values:
        yield from map(spell, _strings(value))


def _strings(value: Json | str | list[Any]) -> Iterator[str]:
    """Yield every text in a row."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
