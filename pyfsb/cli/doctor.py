# SPDX-License-Identifier: Apache-2.0
"""`fsb doctor`: what works here, what does not, and what would make it work."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Final

from pyfsb import __version__, storage
from pyfsb.cli.arguments import Commands, add_output, print_json, print_rows, print_text
from pyfsb.config.run_spec import available_cores
from pyfsb.engines.cluster_checks import Check, Verdict, check_cluster
from pyfsb.engines.cluster_client import connect, is_configured
from pyfsb.errors import EXIT_CONFIG, EXIT_OK, FsbError, UnknownNameError
from pyfsb.storage.locks import keeps_conditions
from pyfsb.storage.workspace import cache_folder

_AREAS: Final = ("machine", "storage", "cluster")
_PACKAGES: Final = (
    ("tokenizers", "data"), ("torch", "models"), ("transformers", "models"), ("deepspeed", "train"),
    ("scipy", "eval"), ("kserve", "serving"), ("kfp", "pipelines"), ("kubernetes", "cluster"),
)  # fmt: skip
"""Package and the extra that brings it."""
_EXTENSION: Final = "ops/comm/deepspeed_shm_comm_op*.so"
_FREE_BYTES: Final = 5 * 2**30
_IMPORT_SECONDS: Final = 120


def add_commands(commands: Commands) -> None:
    """Add the verb."""
    parser = commands.add_parser(
        "doctor", help="check this machine, the object store and the cluster",
        description="Without AREA it checks the machine, the store if --store or "
        "FSB_MODEL_STORE names one, and the cluster if one is configured. The exit code is 2 when "
        "something that runs need is missing.",
    )  # fmt: skip
    parser.add_argument("areas", metavar="AREA", nargs="*", help=", ".join(_AREAS))
    parser.add_argument(
        "--store", metavar="URI", help="s3:// prefix to try (default: FSB_MODEL_STORE)"
    )
    parser.add_argument("-n", "--namespace", help="namespace of the cluster to check")
    parser.add_argument(
        "--imports", action="store_true", help="also import torch and deepspeed, which takes time"
    )
    add_output(parser)
    parser.set_defaults(handler=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    for area in arguments.areas:
        if area not in _AREAS:
            raise UnknownNameError("area", area, _AREAS)
    store = arguments.store or os.environ.get("FSB_MODEL_STORE")
    wanted = {"machine": True, "storage": bool(store), "cluster": is_configured()}
    areas = arguments.areas or [area for area, is_wanted in wanted.items() if is_wanted]
    checks: dict[str, list[Check]] = {}
    if "machine" in areas:
        checks["machine"] = list(check_machine(with_imports=arguments.imports))
    if "storage" in areas:
        checks["storage"] = list(check_storage(store))
    if "cluster" in areas:
        checks["cluster"] = _check_cluster(arguments.namespace)
    _print(checks, arguments.form, [area for area in _AREAS if area not in areas])
    failed = any(check.verdict is Verdict.FAILED for area in checks.values() for check in area)
    return EXIT_CONFIG if failed else EXIT_OK


def check_machine(*, with_imports: bool) -> Iterator[Check]:
    """Check this machine; nothing heavy is imported unless asked for.

    Args:
        with_imports: Import torch and deepspeed in a process of their own.
    """
    words = f"fengshenbang {__version__}, Python {platform.python_version()}"
    yield Check(
        name="Python", verdict=Verdict.OK,
        found=f"{words}, {available_cores()} cores, {platform.system()} {platform.machine()}",
    )  # fmt: skip
    for package, extra in _PACKAGES:
        yield _check_package(package, extra)
    yield _check_extension()
    yield _check_cache()
    if with_imports:
        for package in ("torch", "deepspeed"):
            if util.find_spec(package):
                yield _check_import(package)


def check_storage(store: str | None) -> Iterator[Check]:
    """Check that an object store keeps what is put there, and whether it honours conditions.

    Args:
        store: An s3:// prefix; a probe is written below it and removed.
    """
    if not store:
        yield Check(
            name="object store", verdict=Verdict.FAILED, found="none named",
            remedy="name one: --store s3://bucket/prefix",
        )  # fmt: skip
        return
    probe = storage.join(store, f".probe-{uuid.uuid4().hex}")
    try:
        storage.write_bytes(probe, b"1")
        is_kept = storage.read_bytes(probe) == b"1"
        storage.delete(probe)
    except FsbError as exc:
        yield Check(
            name="object store", verdict=Verdict.FAILED, found=str(exc),
            remedy="set AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY "
            "(docs/guides/storage.md)",
        )  # fmt: skip
        return
    yield Check(
        name="object store", verdict=Verdict.OK if is_kept else Verdict.FAILED,
        found=f"{store} can be written, read and deleted" if is_kept else f"{store} loses writes",
    )  # fmt: skip
    is_strict = keeps_conditions(store)
    yield Check(
        name="conditional writes", verdict=Verdict.OK if is_strict else Verdict.WARNING,
        found="honoured" if is_strict else "ignored",
        remedy="" if is_strict else "run locks are advisory and aliases of models cannot be "
        "moved; use a store that honours If-None-Match and If-Match",
    )  # fmt: skip


def _check_cluster(namespace: str | None) -> list[Check]:
    try:
        client = connect(namespace)
    except FsbError as exc:
        return [Check(name="API server", verdict=Verdict.FAILED, found=str(exc))]
    return check_cluster(client)


def _check_package(package: str, extra: str) -> Check:
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        return Check(
            name=package, verdict=Verdict.SKIPPED, found="not installed",
            remedy=f"pip install 'fengshenbang[{extra}]' where this machine is to do that",
        )  # fmt: skip
    return Check(name=package, verdict=Verdict.OK, found=version)


def _check_extension() -> Check:
    """Look for DeepSpeed's CPU extension, without which each first start compiles for minutes."""
    name, found = "deepspeed extension", util.find_spec("deepspeed")
    if not found or not found.submodule_search_locations:
        return Check(name=name, verdict=Verdict.SKIPPED, found="deepspeed is not installed")
    folder = Path(next(iter(found.submodule_search_locations)))
    if any(folder.glob(_EXTENSION)):
        return Check(name=name, verdict=Verdict.OK, found="built into the package")
    has_compiler = bool(shutil.which("g++") and shutil.which("ninja"))
    return Check(
        name=name, verdict=Verdict.WARNING,
        found="compiled at the first start" if has_compiler else "not built, and no g++ with ninja",
        remedy="build it once, as `make setup` does; accelerators do not need it",
    )  # fmt: skip


def _check_cache() -> Check:
    folder = cache_folder()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    is_enough = free >= _FREE_BYTES and os.access(there, os.W_OK)
    return Check(
        name="cache folder", verdict=Verdict.OK if is_enough else Verdict.WARNING,
        found=f"{folder}, {free / 2**30:.0f} GiB free",
        remedy="" if is_enough else "set FSB_CACHE to a writable folder with 5 GiB free",
    )  # fmt: skip


def _check_import(package: str) -> Check:
    command = [sys.executable, "-c", f"import {package}"]
    name = f"import {package}"
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter
            command, capture_output=True, text=True, timeout=_IMPORT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Check(name=name, verdict=Verdict.FAILED, found=f"not in {_IMPORT_SECONDS} s")
    if done.returncode:
        words = done.stderr.strip().rpartition("\n")[2]
        return Check(name=name, verdict=Verdict.FAILED, found=words, remedy="reinstall: make setup")
    return Check(name=name, verdict=Verdict.OK, found="works")


def _print(checks: dict[str, list[Check]], form: str, left_out: list[str]) -> None:
    rows = [(area, check) for area, found in checks.items() for check in found]
    if form == "json":
        print_json(
            [
                {
                    "area": area, "name": check.name, "verdict": check.verdict.value,
                    "found": check.found, "remedy": check.remedy,
                }
                for area, check in rows
            ]
        )  # fmt: skip
        return
    for area, found in checks.items():
        table = [(check.verdict.value, check.name, check.found) for check in found]
        print_rows(area, ("verdict", "what", "found"), table)
        todo = [check for check in found if check.remedy]
        if todo:
            print_text("\nwhat to do")
        for check in todo:
            print_text(f"  {check.name}: {check.remedy}")
        print_text("")
    hints = {
        "storage": "storage: not checked; --store s3://bucket/prefix names one",
        "cluster": "cluster: not checked; set KUBECONFIG to a cluster's file",
    }
    for area in left_out:
        if area in hints:
            print_text(hints[area])
