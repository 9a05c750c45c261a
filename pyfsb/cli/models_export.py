# SPDX-License-Identifier: Apache-2.0
"""`fsb models export`: a model as a folder that others can load, with its card."""

from __future__ import annotations

import argparse
from pathlib import Path

from pyfsb.cli.arguments import Commands, print_text
from pyfsb.config import Family
from pyfsb.errors import EXIT_OK


def add_verbs(verbs: Commands) -> None:
    """Add `export` to the verbs of `fsb models`."""
    parser = verbs.add_parser("export", help="write a model as a Hugging Face folder or as ONNX")
    parser.add_argument(
        "source", metavar="MODEL",
        help="a run's checkpoint folder, a Hugging Face folder, s3://…, hf://ORG/NAME, a "
        "registered name, or NAME@ALIAS of the model store",
    )  # fmt: skip
    parser.add_argument(
        "--to", required=True, choices=("hf", "onnx"),
        help="hf: config, safetensors, tokenizer; onnx: the graph of an encoder",
    )  # fmt: skip
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FOLDER", help="folder to make"
    )
    parser.add_argument(
        "--family", choices=[family.value for family in Family],
        help="what the model is for (default: what its record or the registry says)",
    )  # fmt: skip
    parser.add_argument(
        "--model", metavar="NAME", help="registered name, where the folder does not tell it"
    )
    parser.add_argument(
        "--report", action="append", default=[], metavar="URI", dest="reports",
        help="folder of an evaluation whose scores belong on the card; repeatable",
    )  # fmt: skip
    parser.set_defaults(handler=_export)


def _export(arguments: argparse.Namespace) -> int:
    from pyfsb import versions
    from pyfsb.models.exporting import export_model

    names = export_model(
        versions.locate(arguments.source),
        arguments.to,
        arguments.output,
        family=Family(arguments.family) if arguments.family else None,
        model=arguments.model,
        reports=arguments.reports,
    )
    print_text("\n".join([str(arguments.output), *(f"  {name}" for name in names)]))
    return EXIT_OK
