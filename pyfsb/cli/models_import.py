# SPDX-License-Identifier: Apache-2.0
"""`fsb models import`: published weights, once, as safetensors in a folder of ours."""

from __future__ import annotations

import argparse
from pathlib import Path

from pyfsb.cli import models_cut
from pyfsb.cli.arguments import Commands, add_output, print_json, print_text
from pyfsb.errors import EXIT_OK, ConfigError

_GIB = 1 << 30
_MOST = 1_000_000
"""More GiB or seconds than anything takes, and few enough to be a count of bytes."""


def add_verbs(verbs: Commands) -> None:
    """Add `import`, and what is done to weights once they are here, to the verbs."""
    models_cut.add_verb(verbs)
    parser = verbs.add_parser(
        "import",
        help="convert published weights (pytorch_model.bin) to safetensors, in a closed process",
    )
    parser.add_argument(
        "source", metavar="SOURCE",
        help="folder with config.json and weights, a file of weights in it, s3://…, hf://ORG/NAME "
        "or modelscope://ORG/NAME, with @REVISION or without",
    )  # fmt: skip
    parser.add_argument(
        "--model", required=True, metavar="NAME", help="registered name they are of"
    )
    parser.add_argument("--to", required=True, type=Path, metavar="FOLDER", help="folder to make")
    parser.add_argument(
        "--tokenizer", type=Path, metavar="FOLDER",
        help="folder of the tokenizer, where SOURCE has none",
    )  # fmt: skip
    parser.add_argument(
        "--image-source", metavar="SOURCE",
        help="the CLIP whose images a Taiyi-CLIP text tower joined; SOURCE is that tower then",
    )  # fmt: skip
    for name, what in (
        ("missing", "weights that may be missing"),
        ("extra", "tensors to leave out"),
    ):
        parser.add_argument(
            f"--allow-{name}", action="append", default=[], metavar="PATTERN",
            help=f"pattern of names of {what}, such as 'cls.*'; repeatable",
        )  # fmt: skip
    parser.add_argument(
        "--max-gib", type=float, default=60.0, metavar="GIB",
        help="largest file that is opened, in GiB (default: 60)",
    )  # fmt: skip
    parser.add_argument(
        "--memory-gib", type=float, metavar="GIB",
        help="memory that opening one file may take, in GiB (default: twice its size and 1)",
    )  # fmt: skip
    parser.add_argument(
        "--timeout-seconds", type=int, default=3600, metavar="SECONDS",
        help="time that opening one file may take, in seconds (default: 3600)",
    )  # fmt: skip
    add_output(parser)
    parser.set_defaults(handler=_import)


def _import(arguments: argparse.Namespace) -> int:
    from pyfsb.models.importing import Limits, import_model
    from pyfsb.models.importing_towers import import_towers

    memory_gib = arguments.memory_gib
    for name in ("max_gib", "memory_gib", "timeout_seconds"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < _MOST:
            raise ConfigError(
                f"--{name.replace('_', '-')} {value:g}: expected a number above 0 "
                f"and below {_MOST:,}"
            )
    limits = Limits(
        max_bytes=int(arguments.max_gib * _GIB),
        memory_bytes=None if memory_gib is None else int(memory_gib * _GIB),
        seconds=arguments.timeout_seconds,
    )
    if arguments.image_source:
        record = import_towers(
            arguments.source, arguments.image_source, arguments.model, arguments.to, limits=limits
        )
    else:
        record = import_model(
            arguments.source,
            arguments.model,
            arguments.to,
            tokenizer_source=arguments.tokenizer,
            allow_missing=tuple(arguments.allow_missing),
            allow_extra=tuple(arguments.allow_extra),
            limits=limits,
        )
    if arguments.form == "json":
        print_json(record.to_json())
        return EXIT_OK
    lines = [f"{record.model} from {record.source}"]
    lines += [f"read    {file.path}  sha256:{file.sha256}" for file in record.weights_read]
    lines += [f"written {file.path}  xxh3:{file.xxh3}" for file in record.weights_written]
    lines += [f"missing {name}" for name in record.missing]
    lines += [f"left out {name}" for name in (*record.extra, *record.dropped, *record.others)]
    lines += [f"config.{key}: {text}" for key, text in record.differences.items()]
    print_text("\n".join([*lines, str(arguments.to)]))
    return EXIT_OK
