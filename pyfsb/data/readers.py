# SPDX-License-Identifier: Apache-2.0
r"""Raw files as documents: `.jsonl`, `.txt`, and either with `.gz`.

Lines end at `\\n` only: JSON strings and headlines hold U+2028, U+0085 and vertical tabs, at which
`str.splitlines` would cut. A line that cannot be read becomes a `Rejected` with its number.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from pyfsb import storage
from pyfsb.data.documents import Document, Rejected
from pyfsb.errors import DataError
from pyfsb.storage.workspace import cache_folder

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".txt", ".txt.gz")


def find_files(
    root: str, patterns: Iterable[str], *, suffixes: tuple[str, ...] = SUFFIXES
) -> list[str]:
    """Return the files below a folder or prefix that match globs, sorted, each once.

    Returns:
        Paths relative to root; a pattern that is an absolute path or s3:// stays as it is.

    Raises:
        DataError: A pattern matches nothing; names it and what lies there.
    """
    found: set[str] = set()
    for pattern in patterns:
        matches = [file.path for file in storage.find_files(root, pattern)]
        if not matches:
            raise DataError(f"no file matches {pattern!r} in {root}; {_neighbours(root, pattern)}")
        found.update(matches)
    wrong = sorted(name for name in found if not name.endswith(suffixes))
    if wrong:
        raise DataError(f"{wrong[0]}: unknown kind of file; expected one of {', '.join(suffixes)}")
    return sorted(found)


def _neighbours(root: str, pattern: str) -> str:
    if storage.is_s3(root):
        return f"{len(storage.list_files(root))} objects lie there"
    folder = Path(root, pattern).parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    names = sorted(path.name for path in folder.iterdir())[:8]
    return f"{folder} holds {', '.join(names) or 'nothing'}"


def local_path(root: str, name: str) -> Path:
    """Return a file of `find_files` as a local path, brought from S3 when it lies there."""
    uri = name if storage.is_s3(name) or os.path.isabs(name) else storage.join(root, name)
    if not storage.is_s3(uri):
        return Path(uri)
    target = cache_folder() / "inputs" / uri.removeprefix("s3://")
    storage.download(uri, target)
    return target


def read_lines(path: Path) -> Iterator[bytes]:
    r"""Yield the lines of a file, plain or gzip, without their `\\n` (`\\r\\n`) and its BOM.

    Raises:
        DataError: The gzip stream is broken; names the file.
    """
    try:
        with _open(path) as lines:
            for number, line in enumerate(lines):
                if not number:
                    line = line.removeprefix(codecs.BOM_UTF8)
                yield line.removesuffix(b"\n").removesuffix(b"\r")
    except (EOFError, gzip.BadGzipFile, zlib.error) as exc:
        raise DataError(f"{path}: broken gzip stream: {exc}") from None


def _open(path: Path) -> IO[bytes]:
    if path.name.endswith(".gz"):
        return io.BufferedReader(gzip.GzipFile(path), 1 << 20)
    return path.open("rb", buffering=1 << 20)


def read_documents(
    path: Path, *, source: str, text_field: str, txt_documents: str
) -> Iterator[Document | Rejected]:
    """Yield the documents of one file and the lines that are none.

    Args:
        path: A local file with one of `SUFFIXES`.
        source: Its name for messages and records.
        text_field: Key of the text in JSON lines.
        txt_documents: `lines` or `paragraphs` (lines up to an empty one), for .txt files.
    """
    if path.name.removesuffix(".gz").endswith((".json", ".jsonl")):
        yield from _read_json_lines(path, source=source, text_field=text_field)
    else:
        yield from _read_text(path, source=source, by_paragraph=txt_documents == "paragraphs")


def _read_json_lines(path: Path, *, source: str, text_field: str) -> Iterator[Document | Rejected]:
    for number, raw in enumerate(read_lines(path), start=1):
        text, reason = _text_of(raw, text_field)
        if reason:
            yield Rejected(reason=reason, source=source, line_number=number, raw=raw)
        else:
            yield Document(text=text, source=source, line_number=number)


def _text_of(raw: bytes, text_field: str) -> tuple[str, str]:
    """Return the text of a JSON line and "", or "" and what is wrong with the line."""
    if not raw.strip():
        return "", "blank_line"
    try:
        value = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError:
        return "", "not_utf8"
    except (ValueError, RecursionError):
        return "", "not_json"
    if not isinstance(value, dict) or text_field not in value:
        return "", "no_text_field"
    text = value[text_field]
    return (text, "") if isinstance(text, str) else ("", "text_not_a_string")


def _read_text(path: Path, *, source: str, by_paragraph: bool) -> Iterator[Document | Rejected]:
    lines: list[str] = []
    start = 1
    for number, raw in enumerate(read_lines(path), start=1):
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError:
            yield Rejected(reason="not_utf8", source=source, line_number=number, raw=raw)
            continue
        if by_paragraph and line.strip():
            start = start if lines else number
            lines.append(line)
        elif by_paragraph and lines:
            yield Document(text="\n".join(lines), source=source, line_number=start)
            lines = []
        elif not by_paragraph and line.strip():
            yield Document(text=line, source=source, line_number=number)
        elif not by_paragraph:
            yield Rejected(reason="blank_line", source=source, line_number=number, raw=raw)
    if lines:
        yield Document(text="\n".join(lines), source=source, line_number=start)
