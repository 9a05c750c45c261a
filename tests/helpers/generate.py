"""Generated files and their sources: `python -m tests.helpers.generate [--write]`.

Without `--write` it compares and fails on the first difference; files are compared as what they
hold, not byte by byte, where the writer's version shows (gzip).
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import sys
from pathlib import Path

from pipelines.compile import FOLDER as COMPILED
from pipelines.compile import MANIFESTS, compile_all
from pyfsb.cli.schema import json_schema
from pyfsb.registry.rendering import update_guide
from tests.helpers.helm import CHART, crd_templates
from tests.helpers.readme import update_map

ROOT = Path(__file__).parent.parent.parent


def sources() -> dict[Path, str]:
    """Return the text that every generated file should have."""
    texts = {
        ROOT / f"docs/schemas/{kind}.schema.json": json.dumps(
            json_schema(kind), ensure_ascii=False, indent=2
        )
        + "\n"
        for kind in ("run", "task")
    }
    texts |= {ROOT / "docs/examples/data" / name: text for name, text in _samples().items()}
    for name, text in compile_all().items():
        texts[COMPILED / name] = text
        if name.startswith(f"{MANIFESTS}/"):  # a chart reads no file outside of itself
            texts[CHART / "files/pipelines" / name.removeprefix(f"{MANIFESTS}/")] = text
    texts |= {CHART / "templates/crds" / name: text for name, text in crd_templates().items()}
    readme = ROOT / "README.md"
    texts[readme] = update_map(readme.read_text(encoding="utf-8"))
    guide = ROOT / "docs/guides/models.md"
    texts[guide] = update_guide(guide.read_text(encoding="utf-8"))
    return texts


def read(path: Path) -> str | None:
    """Return the text of a generated file, or None when there is none."""
    if not path.is_file():
        return None
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")


def write(path: Path, text: str) -> None:
    """Write a generated file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    path.write_bytes(gzip.compress(data, 9, mtime=0) if path.suffix == ".gz" else data)


def _samples() -> dict[str, str]:
    path = ROOT / "docs/examples/make_samples.py"
    module_spec = importlib.util.spec_from_file_location("make_samples", path)
    assert module_spec
    assert module_spec.loader
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    files: dict[str, str] = module.make_files()
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write what differs")
    is_writing = parser.parse_args().write
    different = [path for path, text in sources().items() if read(path) != text]
    for path in different:
        if is_writing:
            write(path, sources()[path])
        sys.stdout.write(f"{'wrote' if is_writing else 'differs'}: {path.relative_to(ROOT)}\n")
    return 0 if is_writing or not different else 1


if __name__ == "__main__":
    sys.exit(main())
