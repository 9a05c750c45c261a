# SPDX-License-Identifier: Apache-2.0
"""Files of rows as plain mappings: JSON lines, a JSON list of objects, CSV or TSV.

Called wherever labelled rows are read; what a row has to hold is `labelled.parse_rows`' matter.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

from pyfsb.data.readers import read_lines
from pyfsb.errors import DataError
from pyfsb.schema import Json

_PROBE_BYTES = 4096
"""Where the first character of a JSON file is looked for."""
csv.field_size_limit(1 << 24)


def read_rows(path: Path) -> Iterator[tuple[int, Json]]:
    """Yield line number and mapping of each row of a file.

    CSV is comma-separated with a header and double quotes; TSV is split at tabs, without quotes;
    a `.json` file is one list of objects or, as CLUE's are, an object a line.

    Raises:
        DataError: A line is not UTF-8 or not JSON, or a CSV row has another number of fields.
    """
    suffix = path.suffix.lower()
    if suffix == ".csv":
        yield from _read_csv(path)
    elif suffix == ".tsv":
        yield from _read_tsv(path)
    elif suffix == ".json" and _is_list(path):
        yield from _read_list(path)
    else:
        for number, raw in enumerate(read_lines(path), start=1):
            if raw.strip():
                yield number, _json_row(raw, path, number)


def _is_list(path: Path) -> bool:
    """Say whether a JSON file begins as a list does; an object a line begins otherwise."""
    with path.open("rb") as file:
        start = file.read(_PROBE_BYTES)
    return start.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def _read_list(path: Path) -> Iterator[tuple[int, Json]]:
    """Yield the objects of one JSON list, each with the line on which it begins."""
    text = b"\n".join(read_lines(path)).decode("utf-8", "surrogateescape")
    decoder = json.JSONDecoder()
    place, line, counted = text.index("[") + 1, 1, 0
    while True:
        place = _skip(text, place, " \t\r\n")
        line += text.count("\n", counted, place)
        counted = place
        if text[place : place + 1] == "]":
            return
        try:
            _, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as exc:
            raise DataError(f"{path}: line {line}: not a JSON list of objects: {exc}") from None
        raw = text[place:end].encode("utf-8", "surrogateescape")
        yield line, _json_row(raw, path, line)
        place = _skip(text, end, " \t\r\n")
        if text[place : place + 1] == ",":
            place += 1
        elif text[place : place + 1] != "]":
            raise DataError(f"{path}: line {line}: no ',' or ']' after the object that begins here")


def _skip(text: str, place: int, characters: str) -> int:
    while text[place : place + 1] and text[place] in characters:
        place += 1
    return place


def _json_row(raw: bytes, path: Path, number: int) -> Json:
    try:
        row = json.loads(raw.decode("utf-8"))
        if b"\\u" in raw:  # an escape may be half a character, which no file can hold
            json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as exc:
        half = exc.object[exc.start]
        raise DataError(f"{path}: line {number}: {half!r} is half a character") from None
    except UnicodeDecodeError as exc:
        raise DataError(f"{path}: line {number}: not UTF-8 at byte {exc.start}") from None
    except (ValueError, RecursionError) as exc:
        raise DataError(f"{path}: line {number}: not JSON: {exc}") from None
    if not isinstance(row, dict):
        raise DataError(f"{path}: line {number}: expected an object, got {raw[:60]!r}")
    return row


def _read_csv(path: Path) -> Iterator[tuple[int, Json]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = path.read_bytes()[: exc.start].count(b"\n") + 1
        raise DataError(f"{path}: line {line}: not UTF-8; save the file as UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    try:
        for fields in reader:
            if not header:
                header = [name.strip() for name in fields]
            elif len(fields) == len(header):
                yield reader.line_num, dict(zip(header, fields, strict=True))
            elif fields:
                raise DataError(
                    f"{path}: line {reader.line_num}: {len(fields)} fields, the header has "
                    f"{len(header)} ({', '.join(header)}); quote texts that hold commas"
                )
    except csv.Error as exc:
        raise DataError(f"{path}: line {reader.line_num}: {exc}") from None


def _read_tsv(path: Path) -> Iterator[tuple[int, Json]]:
    header: list[str] = []
    for number, raw in enumerate(read_lines(path), start=1):
        try:
            fields = raw.decode("utf-8").split("\t")
        except UnicodeDecodeError as exc:
            raise DataError(f"{path}: line {number}: not UTF-8 at byte {exc.start}") from None
        if not header:
            header = fields
        elif len(fields) == len(header):
            yield number, dict(zip(header, fields, strict=True))
        elif raw.strip():
            raise DataError(
                f"{path}: line {number}: {len(fields)} fields, the header has {len(header)}"
            )
