"""B7: training steps on an accelerator, beside tuned Hugging Face and its eager fp32.

BERT-large (masked), GPT-2 and DeBERTa-v2 on the same documents: our flat step in bf16; the peer in
bf16 with sdpa (DeBERTa: eager, it has nothing else), dynamic padding by length and fused AdamW; the
peer as it was in 2022, fp32, eager and padded to the longest length. Figures are seconds of the
device; the limit is torch.mm in bf16. Without an accelerator nothing is measured; `--tiny` runs the
same code on tiny models on the CPU, which shows that it runs and nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from pyfsb.config import Family
from pyfsb.models.heads import build_loss, pad_flat
from pyfsb.training.flops import FlopCounter

_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
_DEBERTA = {
    "relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm",
    "share_att_key": True, "pos_att_type": "c2p|p2c", "conv_kernel_size": 3, "conv_act": "gelu",
    "max_relative_positions": -1, "position_biased_input": False, "type_vocab_size": 0,
}  # fmt: skip
MODELS: Final[dict[str, tuple[str, dict[str, Any], dict[str, Any]]]] = {
    "masked, large": (
        "bert", {"vocab_size": 21128, "intermediate_size": 4096, **_LARGE},
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 64, "vocab_size": 500},
    ),
    "GPT-2": (
        "gpt2", {"vocab_size": 50304, "n_embd": 1024, "n_layer": 24, "n_head": 16},
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 500},
    ),
    "DeBERTa-v2": (
        "deberta-v2", {"vocab_size": 12800, "hidden_size": 768, "num_hidden_layers": 12,
                       "num_attention_heads": 12, "intermediate_size": 3072, **_DEBERTA},
        {**_DEBERTA, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 64, "vocab_size": 500, "position_buckets": 32},
    ),
}  # fmt: skip
"""Architecture, config, and what replaces it with --tiny."""
WANTED: Final = {"bf16, tuned": 3.0, "fp32, eager, padded": 8.0}
MAX_TOKENS, MEAN_TOKENS, SPREAD, MASK_RATIO = 512, 170, 0.8, 0.15


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench gpu")
    parser.add_argument("--tiny", action="store_true", help="tiny models, on the CPU: no figures")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32768, help="of one step")
    arguments, _ = parser.parse_known_args()
    if arguments.tiny:
        run_all(torch.device("cpu"), is_tiny=True, num_rounds=1, tokens=600)
        print("tiny, on the CPU: it runs; these are no figures of anything")
    elif not torch.cuda.is_available():
        print("no accelerator: not measured")
    else:
        print(torch.cuda.get_device_name())
        device = torch.device("cuda")
        run_all(device, is_tiny=False, num_rounds=arguments.rounds, tokens=arguments.tokens)


def run_all(device: torch.device, *, is_tiny: bool, num_rounds: int, tokens: int) -> None:
    for name, (kind, full, tiny) in MODELS.items():
        config = {**full, **(tiny if is_tiny else {})}
        rounds = [
            draw_round(seed, tokens, config["vocab_size"], kind) for seed in range(num_rounds + 2)
        ]
        ways: dict[str, Callable[[], Step]] = {
            "ours, bf16": lambda: OurStep(kind, config, device),  # noqa: B023
            "bf16, tuned": lambda: PeerStep(kind, config, device, is_tuned=True),  # noqa: B023
            "fp32, eager, padded": lambda: PeerStep(kind, config, device, is_tuned=False),  # noqa: B023
        }
        steps = {way: make() for way, make in ways.items()}
        counter = FlopCounter.of(kind, config)
        seconds: dict[str, list[float]] = {way: [] for way in steps}
        losses: dict[str, list[float]] = {way: [] for way in steps}
        shares = []
        for number, data in enumerate(rounds):
            for way, step in steps.items():
                taken, loss = timed(step, data, device)
                if number >= 2:  # the first rounds choose kernels and allocate
                    seconds[way].append(taken)
                    losses[way].append(loss)
            if number >= 2:
                flops = counter.count(data["lengths"], data["targets"].size)
                shares.append(flops / seconds["ours, bf16"][-1])
        report(name, seconds, losses, shares, [data["ids"].size for data in rounds[2:]], device)
        del steps
        if device.type == "cuda":
            torch.cuda.empty_cache()


def draw_round(seed: int, tokens: int, vocabulary: int, kind: str) -> dict[str, Any]:
    """Return the documents of one step, like web text."""
    rng = np.random.default_rng(seed)
    lengths: list[int] = []
    while sum(lengths) < tokens:
        drawn = rng.lognormal(np.log(MEAN_TOKENS) - SPREAD**2 / 2, SPREAD)
        lengths.append(int(np.clip(drawn, 8, MAX_TOKENS)))
    total = sum(lengths)
    ids = rng.integers(5, vocabulary, total)
    if kind == "gpt2":
        has_next = np.ones(total, dtype=bool)
        has_next[np.cumsum(lengths) - 1] = False
        positions = np.flatnonzero(has_next)
        targets = ids[positions + 1]
    else:
        positions = np.sort(rng.choice(total, int(MASK_RATIO * total), replace=False))
        targets = rng.integers(5, vocabulary, positions.size)
    return {"ids": ids, "lengths": np.array(lengths), "positions": positions, "targets": targets}


class Step:
    """A model in training, its optimizer, and one step of it."""

    def __init__(
        self, kind: str, config: dict[str, Any], device: torch.device, *, attention: str, dtype: Any
    ) -> None:
        torch.manual_seed(0)
        dropouts = (
            {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
            if kind == "gpt2"
            else {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        )
        built = AutoConfig.for_model(kind, **config, **dropouts, pad_token_id=0)
        build = AutoModelForCausalLM if kind == "gpt2" else AutoModelForMaskedLM
        model = build.from_config(built, attn_implementation=attention)
        self.model = model.to(device=device, dtype=dtype).train()
        self.device = device
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)

    def __call__(self, data: dict[str, Any]) -> torch.Tensor:
        loss = self.accumulate(data)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def accumulate(self, data: dict[str, Any]) -> torch.Tensor:
        raise NotImplementedError

    def send(self, array: Any) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True)


class OurStep(Step):
    """Flat documents, the head at predicted positions only; bf16 weights on both sides."""

    def __init__(self, kind: str, config: dict[str, Any], device: torch.device) -> None:
        super().__init__(kind, config, device, attention="eager", dtype=torch.bfloat16)
        family = Family.GENERATE if kind == "gpt2" else Family.FILL_MASK
        self.loss = build_loss(self.model, family, "flat")

    def accumulate(self, data: dict[str, Any]) -> torch.Tensor:
        loss = self.loss(
            input_ids=self.send(data["ids"]), lengths=torch.from_numpy(data["lengths"]),
            target_positions=self.send(data["positions"]), target_ids=self.send(data["targets"]),
        ) / data["targets"].size  # fmt: skip
        loss.backward()
        return loss.detach()


class PeerStep(Step):
    """Hugging Face's forward pass on padded rows, logits everywhere."""

    def __init__(
        self, kind: str, config: dict[str, Any], device: torch.device, *, is_tuned: bool
    ) -> None:
        attention = "sdpa" if is_tuned and kind != "deberta-v2" else "eager"
        dtype = torch.bfloat16 if is_tuned else torch.float32
        super().__init__(kind, config, device, attention=attention, dtype=dtype)
        self.is_tuned = is_tuned

    def accumulate(self, data: dict[str, Any]) -> torch.Tensor:
        labels = np.full(data["ids"].size, -100)
        labels[data["positions"]] = data["targets"]
        spans = np.split(np.arange(data["ids"].size), np.cumsum(data["lengths"])[:-1])
        if self.is_tuned:
            spans.sort(key=len)
        total, loss_sum, size = data["targets"].size, torch.zeros((), device=self.device), 16
        for start in range(0, len(spans), size):
            rows = spans[start : start + size]
            tokens = np.concatenate(rows)
            lengths = torch.tensor([len(row) for row in rows])
            ids, mask = pad_flat(torch.from_numpy(data["ids"][tokens]), lengths, 0)
            targets, _ = pad_flat(torch.from_numpy(labels[tokens]), lengths, -100)
            missing = 0 if self.is_tuned else MAX_TOKENS - ids.shape[1]
            ids, mask = (functional.pad(rows_BT, (0, missing)) for rows_BT in (ids, mask))
            targets = functional.pad(targets, (0, missing), value=-100).to(self.device)
            logits = self.model(
                input_ids=ids.to(self.device), attention_mask=mask.to(self.device)
            ).logits
            loss = functional.cross_entropy(
                logits.flatten(0, 1).float(), targets.flatten(), reduction="sum"
            ) / total  # fmt: skip
            loss.backward()
            loss_sum += loss.detach()
        return loss_sum


def timed(step: Step, data: dict[str, Any], device: torch.device) -> tuple[float, float]:
    """Return the seconds of a step until the device is done, and its loss."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    loss = step(data)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started, float(loss)


def measure_mm(device: torch.device) -> float:
    """Return the FLOP/s of torch.mm in bf16: the limit."""
    size, repeats = (8192, 50) if device.type == "cuda" else (256, 2)
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    torch.mm(left, right)
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        torch.mm(left, right)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return repeats * 2 * size**3 / (time.perf_counter() - started)


def report(
    name: str,
    seconds: dict[str, list[float]],
    losses: dict[str, list[float]],
    flops_per_second: list[float],
    tokens: list[int],
    device: torch.device,
) -> None:
    ours = seconds["ours, bf16"]
    peak = measure_mm(device)
    reached = statistics.median(flops_per_second)
    print(f"{name}: {np.mean(tokens):.0f} tokens a step")
    for way, values in seconds.items():
        speed = statistics.median(count / each for count, each in zip(tokens, values, strict=True))
        line = f"  {way:20} {speed:10.0f} tokens/s"
        if way in WANTED:
            ratios = [other / own for own, other in zip(ours, values, strict=True)]
            gap = abs(losses[way][0] - losses["ours, bf16"][0])
            line += (
                f"   ours is {statistics.median(ratios):5.2f}x ({min(ratios):.2f}–{max(ratios):.2f}),"
                f" wanted {WANTED[way]}x; losses differ by {gap:.1e}"
            )
        print(line)
    print(
        f"  model FLOPs {reached / 1e12:.1f} TFLOP/s, {reached / peak:.2f} of torch.mm "
        f"({peak / 1e12:.1f} TFLOP/s)",
        flush=True,
    )


if __name__ == "__main__":
    main()
