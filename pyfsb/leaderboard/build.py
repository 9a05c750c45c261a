# SPDX-License-Identifier: Apache-2.0
"""Write a leaderboard: `leaderboard.md`, `.json` and `.html` in one folder."""

from __future__ import annotations

from collections.abc import Iterable

from pyfsb import storage
from pyfsb.leaderboard.rank import Board, rank_reports
from pyfsb.leaderboard.render import to_html, to_json, to_markdown
from pyfsb.leaderboard.store import find_reports


def build_leaderboard(uris: Iterable[str], output: str) -> tuple[Board, ...]:
    """Build the board of every report at or below places.

    Args:
        uris: Report folders, outputs of runs, or folders of many runs.
        output: Folder or s3:// for the three files.

    Raises:
        DataError: There is no report.
    """
    boards = rank_reports(find_reports(uris))
    for ending, render in (("md", to_markdown), ("json", to_json), ("html", to_html)):
        storage.write_text(storage.join(output, f"leaderboard.{ending}"), render(boards))
    return boards
