"""One demo run that the tests of this folder look at from all sides."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.helpers.specs import fsb, tiny_spec

DEMO = str(ROOT / "docs/examples/demo.yaml")


@dataclass(frozen=True)
class DemoRun:
    """A finished `fsb run docs/examples/demo.yaml`."""

    output: Path
    result: dict[str, Any]
    """What it printed with --output json."""
    log: str

    @property
    def arguments(self) -> list[str]:
        """Arguments that mean the same run again.

        Six of twenty epochs: the loss falls by more than a nat in them, the fine-tuned scores are
        as far above the majority, and nothing else that tests look at depends on their number.
        """
        settings = [f"output={self.output}", "serving.port=0", "training.num_epochs=6"]
        return [DEMO, *(part for value in settings for part in ("--set", value))]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """Run the demo once; about two minutes."""
    output = tmp_path_factory.mktemp("demo") / "run"
    run = DemoRun(output=output, result={}, log="")
    done = fsb("run", *run.arguments, "--output", "json", timeout=550)
    assert done.returncode == 0, done.stderr[-5000:]
    return DemoRun(output=output, result=json.loads(done.stdout), log=done.stderr)


def whole_spec(output: Path | str, **changes: Any) -> dict[str, Any]:
    """Return a spec with all five stages, as small as can be."""
    return tiny_spec(
        output,
        **{
            "training__max_steps": 6,
            "evaluation": {
                "tasks": ["eprstmt"],
                "finetune": {
                    "optimizer": {"learning_rate": 0.005}, "batch": {"tokens": 512},
                    "num_epochs": 1, "max_steps": 60, "max_tokens": 48,
                },
            },
            "serving": {"port": 0},
            **changes,
        },
    )  # fmt: skip
