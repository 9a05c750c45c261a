"""Every ZeRO stage over several numbers of processes, through the real loop and store.

`python -m tests.helpers.zero_stages FOLDER` forks the groups (imports cost once) and writes
found.json; called by `tests/integration/test_zero_stages.py`.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.helpers.groups import load, run_ranks

CHAIN = ((1, 3), (2, 6), (4, 9), (2, 12), (1, 15))
"""Numbers of processes that follow each other, and the step after which each is stopped."""
STAGES: dict[str, dict[str, Any]] = {
    "0": {"zero_stage": 0},
    "1": {"zero_stage": 1},
    "2": {"zero_stage": 2},
    "3": {"zero_stage": 3},
    "z2-offload": {"profile": "z2-offload"},
    "z3-offload": {"profile": "z3-offload"},
}
REPEATED = ("0", "1", "2", "3", "z3-offload")
HALF = ("1", "z2-offload")
"""What is tried in bf16 too: other optimizers of DeepSpeed than in fp32."""


def run(size: int, **settings: Any) -> dict[str, Any]:
    """Train in a new group of ranks; returns what the first one saw."""

    def work(group: Any) -> dict[str, Any]:
        from tests.helpers.loop_runs import Run, train

        seen = train(Run(**settings), group)
        return {
            "losses": seen.losses,
            "norms": [outcome.gradient_norm for outcome in seen.outcomes],
            "steps": [outcome.step for outcome in seen.outcomes],
            "weight": float(sum(value.double().abs().sum() for value in seen.weights.values())),
        }

    found: dict[str, Any] = run_ranks(size, work)[0]
    return found


def chain(folder: Path, stages: str) -> dict[str, list[float]]:
    """Go on from group to group of other sizes, each in its stage; returns losses and norms."""
    total: dict[str, list[float]] = {"losses": [], "norms": []}
    for (size, stop_at), stage in zip(CHAIN, stages, strict=True):
        last = CHAIN[-1][1]
        found = run(
            size, folder=folder, zero=STAGES[stage], num_steps=last,
            stop_at=None if stop_at == last else stop_at,
        )  # fmt: skip
        for key, values in total.items():
            values += found[key]
    return total


def repeat(folder: Path, zero: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Train with dropout as a whole, and in two pieces."""
    settings |= {"zero": zero, "dropout": 0.1, "num_steps": 8}
    whole = run(2, folder=folder / "whole", **settings)
    first = run(2, folder=folder / "parts", stop_at=4, **settings)
    rest = run(2, folder=folder / "parts", **settings)
    parts = {key: first[key] + rest[key] for key in ("losses", "norms", "steps")}
    return {"whole": whole, "parts": {**parts, "weight": rest["weight"]}}


def main() -> None:
    folder = Path(sys.argv[1])
    load()
    import tests.helpers.loop_runs  # noqa: F401 - once, before the ranks are forked

    steps = CHAIN[-1][1]
    found: dict[str, Any] = {
        "whole": run(2, folder=folder / "whole", num_steps=steps),
        "chain": {
            stages: chain(folder / stages, stages)
            for stages in ("00000", "11111", "22222", "33333", "31203")
        },
        "repeat": {name: repeat(folder / name, STAGES[name]) for name in REPEATED},
        "half": {
            name: repeat(folder / f"bf16 {name}", STAGES[name], precision="bf16") for name in HALF
        },
    }
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
