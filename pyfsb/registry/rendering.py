# SPDX-License-Identifier: Apache-2.0
"""The registry as tables in Markdown, for the guide of models.

Called by `make generate` and its check; writes no file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from pyfsb.errors import ConfigError
from pyfsb.registry.catalogue import all_catalogue_rows, all_headings
from pyfsb.registry.lookup import all_entries

_HEADER: Final = (
    "模型 model", "系列 series", "任务 task", "参数 parameters", "结构 architecture",
    "能力 family", "目标 objective", "分词 tokenizer", "长度 tokens",
)  # fmt: skip
_CATALOGUE_HEADER: Final = (
    "模型 heading",
    "rows",
    "class",
    "fine-tune to",
    "why there is no class",
)


def render_table() -> str:
    """Return a table of every entry of the family."""
    rows = [
        (
            f"[{entry.name}](https://huggingface.co/{entry.hub_id})",
            f"{entry.series.chinese} {entry.series.value}",
            f"{entry.task.chinese} {entry.task.value}",
            _in_millions(entry.num_parameters)
            + (f" ({_in_millions(entry.built_parameters)})" if entry.built_parameters else ""),
            entry.architecture,
            ", ".join(family.value for family in entry.families),
            entry.objective.value,
            entry.tokenizer,
            f"{entry.max_tokens:,}",
        )
        for entry in all_entries()
    ]
    return _table(_HEADER, rows)


def render_catalogue() -> str:
    """Return a table of the headings of the catalogue."""
    rows = []
    for heading in all_headings():
        members = [row for row in all_catalogue_rows() if row.heading == heading]
        classes = sorted({row.architecture for row in members if row.architecture})
        families = list(dict.fromkeys(f.value for row in members for f in row.families))
        whys = list(dict.fromkeys(row.why_not for row in members if row.why_not))
        rows.append(
            (
                heading,
                str(len(members)),
                ", ".join(classes) or "none",
                ", ".join(families),
                "; ".join(whys),
            )
        )
    return _table(_CATALOGUE_HEADER, rows)


def update_guide(text: str) -> str:
    """Return the guide with its generated tables as the registry has them.

    Args:
        text: The guide, with `<!-- models -->`, `<!-- catalogue -->` and an end marker for each.

    Raises:
        ConfigError: A marker is missing.
    """
    for name, table in (("models", render_table()), ("catalogue", render_catalogue())):
        found = re.search(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", text, re.DOTALL)
        if not found:
            raise ConfigError(f"the guide of models has no <!-- {name} --> … <!-- /{name} -->")
        text = text[: found.start()] + table + text[found.end() :]
    return text


def _in_millions(count: int) -> str:
    return f"{count / 1e6:,.0f} M"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
