# SPDX-License-Identifier: Apache-2.0
"""`python -m serving --checkpoint URI`: serve a checkpoint over KServe's V1 and V2 protocols."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from pyfsb.config import ServingSpec
from pyfsb.processes import run_stage_main

_log = logging.getLogger("serving")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; defaults are those of `ServingSpec`."""
    defaults = ServingSpec()
    parser = argparse.ArgumentParser(
        prog="python -m serving", description=__doc__, allow_abbrev=False
    )
    parser.add_argument(
        "--checkpoint", default="/mnt/models",
        help="checkpoint folder, s3:// prefix or registered name (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--name", help="name in the URL (default: the checkpoint's task or model)")
    parser.add_argument("--host", default=defaults.host, help="address (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=defaults.port, help="0 takes any (default: %(default)s)"
    )
    for field in (
        "max_batch_rows", "max_request_bytes", "max_concurrent_requests", "request_timeout_seconds",
    ):  # fmt: skip
        value = getattr(defaults, field)
        text = ServingSpec.model_fields[field].description
        parser.add_argument(
            f"--{field.replace('_', '-')}", type=type(value), default=value,
            help=f"{text} (default: %(default)s)",
        )  # fmt: skip
    parser.add_argument("--ready-file", help="file to write the URL to once the port is bound")
    return parser


def main() -> int:
    """Load the model and serve it."""
    arguments = build_parser().parse_args()
    sys.argv[1:] = []  # importing kserve parses the command line for options of its own
    from pyfsb.inference.loading import load_predictor
    from serving.base import TextModel
    from serving.server import bind, serve

    bound = bind(arguments.host, arguments.port)
    host, port = bound.getsockname()[:2]
    predictor = load_predictor(arguments.checkpoint)
    limits = ServingSpec(
        max_batch_rows=arguments.max_batch_rows,
        max_request_bytes=arguments.max_request_bytes,
        max_concurrent_requests=arguments.max_concurrent_requests,
        request_timeout_seconds=arguments.request_timeout_seconds,
    )
    name = (arguments.name or predictor.name).replace("/", "-")
    url = f"http://{host}:{port}/v2/models/{name}/infer"
    if arguments.ready_file:
        Path(arguments.ready_file).write_text(json.dumps({"url": url, "name": name}))
    _log.info("serving %s (%s) at %s", name, predictor.family.value, url)
    serve(TextModel(name, predictor, limits), bound, limits)
    return 0


if __name__ == "__main__":
    sys.exit(run_stage_main(main))
