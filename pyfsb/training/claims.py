# SPDX-License-Identifier: Apache-2.0
"""What published compute budgets mean: device-days as MFU times epochs, and which cannot be right.

A budget (devices, days) and a corpus fix only the product of MFU and passes over the corpus. A
claim is plausible when some whole number of epochs from 1 to 9 puts MFU between 5 and 35 %, what
trainings of 2021 reached. Shown by `fsb plan --explain-claims`; never part of a plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pyfsb.training.flops import FlopCounter
from pyfsb.training.planner import BYTES_PER_CHARACTER
from pyfsb.training.pools import find_pool

MFU_RANGE: Final = (0.05, 0.35)
"""Of trainings of 2021 and 2022: Megatron reached 0.33 to 0.35, most far less."""
MAX_EPOCHS: Final = 9
"""Passes over a corpus beyond which nobody trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeClaim:
    """A published training with its budget and its text."""

    model: str
    source: str
    architecture: str
    config: dict[str, Any]
    sequence_tokens: int
    target_ratio: float
    pool: str
    num_devices: int
    days: float
    corpus_bytes: float
    bytes_per_character: float = BYTES_PER_CHARACTER
    tokens_per_character: float = 1.0
    stated_parameters: float | None = None
    """Parameters where the statement names others than the config has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """A claim worked out."""

    claim: ComputeClaim
    corpus_tokens: float
    flops_per_token: float
    budget_flops: float
    mfu_per_epoch: float
    """MFU if the corpus was read once; it is multiplied by the number of epochs."""
    epochs: tuple[int, ...]
    """Numbers of epochs that put MFU into the range."""
    copied_from: str | None
    """A model with the same devices and days but more to train, the likelier owner of both."""

    @property
    def is_consistent(self) -> bool:
        """Whether the statement can be right."""
        return bool(self.epochs) and self.copied_from is None

    @property
    def verdict(self) -> str:
        """One line about it."""
        if self.copied_from:
            return f"inconsistent: devices and hours are {self.copied_from}'s, the corpus is not"
        if not self.epochs:
            return f"inconsistent: {self.mfu_per_epoch:.0%} MFU for a single epoch"
        first, last = self.epochs[0], self.epochs[-1]
        return (
            f"plausible: {first} to {last} epochs at {first * self.mfu_per_epoch:.0%} to "
            f"{last * self.mfu_per_epoch:.0%} MFU"
        )


def explain_claims() -> list[Explained]:
    """Return every claim as MFU and epochs."""
    return [_explain(claim) for claim in CLAIMS]


def _explain(claim: ComputeClaim) -> Explained:
    counter = FlopCounter.of(claim.architecture, claim.config)
    per_token = counter.per_token(claim.sequence_tokens, claim.target_ratio)
    if claim.stated_parameters:
        per_token *= claim.stated_parameters / counter.shape.num_parameters
    peak = find_pool(claim.pool).fp16_flops
    budget = claim.num_devices * claim.days * 86400 * peak
    tokens = claim.corpus_bytes / claim.bytes_per_character * claim.tokens_per_character
    mfu = tokens * per_token / budget
    low, high = MFU_RANGE
    epochs = tuple(number for number in range(1, MAX_EPOCHS + 1) if low <= number * mfu <= high)
    owners = (
        other.model
        for other in CLAIMS
        if other.model != claim.model
        and (other.num_devices, other.days) == (claim.num_devices, claim.days)
        and other.corpus_bytes > claim.corpus_bytes
    )
    return Explained(
        claim=claim,
        corpus_tokens=tokens,
        flops_per_token=per_token,
        budget_flops=budget,
        mfu_per_epoch=mfu,
        epochs=epochs,
        copied_from=next(owners, None),
    )


_GB: Final = 1e9
_MEGATRON_1_3B: Final = {
    "vocab_size": 21248, "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 8,
    "intermediate_size": 8192,
}  # fmt: skip
_GPT2_3_5B: Final = {
    "vocab_size": 50304, "n_positions": 1024, "n_embd": 3072, "n_layer": 30, "n_head": 32,
}  # fmt: skip
_DEBERTA_320M: Final = {
    "vocab_size": 12800, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
    "intermediate_size": 4096, "relative_attention": True, "position_buckets": 256,
    "norm_rel_ebd": "layer_norm", "share_att_key": True, "pos_att_type": "c2p|p2c",
    "conv_kernel_size": 3, "position_biased_input": False,
}  # fmt: skip
_T5_770M: Final = {
    "vocab_size": 21248, "d_model": 1024, "d_kv": 64, "d_ff": 4096, "num_layers": 24,
    "num_heads": 16,
}  # fmt: skip

CLAIMS: Final = (
    ComputeClaim(
        model="Erlangshen-MegatronBert-1.3B", source="model card; corpus by the early README",
        architecture="megatron-bert", config=_MEGATRON_1_3B, sequence_tokens=512,
        target_ratio=1.0, pool="a100-40", num_devices=32, days=14.0, corpus_bytes=280 * _GB,
    ),
    ComputeClaim(
        model="Erlangshen-MegatronBert-1.3B", source="model card, its own corpus",
        architecture="megatron-bert", config=_MEGATRON_1_3B, sequence_tokens=512,
        target_ratio=1.0, pool="a100-40", num_devices=32, days=14.0, corpus_bytes=180 * _GB,
    ),
    ComputeClaim(
        model="Wenzhong-GPT2-3.5B", source="early README; 100 GB, 1 token a character",
        architecture="gpt2", config=_GPT2_3_5B, sequence_tokens=1024, target_ratio=1.0,
        pool="a100-40", num_devices=256, days=28 / 24, corpus_bytes=100 * _GB,
        bytes_per_character=100 / 35,
    ),
    ComputeClaim(
        model="Wenzhong-GPT2-3.5B", source="the same with its byte-BPE: 2 tokens a character",
        architecture="gpt2", config=_GPT2_3_5B, sequence_tokens=1024, target_ratio=1.0,
        pool="a100-40", num_devices=256, days=28 / 24, corpus_bytes=100 * _GB,
        bytes_per_character=100 / 35, tokens_per_character=2.0,
    ),
    ComputeClaim(
        model="Wenzhong-GPT2-3.5B", source="documentation: 32 A100 instead of 256",
        architecture="gpt2", config=_GPT2_3_5B, sequence_tokens=1024, target_ratio=1.0,
        pool="a100-40", num_devices=32, days=28 / 24, corpus_bytes=100 * _GB,
        bytes_per_character=100 / 35, tokens_per_character=2.0,
    ),
    ComputeClaim(
        model="Erlangshen-DeBERTa-v2-320M-Chinese", source="model card",
        architecture="deberta-v2", config=_DEBERTA_320M, sequence_tokens=512, target_ratio=1.0,
        pool="a100-80", num_devices=8, days=7.0, corpus_bytes=180 * _GB,
    ),
    ComputeClaim(
        model="Randeng-MegatronT5-770M", source="model card",
        architecture="t5", config=_T5_770M, sequence_tokens=512, target_ratio=0.25,
        pool="a100-40", num_devices=16, days=14.0, corpus_bytes=280 * _GB,
    ),
    ComputeClaim(
        model="Randeng-MegatronT5-770M", source="early README, which writes 7.7B",
        architecture="t5", config=_T5_770M, sequence_tokens=512, target_ratio=0.25,
        pool="a100-40", num_devices=16, days=14.0, corpus_bytes=280 * _GB,
        stated_parameters=7.7e9,
    ),
    ComputeClaim(
        model="Yuyuan-GPT2-3.5B", source="README: 50 GB of PubMed",
        architecture="gpt2", config=_GPT2_3_5B, sequence_tokens=1024, target_ratio=1.0,
        pool="a100-40", num_devices=256, days=28 / 24, corpus_bytes=50 * _GB,
        bytes_per_character=4.3,
    ),
)  # fmt: skip
"""Published budgets; sources by row, collected in docs/guides/planning.md."""
