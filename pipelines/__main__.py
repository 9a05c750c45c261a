# SPDX-License-Identifier: Apache-2.0
"""`python -m pipelines compile` writes the compiled pipelines, `upload` sends them to KFP.

Both take what depends on the installation from the environment: the image (FSB_IMAGE_DATA, or
FSB_IMAGE_PREFIX and FSB_IMAGE_TAG) and secrets of the tasks' pods (FSB_CREDENTIALS_SECRET,
FSB_IMAGE_PULL_SECRETS).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pipelines.compile import FOLDER, PIPELINES, compile_pipeline, write_all
from pipelines.upload import Target, upload_all
from pyfsb.errors import ConfigError, DataError
from pyfsb.processes import run_stage_main


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__)
    verbs = parser.add_subparsers(required=True)
    compiling = verbs.add_parser("compile", help="write the compiled pipelines into a folder")
    compiling.add_argument("--to", type=Path, default=FOLDER, help="folder (default: %(default)s)")
    compiling.set_defaults(do=_compile)
    uploading = verbs.add_parser(
        "upload", help="send the pipelines to KFP; what is there already is not sent again"
    )
    uploading.add_argument(
        "--host",
        default=os.environ.get("KFP_HOST"),
        help="URL of KFP's API server, such as http://ml-pipeline.kubeflow:8888 (env KFP_HOST)",
    )
    uploading.add_argument(
        "--namespace",
        default=os.environ.get("KFP_NAMESPACE") or None,
        help="namespace of the pipelines in a KFP with users (env KFP_NAMESPACE; default: shared)",
    )
    uploading.add_argument("--token-file", type=Path, help="file with a bearer token")
    uploading.add_argument("--certificate", help="file of a private certificate authority")
    uploading.add_argument(
        "--wait", type=float, default=600.0, metavar="SECONDS",
        help="how long to wait for a KFP that is away (default: %(default)g)",
    )  # fmt: skip
    uploading.set_defaults(do=_upload)
    return parser


def main() -> int:
    """Do what the command line says."""
    arguments = build_parser().parse_args()
    arguments.do(arguments)
    return 0


def _compile(arguments: argparse.Namespace) -> None:
    for path in write_all(arguments.to):
        sys.stdout.write(f"{path}\n")


def _upload(arguments: argparse.Namespace) -> None:
    if not arguments.host:
        raise ConfigError("no KFP is named; give --host or set KFP_HOST")
    target = Target(
        host=arguments.host,
        namespace=arguments.namespace,
        token=_read_token(arguments.token_file),
        certificate=arguments.certificate,
        wait_seconds=arguments.wait,
    )
    for done in upload_all(map(compile_pipeline, PIPELINES), target):
        state = "there already" if done.was_there else "uploaded"
        sys.stdout.write(f"{done.name}  {done.version}  {state}\n")


def _read_token(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as exc:
        raise DataError(
            f"--token-file {path}: {exc.strerror}; expected a file with a token"
        ) from None


if __name__ == "__main__":
    sys.exit(run_stage_main(main))
