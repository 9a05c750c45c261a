"""Commands and settings in the documentation exist; what they do is run by the integration tests."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pyfsb.cli.__main__ import build_parser
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"^(?:\.venv/bin/)?fsb (.*?)(?:\s+#.*)?$", re.MULTILINE)
LINK = re.compile(r"\]\((?!http|#)([^)#]+)")


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL):
            found += [(page.name, match) for match in COMMAND.findall(block)]
    return found


@pytest.mark.parametrize(("page", "command"), commands())
def test_every_fsb_command_parses(page: str, command: str) -> None:
    arguments = [word for word in shlex.split(command) if word != "…"]
    assert build_parser().parse_args(arguments).handler


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_make_door_is_listed_in_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    documented = set(re.findall(r"^([a-z0-9-]+):.*##", makefile, re.MULTILINE))
    mentioned = {
        door
        for page in PAGES
        for door in re.findall(r"`?make ([a-z0-9-]+)", page.read_text("utf-8"))
    }
    assert mentioned <= documented | {"generate"}
