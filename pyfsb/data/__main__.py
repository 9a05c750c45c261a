# SPDX-License-Identifier: Apache-2.0
"""`python -m pyfsb.data --spec URI`: the data stage, as a pod, a subprocess or by hand."""

from __future__ import annotations

import argparse
import sys

from pyfsb.config import Stage, load_spec
from pyfsb.data.prepare import prepare
from pyfsb.engines.completion import find_complete, read_spec, record_places
from pyfsb.engines.outcome import report_outcome
from pyfsb.processes import run_stage_main


def main() -> int:
    """Prepare the data of a resolved spec."""
    parser = argparse.ArgumentParser(prog="python -m pyfsb.data", description=__doc__)
    parser.add_argument("--spec", required=True, help="resolved run spec, a path or s3:// URI")
    spec = load_spec(parser.parse_args().spec)
    if not find_complete(spec, Stage.DATA, read_spec(spec.output)):
        prepare(spec)
    report_outcome(*record_places(spec, Stage.DATA))
    return 0


if __name__ == "__main__":
    sys.exit(run_stage_main(main))
