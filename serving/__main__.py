# SPDX-License-Identifier: Apache-2.0
"""`python -m serving --checkpoint URI`: serve a checkpoint over KServe's V1 and V2 protocols."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Final

from pyfsb.config import Family, ServingSpec
from pyfsb.processes import run_stage_main
from pyfsb.schema import parse

_log = logging.getLogger("serving")


_LIMITS: Final = (
    "max_batch_rows", "max_request_bytes", "max_concurrent_requests", "request_timeout_seconds",
)  # fmt: skip


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
    for field in _LIMITS:
        value = getattr(defaults, field)
        text = ServingSpec.model_fields[field].description
        parser.add_argument(
            f"--{field.replace('_', '-')}", type=type(value), default=value,
            help=f"{text} (default: %(default)s)",
        )  # fmt: skip
    parser.add_argument(
        "--family", choices=[family.value for family in Family],
        help="what to ask the model for (default: what it was trained for)",
    )  # fmt: skip
    parser.add_argument("--ready-file", help="file to write the URL to once the port is bound")
    return parser


def read_limits(arguments: argparse.Namespace) -> ServingSpec:
    """Return the settings that the options give.

    Raises:
        ConfigError: One of them is out of its range.
    """
    names = ("host", "port", *_LIMITS)
    values = {name: getattr(arguments, name) for name in names}
    return parse(ServingSpec, values, source="options of python -m serving")


def inference_url(host: str, port: int, name: str) -> str:
    """Return the URL of a model's V2 inference call; IPv6 addresses stand in brackets."""
    place = f"[{host}]" if ":" in host else host
    return f"http://{place}:{port}/v2/models/{name}/infer"


def main() -> int:
    """Load the model and serve it."""
    arguments = build_parser().parse_args()
    limits = read_limits(arguments)
    sys.argv[1:] = []  # importing kserve parses the command line for options of its own
    from pyfsb.inference.loading import load_predictor
    from serving.base import TextModel
    from serving.server import bind, serve

    bound = bind(limits.host, limits.port)
    host, port = bound.getsockname()[:2]
    family = Family(arguments.family) if arguments.family else None
    predictor = load_predictor(arguments.checkpoint, family=family)
    name = (arguments.name or predictor.name).replace("/", "-")
    url = inference_url(host, port, name)
    if arguments.ready_file:
        Path(arguments.ready_file).write_text(json.dumps({"url": url, "name": name}))
    _log.info("serving %s (%s) at %s", name, predictor.family.value, url)
    serve(TextModel(name, predictor, limits), bound, limits)
    return 0


if __name__ == "__main__":
    sys.exit(run_stage_main(main))
