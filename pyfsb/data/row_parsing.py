# SPDX-License-Identifier: Apache-2.0
"""Files of choice and extraction rows: every row is validated before any is used.

Called by `choice_rows` and `extraction_rows`; what a row holds is their matter.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from pyfsb.data.row_files import read_rows
from pyfsb.errors import ConfigError, DataError
from pyfsb.schema import Json, Schema, parse

_MAX_PROBLEMS: Final = 20
"""Wrong rows that one error names."""
Row = TypeVar("Row", bound=Schema)


def load_rows(path: Path, kind_of: Callable[[Json], type[Row]]) -> list[Row]:
    """Return the rows of a file.

    Args:
        path: JSON lines, or another form that `read_rows` takes.
        kind_of: Tells the schema of a row.

    Raises:
        DataError: There are none, or some are wrong: names up to 20, with line, field and value.
    """
    rows: list[Row] = []
    problems: list[str] = []
    for number, value in read_rows(path):
        try:
            rows.append(parse(kind_of(value), value, source=f"line {number}"))
        except (ConfigError, DataError) as exc:
            text = str(exc)
            problems.append(text if text.startswith("line ") else f"line {number}: {text}")
    if problems:
        shown = "\n  ".join(problems[:_MAX_PROBLEMS])
        more = len(problems) - _MAX_PROBLEMS
        tail = f"\n  … and {more} more" if more > 0 else ""
        raise DataError(f"{path}: {len(problems)} wrong rows:\n  {shown}{tail}")
    if not rows:
        raise DataError(f"{path} holds no rows")
    return rows
