#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Install one layer of an image: what extras of pyproject.toml need, or the code itself.

The Dockerfiles run it with the tools of their `tools` stage mounted at /build, so that no final
image has pip or a compiler. Byte code is compiled here, because a root file system that is
read-only cannot take it later, and an environment whose requirements do not fit is refused.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import py_compile
import re
import shutil
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

SOURCE = Path("/src")
ENVIRONMENT = Path("/opt/fsb")
PYTHON = str(ENVIRONMENT / "bin/python3")
LOCK = ENVIRONMENT / "lock"
"""In the image: this program, constraints.txt, and what pyproject.toml requires."""
BILL = ENVIRONMENT / "sbom.cdx.json"
PIP = ("/build/pip/bin/pip", "--python", PYTHON, "--quiet")
BILL_TOOL = "/build/sbom/bin/cyclonedx-py"


def requirements(project: dict[str, Any], extras: list[str]) -> list[str]:
    """Return the requirements of the project and of extras, extras of its own followed.

    Raises:
        KeyError: There is no such extra.
    """
    found = dict.fromkeys(project["dependencies"])
    waiting = list(extras)
    while waiting:
        for requirement in project["optional-dependencies"][waiting.pop(0)]:
            own = re.fullmatch(rf"{project['name']}\[(.+)\]", requirement)
            if own:
                waiting += re.split(r"\s*,\s*", own[1])
            else:
                found[requirement] = None
    return sorted(found)


def write_lock(project: dict[str, Any], folder: Path) -> None:
    """Write the part of pyproject.toml that decides what is installed, and this program.

    Whatever else changes in pyproject.toml keeps the layers; JSON's texts and lists are TOML's.
    """
    fields = ("name", "version", "description", "license", "dependencies")
    lines = ["[project]", *(f"{field} = {as_toml(project[field])}" for field in fields)]
    lines += ["[project.optional-dependencies]"]
    lines += [
        f"{name} = {as_toml(extra)}" for name, extra in project["optional-dependencies"].items()
    ]
    folder.mkdir()
    (folder / "pyproject.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name in ("constraints.txt", "layer.py"):
        shutil.copy(SOURCE / name, folder)
    for path in (*folder.iterdir(), folder):
        os.utime(path, (0, 0))


def as_toml(value: str | list[str]) -> str:
    """Return a text or a list of texts in TOML's spelling."""
    return json.dumps(value, ensure_ascii=False)


def read_project(folder: Path) -> dict[str, Any]:
    """Return the table `project` of the pyproject.toml in a folder."""
    text = (folder / "pyproject.toml").read_text(encoding="utf-8")
    project: dict[str, Any] = tomllib.loads(text)["project"]
    return project


def run(*command: str) -> None:
    """Run a command; its failure is this program's."""
    subprocess.run(command, check=True)  # noqa: S603 - lists of our own, no shell


def install(*arguments: str) -> None:
    """Install with pip, without its cache and without byte code."""
    run(*PIP, "install", "--no-compile", "--no-cache-dir", *arguments)


def compile_file(path: Path) -> None:
    """Compile one module; the result is bound to no time, so the same source gives the same."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_file(path, quiet=2, force=True, invalidation_mode=mode)


def finish(since_ns: int, root: Path) -> None:
    """Compile what came since a time, and remove the tests that packages bring (torch: 80 MB)."""
    compiled = []
    for folder, folders, names in os.walk(root):
        if "site-packages" in folder and ".dist-info" not in folder:  # licences have such folders
            for name in {"test", "tests"} & set(folders):
                shutil.rmtree(Path(folder, name))
                folders.remove(name)
        paths = (Path(folder, name) for name in names if name.endswith(".py"))
        compiled += [path for path in paths if path.lstat().st_ctime_ns >= since_ns]
    with ProcessPoolExecutor() as pool:
        list(pool.map(compile_file, compiled, chunksize=16))


def write_bill() -> None:
    """Write the CycloneDX bill of materials of the image, without times and random numbers."""
    project = ("--pyproject", str(LOCK / "pyproject.toml"))
    run(
        BILL_TOOL, "environment", "--output-reproducible", "--output-file", str(BILL),
        *project, PYTHON,
    )  # fmt: skip


def main() -> int:
    """Install a layer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extra", action="append", default=[], help="extra of pyproject.toml")
    parser.add_argument("--package", action="append", default=[], help="further package or wheel")
    parser.add_argument("--code", metavar="FOLDER", help="install the project of /src below there")
    parser.add_argument("--lock", metavar="FOLDER", help="write there what decides the layers")
    parser.add_argument("--bill", action="store_true", help="check, write the bill of materials")
    arguments = parser.parse_args()
    begin = time.time_ns()
    if arguments.code:
        root = Path(arguments.code + str(ENVIRONMENT))
        install("--no-deps", "--no-build-isolation", "--prefix", str(root), str(SOURCE))
        finish(begin, root)
    elif arguments.lock:
        write_lock(read_project(SOURCE), Path(arguments.lock))
    elif arguments.bill:
        run(*PIP, "check")
        write_bill()
    else:
        wanted = requirements(read_project(LOCK), arguments.extra) + arguments.package
        install("--constraint", str(LOCK / "constraints.txt"), *wanted)
        finish(begin, ENVIRONMENT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
