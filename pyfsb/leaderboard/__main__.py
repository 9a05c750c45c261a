# SPDX-License-Identifier: Apache-2.0
"""`python -m pyfsb.leaderboard --spec URI`: the leaderboard of one run, as its fourth stage.

`python -m pyfsb.leaderboard serve --store URI` serves the pages of a whole store over HTTP.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Final

from pyfsb.config import Stage, load_spec
from pyfsb.errors import ConfigError
from pyfsb.leaderboard.build import build_leaderboard
from pyfsb.leaderboard.web import serve
from pyfsb.processes import run_stage_main

STORE_VARIABLE: Final = "FSB_LEADERBOARD"
"""Environment variable: the store that operators and engines copy reports to."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of both doors."""
    parser = argparse.ArgumentParser(prog="python -m pyfsb.leaderboard", description=__doc__)
    parser.add_argument("--spec", help="resolved run spec, a path or s3:// URI")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    web = verbs.add_parser("serve", help="serve the pages of a store over HTTP")
    web.add_argument(
        "--store", default=os.environ.get(STORE_VARIABLE),
        help=f"folder or s3:// prefix with reports (default: {STORE_VARIABLE})",
    )  # fmt: skip
    web.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    web.add_argument("--port", type=int, default=8080, help="0 takes any (default: %(default)s)")
    web.add_argument(
        "--refresh-seconds", type=float, default=60.0, metavar="SECONDS",
        help="time between two looks at the store (default: %(default)s)",
    )  # fmt: skip
    return parser


def main() -> int:
    """Build the board of a resolved spec's run, or serve a store's pages."""
    parser = build_parser()
    arguments = parser.parse_args()
    if arguments.verb == "serve":
        if not arguments.store:
            raise ConfigError(f"no store; give --store URI or set {STORE_VARIABLE}")
        serve(
            arguments.store,
            host=arguments.host,
            port=arguments.port,
            refresh_seconds=arguments.refresh_seconds,
        )
        return 0
    if not arguments.spec:
        parser.error("--spec URI or the verb serve is required")
    spec = load_spec(arguments.spec)
    build_leaderboard([spec.output_of(Stage.EVALUATION)], spec.output_of(Stage.LEADERBOARD))
    return 0


if __name__ == "__main__":
    sys.exit(run_stage_main(main))
