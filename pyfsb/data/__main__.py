# SPDX-License-Identifier: Apache-2.0
"""`python -m pyfsb.data --spec URI`: the data stage, as a pod, a subprocess or by hand."""

from __future__ import annotations

import argparse
import sys

from pyfsb.config import load_spec
from pyfsb.data.prepare import prepare
from pyfsb.processes import run_stage_main


def main() -> int:
    """Prepare the data of a resolved spec."""
    parser = argparse.ArgumentParser(prog="python -m pyfsb.data", description=__doc__)
    parser.add_argument("--spec", required=True, help="resolved run spec, a path or s3:// URI")
    prepare(load_spec(parser.parse_args().spec))
    return 0


if __name__ == "__main__":
    sys.exit(run_stage_main(main))
