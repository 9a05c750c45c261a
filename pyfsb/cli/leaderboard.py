# SPDX-License-Identifier: Apache-2.0
"""`fsb leaderboard build`: the scores of many runs in one place."""

from __future__ import annotations

import argparse

from pyfsb import storage
from pyfsb.cli.arguments import Commands, print_text
from pyfsb.errors import EXIT_OK
from pyfsb.leaderboard.build import build_leaderboard


def add_commands(commands: Commands) -> None:
    """Add the noun and its verb."""
    noun = commands.add_parser("leaderboard", help="scores of many runs in one place")
    verbs = noun.add_subparsers(metavar="VERB", required=True)
    parser = verbs.add_parser("build", help="write leaderboard.md, .json and .html")
    parser.add_argument(
        "uris", metavar="URI", nargs="+", help="outputs of runs, or folders that hold them"
    )
    parser.add_argument(
        "--to", default="leaderboard", help="folder or s3:// prefix (default: %(default)s)"
    )
    parser.set_defaults(handler=_build)


def _build(arguments: argparse.Namespace) -> int:
    boards = build_leaderboard(arguments.uris, arguments.to)
    num_rows = sum(len(board.rows) for board in boards)
    place = storage.join(storage.absolute(arguments.to), "leaderboard.html")
    print_text(f"{len(boards)} boards, {num_rows} rows: {place}")
    return EXIT_OK
