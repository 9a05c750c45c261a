# SPDX-License-Identifier: Apache-2.0
"""What a pretraining begins with: a model with its first weights, its objective, its tokenizer.

Called by `run`; never trains and opens no corpus.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from transformers import PreTrainedModel

from pyfsb.config import Family, ObjectiveName, ObjectiveSpec, RunSpec
from pyfsb.errors import CheckpointError, ConfigError
from pyfsb.models.building import build_config, build_model, decoder_start, max_positions
from pyfsb.models.loading import (
    check_fits,
    load_config,
    load_model,
    load_tokenizer,
    open_weights,
    read_pieces,
)
from pyfsb.objectives import Objective, SpecialIds, make_objective
from pyfsb.records import Parent
from pyfsb.registry import ModelEntry, find_model
from pyfsb.storage.workspace import Workspace
from pyfsb.training.building import build_first, count_parameters
from pyfsb.training.distributed import ProcessGroup

TOKENIZER_FOLDER: Final = "tokenizer"
_FAMILIES: Final = {
    ObjectiveName.CAUSAL_LM: Family.GENERATE,
    ObjectiveName.PREFIX_LM: Family.GENERATE,
    ObjectiveName.DENOISING: Family.GENERATE,
    ObjectiveName.SFT: Family.GENERATE,
    ObjectiveName.SPAN_CORRUPTION: Family.REWRITE,
    ObjectiveName.TEXT_INFILLING: Family.REWRITE,
    ObjectiveName.GAP_SENTENCES: Family.REWRITE,
    ObjectiveName.MULTIPLE_CHOICE: Family.CHOOSE,
    ObjectiveName.EXTRACTION: Family.EXTRACT,
    ObjectiveName.CONTRASTIVE: Family.IMAGE_TEXT,
}
"""What a model is for after each objective; FILL_MASK after all others."""
_log = logging.getLogger("pyfsb.training")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is trained, as the spec and the registry say."""

    entry: ModelEntry
    """The model."""
    objective: ObjectiveSpec
    """With its name."""
    family: Family
    """Decides model class and loss."""

    @property
    def name(self) -> ObjectiveName:
        """The objective's name."""
        assert self.objective.name is not None
        return self.objective.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The model a pretraining begins with."""

    model: PreTrainedModel
    pieces: list[str]
    """Its vocabulary, ids in order."""
    tokenizer_folder: Path
    parents: tuple[Parent, ...]

    @property
    def special(self) -> SpecialIds:
        """Its special ids."""
        return SpecialIds.of(self.pieces)


def plan_training(spec: RunSpec) -> Plan:
    """Return what a spec trains.

    Raises:
        UnknownNameError: No such model.
    """
    entry = find_model(spec.model.name)
    name = ObjectiveName(spec.objective.name or entry.objective)
    return Plan(
        entry=entry,
        objective=spec.objective.model_copy(update={"name": name}),
        family=_FAMILIES.get(name, Family.FILL_MASK),
    )


def build_objective(plan: Plan, start: Start) -> Objective:
    """Return the objective of a plan for the vocabulary of its model.

    Raises:
        ConfigError: The vocabulary lacks a special token that the objective needs.
    """
    special = start.special
    begin = None
    if start.model.config.is_encoder_decoder:
        begin = decoder_start(plan.entry.architecture, special)
    return make_objective(plan.objective, special, decoder_start=begin)


def build_start(
    spec: RunSpec, plan: Plan, tokenizer_uri: str, uri: str, group: ProcessGroup
) -> Start:
    """Build the first model: from a checkpoint, or random with the corpus' vocabulary.

    Args:
        spec: Model, first weights and seed.
        plan: Of the spec.
        tokenizer_uri: The data folder whose tokenizer a random model takes.
        uri: The training's folder, for lineage.
        group: The processes.

    Raises:
        CheckpointError: First weights are not usable.
        ConfigError: They do not fit the spec.
    """
    if spec.model.checkpoint is None:
        start = _build_random(spec, plan, tokenizer_uri, group)
    else:
        start = _load_first(spec, plan, uri, group)
    longest = max_positions(start.model.config)
    if spec.data.max_tokens > longest:
        raise ConfigError(
            f"data.max_tokens = {spec.data.max_tokens}: the model has {longest} positions; lower "
            "it or raise model.config's"
        )
    _log.info("%s: %.2f M parameters", plan.entry.name, count_parameters(start.model) / 1e6)
    return start


def _build_random(spec: RunSpec, plan: Plan, tokenizer_uri: str, group: ProcessGroup) -> Start:
    folder = Workspace(tokenizer_uri).pull(TOKENIZER_FOLDER) / TOKENIZER_FOLDER
    pieces = read_pieces(folder)
    config = build_config(plan.entry, spec.model.config, vocabulary=pieces)

    def build() -> PreTrainedModel:
        return build_model(
            config, plan.family, seed=spec.seed, has_order_head=_has_order_head(plan)
        )

    model = build_first(build, build, group, spec.parallelism)
    return Start(model=model, pieces=pieces, tokenizer_folder=folder, parents=())


def _load_first(spec: RunSpec, plan: Plan, uri: str, group: ProcessGroup) -> Start:
    assert spec.model.checkpoint is not None
    found = open_weights(spec.model.checkpoint)
    folder, has_order_head = found.model_folder, _has_order_head(plan)
    model = build_first(
        lambda: load_model(folder, plan.family, seed=spec.seed, has_order_head=has_order_head),
        lambda: build_model(
            load_config(folder), plan.family, seed=spec.seed, has_order_head=has_order_head
        ),
        group, spec.parallelism,
    )  # fmt: skip
    check_fits(model, load_tokenizer(folder), folder)
    if model.config.model_type != plan.entry.architecture:
        raise CheckpointError(
            f"{spec.model.checkpoint} is a {model.config.model_type}, {plan.entry.name} is a "
            f"{plan.entry.architecture}"
        )
    return Start(
        model=model,
        pieces=read_pieces(folder),
        tokenizer_folder=folder,
        parents=(found.link(base=uri, root=spec.output),),
    )


def _has_order_head(plan: Plan) -> bool:
    return plan.name is ObjectiveName.SENTENCE_ORDER
