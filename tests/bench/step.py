"""B6: an optimizer step of a masked language model on one CPU thread, beside Hugging Face's.

The same documents, targets and first weights; forward, backward, clipping and fused AdamW as
Trainer does them, dropout 0 so that losses can be compared. The peer pads to the longest length,
to the longest of a batch, or sorts by length first. Both processes stay alive and take turns;
figures are CPU seconds, and the limit is torch.mm in the same round. The share of it counts model
FLOPs: the last layer whole, though we compute its feed-forward part at the targets only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForMaskedLM

from pyfsb.config import Family
from pyfsb.models.heads import build_loss
from pyfsb.training.flops import FlopCounter
from tests.bench.peers import peer_python
from tests.conftest import ROOT

WAYS = {"max length": 7.0, "dynamic": 3.5, "length buckets": 2.7}
"""Ways of the peer, and how many times faster we want to be."""
TARGET_SHARE = 0.70
CONFIG = {
    "vocab_size": 21128, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6,
    "intermediate_size": 1536, "max_position_embeddings": 512, "pad_token_id": 0,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
ADAMW = {"lr": 1e-4, "weight_decay": 0.01}
DISTRIBUTIONS = {"pairs": (38, 0.6, 128), "web documents": (170, 0.8, 512)}
"""Mean and spread of a log-normal length, and where it is cut: like CLUE's pairs, like web text."""
MASK_RATIO, MM_SIZE = 0.15, 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=4096, help="of one step")
    arguments, _ = parser.parse_known_args()
    torch.set_num_threads(1)
    for name, (mean, spread, cap) in DISTRIBUTIONS.items():
        with tempfile.TemporaryDirectory() as folder:
            settings = {
                "architecture": "bert", "config": CONFIG, "adamw": ADAMW, "cap": cap,
                "ways": list(WAYS),
            }  # fmt: skip
            rounds = [
                draw_round(number, arguments.tokens, mean, spread, cap)
                for number in range(arguments.rounds + 1)
            ]
            print(f"{name}: mean {mean}, at most {cap}; {describe(rounds)}")
            compare(Path(folder), settings, rounds)


def draw_round(seed: int, tokens: int, mean: int, spread: float, cap: int) -> dict[str, Any]:
    """Return the documents of one step."""
    rng = np.random.default_rng([seed, cap])
    lengths: list[int] = []
    while sum(lengths) < tokens:
        drawn = rng.lognormal(np.log(mean) - spread**2 / 2, spread)
        lengths.append(int(np.clip(drawn, 8, cap)))
    total = sum(lengths)
    positions = np.sort(rng.choice(total, int(MASK_RATIO * total), replace=False))
    return {
        "ids": rng.integers(5, CONFIG["vocab_size"], total), "lengths": np.array(lengths),
        "positions": positions, "targets": rng.integers(5, CONFIG["vocab_size"], positions.size),
    }  # fmt: skip


def describe(rounds: list[dict[str, Any]]) -> str:
    lengths = np.concatenate([data["lengths"] for data in rounds])
    return (
        f"{lengths.sum() // len(rounds)} tokens a step in {lengths.size // len(rounds)} documents"
    )


def compare(folder: Path, settings: dict[str, Any], rounds: list[dict[str, Any]]) -> None:
    """Take turns over the rounds (the first is not counted) and print the table."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(settings["architecture"], **settings["config"])
    model = AutoModelForMaskedLM.from_config(config).train()
    torch.save(model.state_dict(), folder / "weights.pt")
    (folder / "settings.json").write_text(json.dumps(settings))
    for number, data in enumerate(rounds):
        np.savez(folder / f"round{number}.npz", **data)
    ours = OurStep(model)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ("ours", *WAYS)}
    shares = []
    counter = FlopCounter.of(settings["architecture"], settings["config"])
    with start_peer(folder) as ask:
        for number, data in enumerate(rounds):
            for way in WAYS:
                found[way].append(ask({"round": number, "way": way}))
            peak = measure_mm()
            found["ours"].append(ours.step(data))
            flops = counter.count(data["lengths"], data["targets"].size)
            shares.append(flops / found["ours"][-1]["seconds"] / peak)
            print(".", end="", flush=True, file=sys.stderr)
    tokens = [data["ids"].size for data in rounds]
    report(found, shares[1:], tokens[1:], measured_peak=peak)


class OurStep:
    """The model in flat layout, and the optimizer."""

    def __init__(self, model: Any) -> None:
        self.loss = build_loss(model, Family.FILL_MASK, "flat")
        self.optimizer = torch.optim.AdamW(model.parameters(), fused=True, **ADAMW)

    def step(self, data: dict[str, Any]) -> dict[str, float]:
        started = time.process_time()
        loss = self.loss(
            input_ids=torch.from_numpy(data["ids"]), lengths=torch.from_numpy(data["lengths"]),
            target_positions=torch.from_numpy(data["positions"]),
            target_ids=torch.from_numpy(data["targets"]),
        ) / data["targets"].size  # fmt: skip
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.loss.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {"seconds": time.process_time() - started, "loss": float(loss.detach())}


@contextmanager
def start_peer(folder: Path) -> Iterator[Any]:
    """Yield a function that has the peer take a step."""
    program = str(ROOT / "tests/bench/programs/step_trainer.py")
    with subprocess.Popen(
        [str(peer_python("transformers")), program, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError("the peer did not start; its reason stands above")

        def ask(asked: dict[str, Any]) -> Any:
            assert process.stdin
            assert process.stdout
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


def measure_mm() -> float:
    """Return the FLOP/s of torch.mm in CPU time: the limit."""
    left, right = torch.randn(MM_SIZE, MM_SIZE), torch.randn(MM_SIZE, MM_SIZE)
    torch.mm(left, right)
    started = time.process_time()
    for _ in range(20):
        torch.mm(left, right)
    return 20 * 2 * MM_SIZE**3 / (time.process_time() - started)


def report(
    found: dict[str, list[dict[str, float]]], shares: list[float], tokens: list[int],
    *, measured_peak: float,
) -> None:  # fmt: skip
    print(file=sys.stderr)
    ours = found["ours"]
    for name, steps in found.items():
        speeds = [count / step["seconds"] for count, step in zip(tokens, steps[1:], strict=True)]
        line = f"  {name:15} {statistics.median(speeds):7.0f} tokens/s"
        if name != "ours":
            ratios = [
                other["seconds"] / own["seconds"]
                for own, other in zip(ours[1:], steps[1:], strict=True)
            ]
            gaps = [abs(a["loss"] - b["loss"]) for a, b in zip(ours, steps, strict=True)]
            line += (
                f"   ours is {statistics.median(ratios):5.2f}x ({min(ratios):.2f}–{max(ratios):.2f}),"
                f" wanted {WAYS[name]}x; loss differs by {gaps[0]:.1e} in the first step,"
                f" {max(gaps):.1e} at most in {len(gaps)}"
            )
        print(line)
    print(
        f"  of torch.mm ({measured_peak / 1e9:.0f} GFLOP/s): {statistics.median(shares):.2f} "
        f"({min(shares):.2f}–{max(shares):.2f}), wanted {TARGET_SHARE:.2f}; one thread, CPU seconds",
        flush=True,
    )


if __name__ == "__main__":
    main()
