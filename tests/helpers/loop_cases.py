"""What the loop does with bad steps, early ends and adapters, in forked ranks.

`python -m tests.helpers.loop_cases FOLDER` writes found.json; called by
`tests/unit/training/test_loop.py`, which says what is expected.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.helpers.groups import load, run_ranks

STAGES: dict[str, dict[str, Any]] = {
    "0": {"zero_stage": 0},
    "1": {"zero_stage": 1},
    "2": {"zero_stage": 2},
    "3": {"zero_stage": 3},
    "z2-offload": {"profile": "z2-offload"},
}
SPIKES = {
    "max_norm_ratio": 5.0, "num_reference_steps": 4, "max_skipped_steps": 3, "max_rewinds": 1,
}  # fmt: skip
STEADY = {"learning_rate": 1e-2, "schedule": "constant", "warmup_ratio": 0.0}


class Scripted:
    """A validation that reads its values from a list, by the updates that were made."""

    def __init__(self, values: list[float]) -> None:
        self._values = values

    def measure(self, engine: Any, group: Any) -> float:
        from pyfsb.training.fragments import optimizer_steps

        assert group.size >= 1
        return self._values[optimizer_steps(engine) // 2 - 1]


def run(
    size: int, folder: Path, *, spikes: dict[str, Any] | None = None, lora: bool = False,
    optimizer: dict[str, Any] | None = None, values: list[float] | None = None,
    bad_steps: tuple[int, ...] = (), factor: float = math.nan, **settings: Any,
) -> dict[str, Any]:  # fmt: skip
    """Train in new ranks; returns what the first one saw, or its error."""

    def work(group: Any) -> dict[str, Any]:
        from pyfsb.config import LoraSpec, OptimizerSpec, SpikeSpec
        from pyfsb.errors import FsbError
        from pyfsb.training.fragments import optimizer_steps
        from tests.helpers.loop_runs import Run, samples_of, train

        lines: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("pyfsb.training.steering").addHandler(handler)
        logging.getLogger("pyfsb.training.steering").setLevel(logging.INFO)
        more: dict[str, Any] = dict(settings)
        if spikes:
            more["spikes"] = SpikeSpec.model_validate(spikes)
        if lora:
            more["lora"] = LoraSpec(rank=4)
        if optimizer:
            more["optimizer"] = OptimizerSpec.model_validate(optimizer)
        plain = Run(folder=folder)
        poison = dict.fromkeys(samples_of(plain, *bad_steps), factor) if bad_steps else {}
        validation = Scripted(values) if values else None
        try:
            seen = train(
                Run(folder=folder, poison=poison, **more), group, validation=validation,
                validate_every_steps=2 if values else None, patience=2 if values else None,
            )  # fmt: skip
        except FsbError as exc:
            return {"error": f"{type(exc).__name__}: {exc}", "lines": lines}
        return {
            "losses": [None if math.isnan(x) else x for x in seen.losses],
            "skipped": [o.step for o in seen.outcomes if o.is_skipped],
            "steps": [o.step for o in seen.outcomes],
            "validation": [o.validation_loss for o in seen.outcomes],
            "rewinds": seen.rewinds,
            "lines": lines,
            "updates": optimizer_steps(seen.engine),
            "scale": seen.engine.loss_scale_state(),
            "state": seen.end.state.to_json(),
            "best": seen.end.best.to_json(),
            "is_complete": seen.end.is_complete,
            "bad_samples": sorted(poison),
            "weight": float(sum(v.double().abs().sum() for v in seen.weights.values())),
            "frozen": float(
                sum(v.double().sum() for n, v in seen.weights.items() if "lora" not in n)
            ),
        }

    found: dict[str, Any] = run_ranks(size, work)[0]
    return found


def halves(size: int, folder: Path, stop_at: int, **settings: Any) -> dict[str, Any]:
    """Train as a whole, and in two pieces."""
    whole = run(size, folder / "whole", **settings)
    first = run(size, folder / "parts", stop_at=stop_at, **settings)
    return {"whole": whole, "first": first, "rest": run(size, folder / "parts", **settings)}


def bad_step(folder: Path) -> dict[str, Any]:
    """One step that is no number and one spike, for every optimizer of DeepSpeed."""
    found = {}
    for name, zero in STAGES.items():
        for kind, factor in (("nan", math.nan), ("spike", 1e4))[: 2 if name in "13" else 1]:
            found[f"{kind} {name}"] = run(
                2, folder / f"{kind} {name}", zero=zero, bad_steps=(6,), factor=factor,
                spikes=SPIKES, num_steps=9,
            )  # fmt: skip
    return found


def rewind(folder: Path) -> dict[str, Any]:
    """Three bad steps in a row, behind a saved state; as a whole and in two pieces."""
    settings: dict[str, Any] = {
        "bad_steps": (9, 10, 11), "factor": 1e4, "spikes": SPIKES, "num_steps": 14,
        "save_every_steps": 4, "dropout": 0.1,
    }  # fmt: skip
    return halves(2, folder, 10, zero=STAGES["1"], **settings)


def hopeless(folder: Path) -> dict[str, Any]:
    """Nothing but bad steps, with a saved state and without."""
    bad = tuple(range(9, 20))
    settings: dict[str, Any] = {"bad_steps": bad, "spikes": SPIKES, "num_steps": 30}
    return {
        "saved": run(1, folder / "saved", save_every_steps=4, **settings),
        "unsaved": run(1, folder / "unsaved", save_every_steps=100, **settings),
    }


def early_stop(folder: Path) -> dict[str, Any]:
    """The measurement at step 6 is the best; stopped between steps, and at a due one."""
    settings: dict[str, Any] = {
        "values": [5.0, 4.0, 3.0, 3.5, 3.2, 9.9], "optimizer": STEADY, "num_steps": 30,
        "zero": STAGES["2"],
    }  # fmt: skip
    found = halves(2, folder / "between", 5, **settings)
    found["due"] = halves(1, folder / "due", 6, **settings)
    shorter = {**settings, "values": None, "num_steps": 6}
    found["six"] = run(2, folder / "six", **shorter)
    from safetensors.torch import load_file

    for name in ("whole", "parts"):
        path = folder / "between" / name / "best/step-00000006/weights.safetensors"
        weights = load_file(path)
        found[f"kept {name}"] = float(sum(v.double().abs().sum() for v in weights.values()))
    return found


def adapters(folder: Path) -> dict[str, Any]:
    """LoRA over the stages, in two pieces."""
    found = {}
    for name in ("1", "3"):
        place = folder / name
        found[name] = halves(
            2, place, 3, zero=STAGES[name], lora=True, num_steps=6, dropout=0.1
        )  # fmt: skip
        index = next((place / "whole/state").glob("step-*/index.json"))
        found[name]["saved"] = sorted(json.loads(index.read_text()))
    return found


def overflow(folder: Path) -> dict[str, Any]:
    """fp16 with losses far beyond it, twice, which lowers the scale once."""
    from deepspeed.accelerator import get_accelerator

    get_accelerator().is_fp16_supported = lambda: True
    return {
        name: run(
            1, folder / name, zero=STAGES[name], precision="fp16", bad_steps=(2, 3), factor=1e6,
            num_steps=6, spikes=SPIKES,
        )
        for name in ("0", "2")
    }  # fmt: skip


def recomputed(folder: Path) -> dict[str, Any]:
    """Activation checkpointing computes the same."""
    return {
        f"{name} {is_on}": run(
            2, folder / f"{name} {is_on}", zero=STAGES[name], checkpoints_activations=is_on,
            num_steps=4, dropout=0.1,
        )
        for name in ("0", "3")
        for is_on in (True, False)
    }  # fmt: skip


CASES: tuple[Callable[[Path], dict[str, Any]], ...] = (
    bad_step, rewind, hopeless, early_stop, adapters, overflow, recomputed,
)  # fmt: skip


def main() -> None:
    folder = Path(sys.argv[1])
    load()
    import peft  # noqa: F401 - once, before the ranks are forked

    import tests.helpers.loop_runs  # noqa: F401

    chosen = sys.argv[2:] or [case.__name__ for case in CASES]
    found = {case.__name__: case(folder / case.__name__) for case in CASES
             if case.__name__ in chosen}  # fmt: skip
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
