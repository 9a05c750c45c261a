"""The README's map of rooms, made from the first line of each package's docstring."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
BEGIN, END = "<!-- map: generated -->", "<!-- end of map -->"
_ROOMS = ("pyfsb", "operators", "pipelines", "serving")


def update_map(readme: str) -> str:
    """Return the README with its map made anew."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    assert pattern.search(readme), "the README has no map"
    return pattern.sub(lambda _: f"{BEGIN}\n{make_map()}{END}", readme)


def make_map() -> str:
    """Return a table of every package and single module of the rooms, with its purpose."""
    lines = ["| room | what it is |", "|---|---|"]
    for room in _ROOMS:
        lines.append(f"| **`{room}/`** | {purpose(ROOT / room / '__init__.py')} |")
        for path in sorted((ROOT / room).iterdir()):
            if (path / "__init__.py").is_file():
                lines.append(f"| `{room}/{path.name}/` | {purpose(path / '__init__.py')} |")
            elif room == "pyfsb" and path.suffix == ".py" and path.stem != "__init__":
                lines.append(f"| `{room}/{path.name}` | {purpose(path)} |")
    return "\n".join(lines) + "\n"


def purpose(path: Path) -> str:
    """Return the first line of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.split("\n")[0]
