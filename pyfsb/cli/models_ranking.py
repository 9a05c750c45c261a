# SPDX-License-Identifier: Apache-2.0
"""Ranks models for a task, a device's memory and a latency, and says why.

Called by `fsb models recommend`. Memory and time are counted from the config, never measured:
products at the rate that the device reaches, weights at its memory's rate. Builds no model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pyfsb.config import Family
from pyfsb.errors import UnknownNameError
from pyfsb.evaluation.tasks import all_tasks
from pyfsb.registry import ModelEntry, Score
from pyfsb.registry.catalogue import FAMILIES
from pyfsb.schema import Schema
from pyfsb.training.architectures import shape_of
from pyfsb.training.flops import FlopCounter
from pyfsb.training.memory import CONTEXT_BYTES, MicroBatch, Sharding, count_memory
from pyfsb.training.pools import Pool, Precision
from pyfsb.training.shapes import ModelShape

TASK_FAMILIES: Final[dict[str, Family]] = {
    "afqmc": Family.PAIR, "bq": Family.PAIR, "bustm": Family.PAIR, "cmnli": Family.PAIR,
    "ocnli": Family.PAIR, "snli": Family.PAIR, "csl": Family.PAIR, "tnews": Family.CLASSIFY,
    "iflytek": Family.CLASSIFY, "wsc": Family.CLASSIFY, "eprstmt": Family.CLASSIFY,
    "chnsenticorp": Family.CLASSIFY, "cluener": Family.TAG, "cmeee": Family.TAG,
    "msra_ner": Family.TAG, "ontonotes4": Family.TAG, "resume_ner": Family.TAG,
    "weibo_ner": Family.TAG, "cmrc2018": Family.ANSWER, "c3": Family.CHOOSE,
    "chid": Family.CHOOSE, "fewclue": Family.CHOOSE, "lcsts": Family.REWRITE,
    "flickr30k_cna": Family.IMAGE_TEXT, "coco_cn": Family.IMAGE_TEXT,
    "imagenet_cn": Family.IMAGE_TEXT, "imagenet1k": Family.CLASSIFY_IMAGE,
}  # fmt: skip
"""Family of public tasks; CLUE's and those that scores are published for."""
_ENCODERS: Final = (
    "albert", "bert", "deberta-v2", "electra", "ernie", "megatron-bert", "mobilebert", "roberta",
    "roformer", "rope-longformer", "xlnet", "zen1", "zen2", "zhouwenwang",
)  # fmt: skip
_LABELLED: Final = (Family.CLASSIFY, Family.PAIR, Family.TAG, Family.ANSWER)
_WEIGHT_BYTES: Final[dict[Precision, int]] = {"fp32": 4, "bf16": 2, "fp16": 2}
_STATE_BYTES: Final = 16.0
"""Of a parameter in fine-tuning with AdamW: weights, gradients and moments in fp32."""
_KERNEL_SECONDS: Final = 6e-6
"""To start a kernel from the host (our estimate)."""
_KERNELS_PER_LAYER: Final = 14
"""Of a forward pass (our estimate)."""
_UNKNOWN_LAYERS: Final = 24
"""Where the planner knows no shape."""
_FINETUNE_TOKENS: Final = 2048
"""Tokens of a micro-batch in fine-tuning, as `evaluation.finetune.batch` has by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for."""

    task: str
    """A family, or a task that `TASK_FAMILIES` knows."""
    pool: Pool
    """Device that times are estimated for."""
    precision: Precision
    """Of the weights when serving."""
    memory_bytes: float | None = None
    """Of the device; None: that of the pool."""
    latency_seconds: float | None = None
    """Of one input at most; None: any."""
    input_tokens: int = 128
    """Tokens of an input."""
    output_tokens: int = 64
    """Tokens of an answer, of families that write one."""
    languages: tuple[str, ...] = ()
    """ISO codes; all of them are needed. Empty: any."""
    max_parameters: float | None = None
    """None: any."""
    needs_finetuning: bool = False
    """Fine-tuning has to fit into the memory, too."""
    is_ready: bool = False
    """Only models that answer without being fine-tuned."""


class Recommendation(Schema):
    """A model with what speaks for it."""

    name: str
    """Name of the entry."""
    family: Family
    """What it would be asked for."""
    is_ready: bool
    """It answers as published; else it has to be fine-tuned."""
    parameters: int
    """Parameters of a build."""
    inference_bytes: float
    """Estimated memory of serving one input."""
    finetune_bytes: float
    """Estimated memory of fine-tuning on one device."""
    fits_finetuning: bool
    """That memory is there."""
    latency_seconds: float
    """Estimated time of one input on the device."""
    device: str
    """The device of that estimate."""
    score: float | None
    """Published figure that it was ranked by; None: there is none."""
    reasons: tuple[str, ...]
    """Why it stands where it stands."""


class Refusal(Schema):
    """A model of the right kind that does not do."""

    name: str
    """Name of the entry."""
    why: str
    """What it breaks."""


def family_of(task: str) -> Family:
    """Return the family of a task, or the family of that name.

    Raises:
        UnknownNameError: Carries the nearest tasks and families.
    """
    known = {**_families(), **{family.value: family for family in Family}}
    found = known.get(task.casefold())
    if found is None:
        raise UnknownNameError(f"task or family (known: {', '.join(sorted(known))})", task, known)
    return found


def rank(
    entries: Iterable[ModelEntry], wish: Wish
) -> tuple[tuple[Recommendation, ...], tuple[Refusal, ...]]:
    """Return the models that do, best first, and those of the right kind that do not.

    First those with a published score on the task, by it; of a family, on the task of it that most
    models publish. Then those that answer as published, then those to be fine-tuned, by size.
    Scores of different sources were measured under different settings.

    Raises:
        UnknownNameError: The task is unknown.
    """
    family = family_of(wish.task)
    able = [entry for entry in entries if family in entry.families or can_finetune(entry, family)]
    is_family = wish.task.casefold() == family.value
    task = _most_published(able, family) if is_family else wish.task.casefold()
    found: list[tuple[tuple[float, ...], Recommendation]] = []
    refused: list[Refusal] = []
    for entry in able:
        known = [score for score in entry.scores if score.task == task]
        is_ready = family in entry.families and (is_family or bool(known))
        if wish.is_ready and not is_ready:
            continue
        figure = _choose_score(known, wish)
        made = _assess(entry, family, wish, figure, is_ready=is_ready)
        why = _refuse(entry, made, wish)
        if why:
            refused.append(Refusal(name=entry.name, why=why))
        else:
            found.append((_order(entry, made), made))
    ranked = sorted(found, key=lambda item: (item[0], item[1].name))
    return tuple(made for _, made in ranked), tuple(refused)


def can_finetune(entry: ModelEntry, family: Family) -> bool:
    """Return whether an entry's architecture has a head for a family that it can learn."""
    if family in (Family.FILL_MASK, Family.EMBED):
        return False
    if family in FAMILIES.get(entry.architecture, ()):
        return True
    return family in _LABELLED and entry.architecture in _ENCODERS


def _families() -> dict[str, Family]:
    registered = {name: task.spec.family for name, task in all_tasks().items()}
    return {**TASK_FAMILIES, **registered}


def _most_published(entries: Iterable[ModelEntry], family: Family) -> str:
    """Return the task of a family that most entries have a score of; empty if none has."""
    families = _families()
    counts = Counter(
        task
        for entry in entries
        for task in {score.task for score in entry.scores}
        if families.get(task) is family
    )
    return min(counts, key=lambda task: (-counts[task], task), default="")


def _choose_score(known: list[Score], wish: Wish) -> tuple[Score, list[Score]] | None:
    """Return the figure to rank by and those that contradict it: the lowest of one metric."""
    if not known:
        return None
    asked = [score for score in known if "zero-shot" in score.metric] if wish.is_ready else []
    metric = (asked or known)[0].metric
    alike = [score for score in known if score.metric == metric]
    lowest = min(alike, key=lambda score: score.value)
    return lowest, [score for score in alike if score is not lowest]


def _assess(
    entry: ModelEntry,
    family: Family,
    wish: Wish,
    figure: tuple[Score, list[Score]] | None,
    *,
    is_ready: bool,
) -> Recommendation:
    shape = _shape(entry)
    parameters = entry.real_parameters
    latency = _latency(parameters, shape, family, wish)
    tuning = _tuning_bytes(parameters, shape, wish)
    fits_finetuning = tuning <= (wish.memory_bytes or wish.pool.memory_bytes)
    labels = f" with {', '.join(entry.labels)}" if entry.labels else ""
    reasons = [
        f"made for {family.value}{labels}" if is_ready else f"to be fine-tuned for {family.value}",
        _explain_score(figure),
        f"about {latency * 1e3:,.1f} ms an input on {wish.pool.name} (estimated, not measured)",
    ]
    if not is_ready and not fits_finetuning:
        reasons.append("too large to fine-tune there whole: take LoRA, offload or more devices")
    return Recommendation(
        name=entry.name,
        family=family,
        is_ready=is_ready,
        parameters=parameters,
        inference_bytes=_serving_bytes(parameters, shape, wish),
        finetune_bytes=tuning,
        fits_finetuning=fits_finetuning,
        latency_seconds=latency,
        device=wish.pool.name,
        score=None if figure is None else figure[0].value,
        reasons=tuple(reasons),
    )


def _explain_score(figure: tuple[Score, list[Score]] | None) -> str:
    if figure is None:
        return "no published score to compare: by size"
    score, others = figure
    text = f"{score.task} {score.metric} {score.value:.4f} ({score.split} rows, {score.source})"
    if others:
        text += "; contradicted by " + ", ".join(
            f"{other.value:.4f} ({other.source})" for other in others
        )
    return text


def _refuse(entry: ModelEntry, made: Recommendation, wish: Wish) -> str:
    """Return what a model breaks; empty if nothing."""
    memory = wish.memory_bytes or wish.pool.memory_bytes
    reads_text = entry.tokenizer != "none"
    missing = [code for code in wish.languages if code not in entry.languages]
    if missing and reads_text:
        return f"does not read {', '.join(missing)}"
    if wish.max_parameters and made.parameters > wish.max_parameters:
        return f"has {made.parameters / 1e6:,.0f} M parameters"
    if entry.max_tokens < wish.input_tokens and reads_text:
        return f"reads {entry.max_tokens} tokens at most"
    if made.inference_bytes > memory:
        return f"needs about {made.inference_bytes / 1e9:,.1f} GB to serve"
    if wish.needs_finetuning and not made.fits_finetuning:
        return f"needs about {made.finetune_bytes / 1e9:,.1f} GB to fine-tune"
    if wish.latency_seconds and made.latency_seconds > wish.latency_seconds:
        return f"takes about {made.latency_seconds * 1e3:,.1f} ms (estimated)"
    return ""


def _order(entry: ModelEntry, made: Recommendation) -> tuple[float, ...]:
    """Return the key that models are sorted by: smaller is better."""
    group = 0.0 if made.score is not None else 1.0 if made.is_ready else 2.0
    # What others fine-tuned for another task comes behind what is meant to be fine-tuned.
    is_taken = bool(entry.labels) and not made.is_ready
    return (group, -(made.score or 0.0), float(is_taken), -float(made.parameters))


def _shape(entry: ModelEntry) -> ModelShape | None:
    """Return the shape of an entry; None where the planner knows none."""
    try:
        return shape_of(entry.architecture, dict(entry.config))
    except UnknownNameError:
        return None


def _latency(parameters: int, shape: ModelShape | None, family: Family, wish: Wish) -> float:
    """Return the seconds of one input: the slower of products and weights, and kernel starts."""
    layers = sum(stack.num_layers for stack in shape.stacks) if shape else _UNKNOWN_LAYERS
    weights = parameters * _WEIGHT_BYTES[wish.precision] / wish.pool.memory_bandwidth
    starts = layers * _KERNELS_PER_LAYER * _KERNEL_SECONDS
    products = 2.0 * parameters * wish.input_tokens
    if shape:
        # A forward pass is a third of a training step.
        counter = FlopCounter(shape=shape)
        products = counter.count([wish.input_tokens], 1.0, decoder_lengths=[1.0]) / 3.0
    once = max(products / wish.pool.reached_flops(wish.precision), weights) + starts
    if family in (Family.GENERATE, Family.REWRITE):
        # Each further token reads all weights once.
        return once + wish.output_tokens * (weights + starts)
    return once


def _serving_bytes(parameters: int, shape: ModelShape | None, wish: Wish) -> float:
    """Return the bytes of serving: weights, the widest states of one input, the context."""
    width = _WEIGHT_BYTES[wish.precision]
    hidden = max(stack.intermediate for stack in shape.stacks) if shape else 4096
    vocabulary = shape.vocabulary if shape else 0
    states = wish.input_tokens * (8 * hidden + vocabulary) * 4.0
    return parameters * width + states + CONTEXT_BYTES


def _tuning_bytes(parameters: int, shape: ModelShape | None, wish: Wish) -> float:
    """Return the bytes of fine-tuning on one device, without offload or adapters."""
    if shape is None:
        return _STATE_BYTES * parameters + 2 * CONTEXT_BYTES
    precision = wish.precision
    sharding = Sharding(
        zero_stage=1,
        offloads_optimizer=False,
        offloads_parameters=False,
        precision=precision,
        num_devices=1,
        devices_per_node=1,
    )
    num_tokens = float(max(_FINETUNE_TOKENS, wish.input_tokens))
    batch = MicroBatch(
        num_tokens=num_tokens,
        num_targets=num_tokens / wish.input_tokens,
        document_tokens=float(wish.input_tokens),
        decoder_tokens=num_tokens * 0.25 if shape.decoder else 0.0,
    )
    return count_memory(shape, sharding, batch, is_checkpointing=False).device
