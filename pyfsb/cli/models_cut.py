# SPDX-License-Identifier: Apache-2.0
"""`fsb models cut-vocabulary`: a model with the pieces that some texts need, as mT5 became Randeng.

Weights of `fsb models import` go in, a folder for `model.checkpoint` comes out. Never trains.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pyfsb.cli.arguments import Commands, add_output, print_json, print_text
from pyfsb.config import Family
from pyfsb.errors import EXIT_OK, ConfigError

if TYPE_CHECKING:
    from pyfsb.models.loading import Weights

_log = logging.getLogger(__name__)


def add_verb(verbs: Commands) -> None:
    """Add `cut-vocabulary` to the verbs of `fsb models`."""
    parser = verbs.add_parser(
        "cut-vocabulary",
        help="write a model with fewer pieces: the commonest of some texts",
    )
    parser.add_argument(
        "source", metavar="MODEL",
        help="model folder with safetensors, s3://…, hf://ORG/NAME or NAME@ALIAS of the store",
    )  # fmt: skip
    parser.add_argument("--to", required=True, type=Path, metavar="FOLDER", help="folder to make")
    parser.add_argument(
        "--texts", required=True, action="append", metavar="PATTERN",
        help="files of texts whose pieces are counted, .jsonl or .txt, also .gz; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--size", required=True, type=int, metavar="PIECES",
        help="pieces to keep at most; special tokens and sentinels come on top",
    )  # fmt: skip
    parser.add_argument(
        "--text-field", default="text", metavar="KEY",
        help="key of the text in JSON lines (default: text)",
    )  # fmt: skip
    parser.add_argument(
        "--family", choices=[family.value for family in Family],
        help="whose head the model has (default: what its record or the registry says)",
    )  # fmt: skip
    add_output(parser)
    parser.set_defaults(handler=_cut)


def _cut(arguments: argparse.Namespace) -> int:
    from pyfsb import versions
    from pyfsb.models.loading import load_config, open_weights
    from pyfsb.models.vocabulary_surgery import choose_pieces, cut_folder, vocabulary_size

    if arguments.size < 1:
        raise ConfigError(f"--size {arguments.size}: expected a number above 0")
    weights = open_weights(versions.locate(arguments.source))
    folder = weights.model_folder
    family = Family(arguments.family) if arguments.family else _find_family(weights)
    texts = _read_texts(arguments.texts, arguments.text_field)
    keep, share = choose_pieces(folder, texts, arguments.size)
    cut = cut_folder(folder, arguments.to, keep, family)
    before = vocabulary_size(load_config(folder))
    if arguments.form == "json":
        print_json(
            {
                "folder": str(arguments.to), "num_rows_before": before,
                "num_rows": len(cut.kept_ids), "kept_token_ratio": round(share, 6),
            }
        )  # fmt: skip
    else:
        print_text(
            f"{before:,} rows before, {len(cut.kept_ids):,} now; {share:.3%} of the texts' tokens "
            f"are of pieces that stay\n{arguments.to}"
        )
    return EXIT_OK


def _find_family(weights: Weights) -> Family:
    """Return what a model is for: its record says so, or the import it came from."""
    from pyfsb.models.loading import imported_name
    from pyfsb.registry import find_model

    if weights.record is not None:
        return Family(weights.record.family)
    name = imported_name(weights.model_folder)
    if name is None:
        raise ConfigError(
            f"{weights.uri} does not say what it is for; name its head with --family, such as "
            "rewrite for T5"
        )
    return find_model(name).family


def _read_texts(patterns: Sequence[str], text_field: str) -> Iterator[str]:
    """Yield the texts of files, normalised as those of a corpus are."""
    from pyfsb.data import readers
    from pyfsb.data.documents import Document
    from pyfsb.data.normalizing import normalise_text

    num_wrong = 0
    for name in readers.find_files(".", patterns):
        for item in readers.read_documents(
            readers.local_path(".", name), source=name, text_field=text_field, txt_documents="lines"
        ):
            if isinstance(item, Document):
                yield normalise_text(item.text)
            else:
                num_wrong += item.reason != "blank_line"
    if num_wrong:
        _log.warning("%d lines of the texts cannot be read and are left out", num_wrong)
