"""Peer of tests/bench/step.py: optimizer steps as Hugging Face's Trainer takes them.

Reads one JSON line a step on stdin ({"round", "way"}), answers one on stdout. Started with the
folder of the workload; runs in the peer's environment and imports nothing of ours.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForMaskedLM

PADDED_TOKENS = 4096


class Way:
    """A model of its own with one way to pad."""

    def __init__(self, folder: Path, settings: dict[str, Any], name: str) -> None:
        config = AutoConfig.for_model(settings["architecture"], **settings["config"])
        self.model = AutoModelForMaskedLM.from_config(config).train()
        self.model.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), fused=True, **settings["adamw"])
        self.cap, self.name = settings["cap"], name

    def batches(self, lengths: list[int]) -> list[list[int]]:
        """Rows of each forward pass: equal numbers, or for buckets equal padded tokens."""
        rows = list(range(len(lengths)))
        if self.name != "length buckets":
            size = PADDED_TOKENS // self.cap
            return [rows[start : start + size] for start in range(0, len(rows), size)]
        rows.sort(key=lengths.__getitem__)
        found: list[list[int]] = [[]]
        for row in rows:
            if (len(found[-1]) + 1) * lengths[row] > PADDED_TOKENS:
                found.append([])
            found[-1].append(row)
        return found

    def step(self, data: Any) -> float:
        lengths = data["lengths"].tolist()
        ends = np.cumsum(lengths)
        labels = np.full(data["ids"].size, -100)
        labels[data["positions"]] = data["targets"]
        total, loss_sum = data["targets"].size, 0.0
        for rows in self.batches(lengths):
            width = self.cap if self.name == "max length" else max(lengths[row] for row in rows)
            padded = np.zeros((3, len(rows), width), dtype=np.int64)
            padded[2] = -100
            for number, row in enumerate(rows):
                span = slice(ends[row] - lengths[row], ends[row])
                padded[0, number, : lengths[row]] = data["ids"][span]
                padded[1, number, : lengths[row]] = 1
                padded[2, number, : lengths[row]] = labels[span]
            ids, mask, targets = torch.from_numpy(padded)
            num_targets = int((targets != -100).sum())
            if not num_targets:
                continue
            loss = self.model(input_ids=ids, attention_mask=mask, labels=targets).loss
            (loss * (num_targets / total)).backward()
            loss_sum += float(loss.detach()) * num_targets
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss_sum / total


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    settings = json.loads((folder / "settings.json").read_text())
    ways = {name: Way(folder, settings, name) for name in settings["ways"]}
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        data = np.load(folder / f"round{asked['round']}.npz")
        started = time.process_time()
        loss = ways[asked["way"]].step(data)
        print(json.dumps({"seconds": time.process_time() - started, "loss": loss}), flush=True)


if __name__ == "__main__":
    main()
