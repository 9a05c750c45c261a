from __future__ import annotations

import pytest

from pyfsb.errors import ConfigError
from pyfsb.registry.rendering import render_catalogue, render_table, update_guide
from tests.conftest import ROOT

GUIDE = ROOT / "docs/guides/models.md"


def test_the_tables_have_every_entry_and_every_heading() -> None:
    assert render_table().count("\n") == 53 + 2
    assert render_catalogue().count("\n") == 49 + 2
    line = next(line for line in render_table().split("\n") if "Roberta-110M-NLI" in line)
    assert "| 二郎神 Erlangshen | 自然语言理解 NLU | 110 M (102 M) | bert | pair |" in line
    assert "| NEZHA | 5 | none |  | its class was removed" in render_catalogue()


def test_a_row_never_breaks_the_table() -> None:
    for table in (render_table(), render_catalogue()):
        widths = {line.count(" | ") for line in table.strip().split("\n")}
        assert len(widths) == 1


def test_the_guide_is_what_the_registry_gives() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert update_guide(text) == text
    assert update_guide(text.replace("| Taiyi", "| Taiy")) == text


def test_a_guide_without_markers_is_refused() -> None:
    with pytest.raises(ConfigError, match="<!-- models -->"):
        update_guide("# Models")
