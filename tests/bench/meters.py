"""What telling a step costs, beside the step itself and one line appended to a file.

A training step of a small encoder on one CPU thread (2 layers of 256, 2,048 tokens) and
`Meters.record` with everything on (lines, gauges, textfile, TensorBoard) and the timer's parts, in
turn in one process; CPU time of all threads. The limit is appending one line.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pyfsb.training.meters import Meters, StepOutcome
from pyfsb.training.progress import Work
from pyfsb.training.timing import StepTimer

NUM_STEPS = 150


def main() -> None:
    import torch
    from torch import nn

    torch.set_num_threads(1)
    layer = nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True, dropout=0.0)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    optimizer = torch.optim.AdamW(model.parameters())
    batch = torch.randn(16, 128, 256)
    costs: dict[str, list[float]] = {"step": [], "meters": [], "line": []}
    with tempfile.TemporaryDirectory() as folder:
        meters = Meters(Path(folder), name="bench", work=Work(num_steps=NUM_STEPS), step=0)
        timer = StepTimer()
        with Path(folder, "limit").open("a") as limit:
            for step in range(1, NUM_STEPS + 1):

                def train() -> None:
                    model(batch).square().mean().backward()
                    optimizer.step()
                    optimizer.zero_grad()

                def tell(step: int = step) -> None:
                    for _ in range(8):
                        with timer.part("compute"), timer.part("communication"):
                            pass
                    meters.record(_outcome(step, timer))

                def append() -> None:
                    limit.write("x" * 500 + "\n")
                    limit.flush()

                costs["step"].append(_cpu_seconds(train))
                costs["meters"].append(_cpu_seconds(tell))
                costs["line"].append(_cpu_seconds(append))
        meters.close()
    middle = {name: statistics.median(values) for name, values in costs.items()}
    mean = {name: statistics.mean(values) for name, values in costs.items()}
    print("CPU time           median        mean")
    for name in costs:
        print(f"{name:8} {middle[name] * 1e6:12,.0f} us {mean[name] * 1e6:9,.0f} us")
    print(f"meters are {mean['meters'] / mean['step']:.3%} of a step (target: below 1 %)")


def _outcome(step: int, timer: StepTimer) -> StepOutcome:
    parts = timer.take()
    return StepOutcome(
        step=step, loss=2.5, gradient_norm=1.0, learning_rate=0.1, epoch=0, num_samples=step,
        num_tokens=step, num_targets=1, num_step_tokens=2048, num_step_samples=16, num_flops=1e9,
        seconds=parts.seconds, data_seconds=parts.data_seconds,
        communication_seconds=parts.communication_seconds,
    )  # fmt: skip


def _cpu_seconds(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
