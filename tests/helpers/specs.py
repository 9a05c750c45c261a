"""Run specs small enough for tests, and processes that run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT, SAMPLES

TINY_CONFIGS: dict[str, dict[str, Any]] = {
    "Erlangshen-MegatronBert-1.3B": {
        "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 64,
    },
    "Erlangshen-DeBERTa-v2-97M-Chinese": {
        "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 64, "position_buckets": 16,
    },
    "Wenzhong-GPT2-110M": {"n_layer": 1, "n_embd": 32, "n_head": 2, "n_positions": 64},
}  # fmt: skip

DROPOUTS = {
    "Erlangshen-MegatronBert-1.3B": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "Erlangshen-DeBERTa-v2-97M-Chinese": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "Wenzhong-GPT2-110M": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
}


def tiny_spec(
    output: Path | str, *, model: str = "Erlangshen-MegatronBert-1.3B", **changes: Any
) -> dict[str, Any]:
    """Return a spec that pretrains a tiny model on the samples; dots in `changes` are `__`."""
    spec: dict[str, Any] = {
        "name": "tiny",
        "output": str(output),
        "model": {"name": model, "config": dict(TINY_CONFIGS[model])},
        "data": {
            "root": str(SAMPLES), "corpus": ["rawcorpus/*.jsonl.gz"], "max_tokens": 64,
            "vocabulary": {"size": 2000}, "num_processes": 1,
        },
        "optimizer": {"learning_rate": 0.001},
        "batch": {"tokens": 512, "micro_tokens": 512},
        "training": {"max_steps": 20, "checkpoint_every_steps": 5},
        "parallelism": {"num_processes": 1, "threads_per_process": 1},
    }  # fmt: skip
    for path, value in changes.items():
        keys = path.split("__")
        target = spec
        for key in keys[:-1]:
            target = target.setdefault(key, {})
        target[keys[-1]] = value
    return spec


def write_spec(folder: Path, spec: dict[str, Any], name: str = "spec.yaml") -> Path:
    """Write a spec into a folder; returns its path."""
    path = folder / name
    path.write_text(yaml.safe_dump(spec, allow_unicode=True), encoding="utf-8")
    return path


def fsb(*arguments: str, env: dict[str, str] | None = None, timeout: float = 560) -> Any:
    """Run the `fsb` command; returns the completed process with text output."""
    return subprocess.run(
        fsb_command(*arguments), capture_output=True, text=True, timeout=timeout, check=False,
        cwd=ROOT, env={**os.environ, **(env or {})},
    )  # fmt: skip


def fsb_command(*arguments: str) -> list[str]:
    """Return the command line of `fsb`."""
    return [sys.executable, "-m", "pyfsb.cli", *arguments]
