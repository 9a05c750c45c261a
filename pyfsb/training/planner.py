# SPDX-License-Identifier: Apache-2.0
"""Plan a training: try layouts, refuse those that cannot fit, propose the best.

`fsb plan` shows the result; `check_fits` refuses a spec before it is queued. Never starts anything
and never imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from pyfsb import storage
from pyfsb.config import RunSpec, Stage
from pyfsb.config.objective_section import ObjectiveName
from pyfsb.engines.cluster_resources import read_options
from pyfsb.errors import ConfigError
from pyfsb.registry import find_model
from pyfsb.schema import parse_yaml
from pyfsb.training.architectures import merge_config
from pyfsb.training.estimates import Estimate, Rates, Workload, estimate
from pyfsb.training.flops import FlopCounter
from pyfsb.training.layouts import Layout, as_training, enumerate_layouts, layout_of, lighter
from pyfsb.training.pools import Pool, known_pools
from pyfsb.training.shapes import ModelShape

Goal: TypeAlias = Literal["days", "cost"]

BYTES_PER_CHARACTER: Final = 2.78
"""Of Chinese web text in UTF-8: 200 GB are 72 G characters (WuDaoCorpora, AI Open 2021)."""
TOKENS_PER_CHARACTER: Final = {"wordpiece": 1.0, "byte_bpe": 2.0}
"""Chinese WordPiece has one token for a character; English byte-BPE splits each in two or three."""
_PAIR_RATIO: Final = 0.25
"""Decoder tokens for an encoder token where nothing is said: span corruption of 15 % (Raffel et
al. 2020) writes 0.2, gap sentences (Zhang et al. 2020) 0.3."""
_SHORTENING: Final = (ObjectiveName.SPAN_CORRUPTION, ObjectiveName.GAP_SENTENCES)
"""Objectives whose decoder writes a part of the text; of the others it writes all."""
_MOST_NODES: Final = 256
_ALIKE: Final = 1.01
"""Times within 1 % are equal: the model does not tell them apart."""
_GB: Final = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was tried and found."""

    written: Estimate | None
    """The spec's own layout on the most nodes; None where nobody asked."""
    best: Estimate
    by_nodes: tuple[Estimate, ...]
    """The best for each number of nodes that has any."""
    num_tried: int
    num_refused: int
    """Layouts whose memory does not suffice."""


def build_workload(
    spec: RunSpec,
    *,
    corpus_tokens: float | None = None,
    mean_tokens: float | None = None,
    target_ratio: float | None = None,
) -> Workload:
    """Return what a spec trains.

    Args:
        spec: Model, objective, batch and length.
        corpus_tokens: Tokens of one epoch. None counts the spec's corpus (`count_corpus_tokens`).
        mean_tokens: Mean tokens of a document. None: all are `data.max_tokens` long.
        target_ratio: Predicted positions over tokens. None follows from the objective.

    Raises:
        UnknownNameError: The model or its architecture is unknown.
        ConfigError: The length of the training cannot be told.
    """
    spec = as_training(spec)
    entry = find_model(spec.model.name)
    config = merge_config(entry.config, spec.model.config)
    counter = FlopCounter.of(entry.architecture, config)
    shape = counter.shape
    max_tokens = shape.fixed_tokens or spec.data.max_tokens
    objective = spec.objective.name or entry.objective
    # Spans that are hidden shorten the text before the model sees it.
    is_cut = objective != ObjectiveName.SPAN_CORRUPTION
    if shape.max_positions and max_tokens > shape.max_positions and is_cut:
        raise ConfigError(
            f"data.max_tokens = {max_tokens}: {entry.name} has {shape.max_positions} positions"
        )
    if target_ratio is None:
        target_ratio = _target_ratio(spec, objective, shape)
    limit = spec.training.max_steps
    if corpus_tokens is None and not spec.data.corpus and limit is None:
        raise ConfigError(
            "cannot tell how long this trains: the spec has no data.corpus and no "
            "training.max_steps; add --corpus-tokens N or --corpus-bytes N"
        )
    if corpus_tokens is None and spec.data.corpus:
        corpus_tokens = count_corpus_tokens(spec)
    num_tokens = float("inf")
    if corpus_tokens is not None:
        num_tokens = corpus_tokens * spec.training.num_epochs
    if limit is not None:
        num_tokens = min(num_tokens, float(limit * spec.batch.tokens))
    return Workload(
        counter=counter,
        document_tokens=float(shape.fixed_tokens or mean_tokens or max_tokens),
        max_tokens=max_tokens,
        target_ratio=target_ratio,
        step_tokens=spec.batch.tokens,
        num_tokens=num_tokens,
        checkpoint_every_steps=spec.training.checkpoint_every_steps,
        num_trained=_count_adapters(spec, counter),
    )


def _target_ratio(spec: RunSpec, objective: ObjectiveName, shape: ModelShape) -> float:
    """Return the predicted positions over the tokens; of two stacks, the decoder's tokens."""
    if shape.decoder is not None:
        return _PAIR_RATIO if objective in _SHORTENING else 1.0
    if objective == ObjectiveName.PREFIX_LM:
        mix = spec.objective.prefix_lm
        rest = 1 - mix.mlm_ratio - mix.lm_ratio  # of these, about a half is written
        return mix.mlm_ratio * spec.objective.mask_ratio + mix.lm_ratio + rest / 2
    return 1.0 if shape.is_causal else spec.objective.mask_ratio


def _count_adapters(spec: RunSpec, counter: FlopCounter) -> float | None:
    """Return about how many parameters LoRA adds; None without it."""
    lora = spec.training.lora
    if lora is None:
        return None
    # Two thin matrices beside each of a layer's four of attention, for any choice of targets.
    return float(
        sum(
            stack.num_layers * 4 * lora.rank * (stack.hidden + stack.width)
            for stack in counter.shape.every_stack
        )
    )


def count_corpus_tokens(spec: RunSpec) -> float:
    """Return the tokens of a spec's corpus: of its DatasetRecord, else estimated from its bytes.

    Raises:
        ConfigError: There is neither; says what to give instead.
    """
    record = storage.join(spec.output_of(Stage.DATA), "corpus", "record.json")
    if storage.exists(record):
        value = parse_yaml(storage.read_text(record), source=record)
        if isinstance(value, dict) and value.get("num_tokens"):
            return float(value["num_tokens"])
    files = [
        file for pattern in spec.data.corpus for file in storage.find_files(spec.data.root, pattern)
    ]
    num_bytes = sum(file.num_bytes for file in files)
    if not num_bytes:
        raise ConfigError(
            f"data.corpus = {list(spec.data.corpus)}: no such files below {spec.data.root}; add "
            "--corpus-tokens N or --corpus-bytes N"
        )
    return tokens_of_bytes(spec, num_bytes)


def tokens_of_bytes(spec: RunSpec, num_bytes: float) -> float:
    """Return about how many tokens Chinese text of so many bytes has."""
    entry = find_model(spec.model.name)
    # A run trains a WordPiece vocabulary of its own unless weights bring theirs.
    kind = entry.tokenizer if spec.model.checkpoint else "wordpiece"
    return num_bytes / BYTES_PER_CHARACTER * TOKENS_PER_CHARACTER.get(kind, 1.0)


def make_plan(
    spec: RunSpec,
    workload: Workload,
    pool: Pool,
    nodes: Sequence[int],
    *,
    rates: Rates | None = None,
    goal: Goal = "days",
) -> Plan:
    """Try every layout on these numbers of nodes and return the best ones.

    Args:
        spec: Its own layout is estimated beside, and its precision kept.
        workload: What is trained.
        pool: Where.
        nodes: Numbers of nodes.
        rates: Prices and power. None takes those that the spec states.
        goal: days: the shortest training; cost: the fewest device-hours.

    Raises:
        ConfigError: No layout fits; carries the planner's figure and what would fit.
    """
    rates = rates or stated_rates(spec)
    precision = spec.parallelism.precision or pool.default_precision
    layouts = enumerate_layouts(
        pool,
        nodes=nodes,
        precision=precision,
        max_tokens=workload.max_tokens,
        step_tokens=workload.step_tokens,
    )
    tried = [estimate(workload, layout, pool, rates) for layout in layouts]
    fitting = [found for found in tried if found.fits]
    if not fitting:
        raise ConfigError(_explain_nothing_fits(workload, pool, tried))
    by_nodes = []
    for number in nodes:
        here = [found for found in fitting if found.layout.num_nodes == number]
        if here:
            by_nodes.append(_choose(here))
    own = layout_of(spec, pool, num_nodes=max(nodes), devices_per_node=pool.devices_per_node)
    return Plan(
        written=estimate(workload, own, pool, rates),
        best=min(by_nodes, key=lambda f: f.days if goal == "days" else f.device_hours),
        by_nodes=tuple(by_nodes),
        num_tried=len(tried),
        num_refused=len(tried) - len(fitting),
    )


def _choose(fitting: Sequence[Estimate]) -> Estimate:
    """Return the fastest; among equals the one of the largest micro-batches, which waste least."""
    limit = _ALIKE * min(found.days for found in fitting)
    alike = [found for found in fitting if found.days <= limit]
    return max(alike, key=lambda f: (f.layout.micro_tokens, -f.layout.zero_stage, -f.days))


def stated_rates(spec: RunSpec) -> Rates:
    """Return the prices and power that a spec states."""
    energy = spec.training.energy
    return Rates(
        price_per_device_hour=energy.price_per_device_hour,
        watts_per_device=energy.watts_per_device,
    )


def check_fits(
    spec: RunSpec, pool: Pool, *, num_nodes: int = 1, devices_per_node: int | None = None
) -> None:
    """Refuse a spec whose training cannot fit on these devices, before anything is queued.

    Args:
        spec: With the layout it asks for.
        pool: The kind of nodes.
        num_nodes: Nodes of the training.
        devices_per_node: Processes of each. None takes all devices of the pool's nodes.

    Raises:
        ConfigError: It does not fit; carries the planner's figure and what would fit.
    """
    if Stage.TRAINING not in spec.stages:
        return
    workload = build_workload(spec, corpus_tokens=1.0)
    layout = layout_of(
        spec, pool, num_nodes=num_nodes, devices_per_node=devices_per_node or pool.devices_per_node
    )
    found = estimate(workload, layout, pool, Rates())
    if not found.fits:
        raise ConfigError(explain_refusal(workload, found, pool))


def check_placed(spec: RunSpec, environment: Mapping[str, str]) -> None:
    """Refuse a spec that cannot fit on the cluster's node pool, where the pool's kind is known.

    A chart may name its pools as it likes; one that is called like a pool of the table, such as
    a100-80, is taken to be of that kind, and of others nothing is known.

    Args:
        spec: What is about to be queued.
        environment: With FSB_POOL, FSB_NODES and FSB_PROCESSES_PER_NODE, as `fsb run` sets them.

    Raises:
        ConfigError: It does not fit; carries the planner's figure and what would fit.
    """
    options = read_options(Stage.TRAINING, environment)
    pool = known_pools().get(options.pool)
    if pool:
        check_fits(spec, pool, num_nodes=options.nodes, devices_per_node=options.processes_per_node)


def explain_refusal(workload: Workload, found: Estimate, pool: Pool) -> str:
    """Return why a layout cannot run, by how much, and the first change that would help."""
    remedy = _find_remedy(workload, found.layout, pool)
    more = f"; this would fit: {remedy}" if remedy else "; nothing we know of fits on this pool"
    return f"{_describe_need(workload, found, pool)}{more}"


def _describe_need(workload: Workload, found: Estimate, pool: Pool) -> str:
    layout, memory = found.layout, found.memory
    size = f"{workload.counter.shape.num_parameters / 1e9:.2f}B parameters"
    where = f"{layout.num_nodes} x {layout.devices_per_node} {pool.name}"
    if found.missing_bytes > 0:
        return (
            f"{size} with {layout.title} on {where} do not fit: a device needs "
            f"{memory.device / _GB:.1f} GB (states {memory.states.device / _GB:.1f}, activations "
            f"{memory.activations / _GB:.1f}, buffers {memory.buffers / _GB:.1f}) and has "
            f"{pool.memory_bytes / _GB:.0f} GB: {found.missing_bytes / _GB:.1f} GB too few"
        )
    return (
        f"{size} with {layout.title} on {where} do not fit: a node needs "
        f"{found.host_bytes / _GB:.0f} GB of its own memory and has "
        f"{pool.host_memory_bytes / _GB:.0f} GB: {found.missing_host_bytes / _GB:.0f} GB too few"
    )


def _find_remedy(workload: Workload, layout: Layout, pool: Pool) -> str | None:
    """Return the least change that fits: the layout, then the number of nodes."""
    for candidate in lighter(layout, workload.max_tokens):
        if estimate(workload, candidate, pool, Rates()).fits:
            return candidate.title
    for number in _doublings(layout.num_nodes):
        wider = replace(layout, num_nodes=number)
        for candidate in (wider, *lighter(wider, workload.max_tokens)):
            if estimate(workload, candidate, pool, Rates()).fits:
                return f"{candidate.title} on {number} nodes"
    return None


def _doublings(number: int) -> Iterable[int]:
    while number * 2 <= _MOST_NODES:
        number *= 2
        yield number


def _explain_nothing_fits(workload: Workload, pool: Pool, tried: Sequence[Estimate]) -> str:
    nearest = min(tried, key=lambda found: max(found.missing_bytes, found.missing_host_bytes))
    words = explain_refusal(workload, nearest, pool)
    return f"none of {len(tried)} layouts fits. The nearest: {words}"
