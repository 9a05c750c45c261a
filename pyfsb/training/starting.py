# SPDX-License-Identifier: Apache-2.0
"""What a pretraining begins with: a model with its first weights, its objective, its tokenizer.

Called by `run`; never trains and opens no corpus.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from transformers import PreTrainedConfig, PreTrainedModel

from pyfsb.config import Family, ObjectiveName, ObjectiveSpec, RunSpec
from pyfsb.data.shards import NUM_SPECIAL_TOKENS
from pyfsb.data.tokenizer_files import read_pieces_of
from pyfsb.errors import CheckpointError, ConfigError
from pyfsb.models.architectures import find_architecture
from pyfsb.models.building import build_config, build_model, decoder_start, max_positions
from pyfsb.models.loading import check_fits, load_config, load_model, load_tokenizer, open_weights
from pyfsb.models.ngrams import find_lexicon
from pyfsb.models.overrides import check_held
from pyfsb.models.row_objectives import chat_ends
from pyfsb.models.vocabulary_surgery import extend_model, find_sources
from pyfsb.objectives import Objective, SpecialIds, make_objective
from pyfsb.objectives.ngrams import WithNgrams
from pyfsb.objectives.sft import TURN
from pyfsb.records import Parent
from pyfsb.registry import ModelEntry, find_model
from pyfsb.storage.workspace import Workspace
from pyfsb.tokenizers.ngram_lexicon import NgramLexicon, NgramLimit
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
    ObjectiveName.REWRITING: Family.REWRITE,
    ObjectiveName.MULTIPLE_CHOICE: Family.CHOOSE,
    ObjectiveName.EXTRACTION: Family.EXTRACT,
    ObjectiveName.CONTRASTIVE: Family.IMAGE_TEXT,
    ObjectiveName.IMAGE_LABELS: Family.CLASSIFY_IMAGE,
}
"""What a model is for after each objective; FILL_MASK after all others."""
_WRITERS: Final = ("bloom", "gpt2", "llama", "openai-gpt")
"""Architectures of `transformers` whose tokens see earlier ones only."""
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


def plan_training(spec: RunSpec) -> Plan:
    """Return what a spec trains.

    Raises:
        UnknownNameError: No such model.
        ConfigError: The model would see what the objective asks for.
    """
    entry = find_model(spec.model.name)
    name = ObjectiveName(spec.objective.name or entry.objective)
    family = _FAMILIES.get(name, Family.FILL_MASK)
    if family is Family.GENERATE:
        _check_writer(entry, name)
    return Plan(
        entry=entry,
        objective=spec.objective.model_copy(update={"name": name}),
        family=family,
    )


def _check_writer(entry: ModelEntry, name: ObjectiveName) -> None:
    """Refuse to let a model write whose tokens see later ones, or prefixes that stay hidden."""
    own, kind = find_architecture(entry.architecture), entry.architecture
    if not (kind in _WRITERS or (own and Family.GENERATE in own.classes)):
        raise ConfigError(
            f"objective.name = {name}: tokens of {entry.name} ({kind}) see what they are to write; "
            f"expected a model that writes, such as {', '.join(_WRITERS)}"
        )
    if name is ObjectiveName.PREFIX_LM and kind != "zhouwenwang":
        raise ConfigError(
            f"objective.name = {name}: types of tokens do not say who sees whom in {entry.name} "
            f"({kind}); expected a zhouwenwang, or objective causal_lm"
        )


def build_objective(plan: Plan, start: Start) -> Objective:
    """Return the objective of a plan for the vocabulary of its model.

    Raises:
        ConfigError: The vocabulary lacks a special token that the objective needs.
        DataError: The model reads n-grams and its tokenizer has no lexicon.
    """
    config, tokenizer = start.model.config, load_tokenizer(start.tokenizer_folder)
    if config.is_encoder_decoder and plan.family is not Family.REWRITE:
        raise ConfigError(
            f"objective.name = {plan.name}: {plan.entry.name} is an encoder-decoder; expected "
            "span_corruption, text_infilling, gap_sentences or rewriting"
        )
    objective = make_objective(
        plan.objective, SpecialIds.of(start.pieces), decoder_start=find_decoder_start(plan, start),
        encode=lambda text: tokenizer.encode(text, add_special_tokens=False),
    )  # fmt: skip
    lexicon = find_lexicon(config, tokenizer)
    if lexicon is None:
        return objective
    return WithNgrams(objective, lexicon, limit=NgramLimit(max_tokens=max_positions(config)))


def find_decoder_start(plan: Plan, start: Start) -> int | None:
    """Return what the model's decoder begins with, which is what generation begins with.

    Returns:
        The token that a checkpoint's config names, else that of the architecture; None without a
        decoder.

    Raises:
        ConfigError: The vocabulary lacks it.
    """
    config = start.model.config
    if not config.is_encoder_decoder:
        return None
    named = getattr(config, "decoder_start_token_id", None)
    if named is not None:
        return int(named)
    return decoder_start(plan.entry.architecture, SpecialIds.of(start.pieces))


def check_lengths(spec: RunSpec, objective: Objective, config: PreTrainedConfig) -> None:
    """Refuse samples whose documents would be longer than the model.

    Raises:
        ConfigError: Says how long they get and what the model has.
    """
    longest = max_positions(config)
    sizes = objective.sizes(spec.data.max_tokens - NUM_SPECIAL_TOKENS)
    if max(sizes) > longest:
        raise ConfigError(
            f"data.max_tokens = {spec.data.max_tokens}: documents of objective {objective.name} "
            f"get up to {max(sizes)} tokens long, the model has {longest} positions; lower it or "
            "raise model.config's"
        )


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
        start = _load_first(spec, plan, tokenizer_uri, uri, group)
    _set_prompt(plan, start.model.config)
    if plan.family is Family.GENERATE:
        _set_ends(plan, start)
    _log.info("%s: %.2f M parameters", plan.entry.name, count_parameters(start.model) / 1e6)
    return start


def _build_random(spec: RunSpec, plan: Plan, tokenizer_uri: str, group: ProcessGroup) -> Start:
    folder = Workspace(tokenizer_uri).pull(TOKENIZER_FOLDER) / TOKENIZER_FOLDER
    has_text, overrides = plan.entry.tokenizer != "none", dict(spec.model.config)
    pieces = read_pieces_of(folder) if has_text else []
    if "word_size" in plan.entry.config:  # ZEN's n-grams are those of the lexicon
        overrides.setdefault("word_size", _open_lexicon(plan, folder).size)
    config = build_config(plan.entry, overrides, vocabulary=pieces)

    def build() -> PreTrainedModel:
        return build_model(
            config, plan.family, seed=spec.seed, has_order_head=_has_order_head(plan)
        )

    model = build_first(build, build, group, spec.parallelism)
    return Start(model=model, pieces=pieces, tokenizer_folder=folder, parents=())


def _open_lexicon(plan: Plan, folder: Path) -> NgramLexicon:
    tokenizer: Any = load_tokenizer(folder)
    if not hasattr(tokenizer, "lexicon"):
        raise ConfigError(
            f"{folder} has no ngram.txt, and {plan.entry.name} reads n-grams: prepare the corpus "
            "with data.ngrams, or give model.checkpoint"
        )
    lexicon: NgramLexicon = tokenizer.lexicon(plan.entry.architecture)
    return lexicon


def _load_first(
    spec: RunSpec, plan: Plan, tokenizer_uri: str, uri: str, group: ProcessGroup
) -> Start:
    assert spec.model.checkpoint is not None
    found = open_weights(spec.model.checkpoint)
    folder, has_order_head = found.model_folder, _has_order_head(plan)
    held = load_config(folder)
    if held.model_type != plan.entry.architecture:
        raise CheckpointError(
            f"{spec.model.checkpoint} is a {held.model_type}, {plan.entry.name} is a "
            f"{plan.entry.architecture}"
        )
    check_held(held, spec.model.config, source=spec.model.checkpoint)
    extension = _find_extension(spec, tokenizer_uri, folder)

    def load() -> PreTrainedModel:
        return extension.apply(
            load_model(folder, plan.family, seed=spec.seed, has_order_head=has_order_head)
        )

    def build() -> PreTrainedModel:
        return extension.apply(
            build_model(
                load_config(folder), plan.family, seed=spec.seed, has_order_head=has_order_head
            )
        )

    model = build_first(load, build, group, spec.parallelism)
    has_text = plan.entry.tokenizer != "none"
    if has_text:
        check_fits(model, load_tokenizer(extension.folder), extension.folder)
    return Start(
        model=model,
        pieces=read_pieces_of(extension.folder) if has_text else [],
        tokenizer_folder=extension.folder,
        parents=(found.link(base=uri, root=spec.output),),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Extension:
    """The vocabulary that a checkpoint goes on with."""

    folder: Path
    """Its tokenizer: the checkpoint's, or that of the corpus if it extends it."""
    sources: Mapping[int, Sequence[int]]
    """For each new piece the old ones that its text was cut into; empty: nothing is new."""
    num_old: int

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return the model with rows for the new pieces, each the mean of its old ones."""
        return extend_model(model, self.sources, num_old=self.num_old) if self.sources else model


def _find_extension(spec: RunSpec, tokenizer_uri: str, folder: Path) -> _Extension:
    """Compare the corpus' tokenizer with the checkpoint's, where the corpus extended one.

    Raises:
        ConfigError: It was not the checkpoint's that was extended.
    """
    if spec.data.vocabulary.extend is None:
        return _Extension(folder=folder, sources={}, num_old=0)
    extended = Workspace(tokenizer_uri).pull(TOKENIZER_FOLDER) / TOKENIZER_FOLDER
    old, pieces = read_pieces_of(folder), read_pieces_of(extended)
    if pieces[: len(old)] != old:
        raise ConfigError(
            f"the vocabulary of {tokenizer_uri} does not begin with that of "
            f"{spec.model.checkpoint}; set data.tokenizer to the checkpoint that is to be extended"
        )
    sources = find_sources(load_tokenizer(folder), pieces, num_old=len(old))
    _log.info("vocabulary: %d pieces, %d of them new", len(pieces), len(sources))
    return _Extension(folder=extended, sources=sources, num_old=len(old))


def _set_prompt(plan: Plan, config: Any) -> None:
    """Write into the config how the model wants to be asked after this training."""
    if plan.name is ObjectiveName.DENOISING:
        config.prompt_template = plan.objective.denoising.template
        config.prompt_end = plan.objective.denoising.end
        config.prompt_in_parts = True  # the texts of shards are tokens already
    elif plan.name is ObjectiveName.SFT:
        config.prompt_template = plan.entry.config.get("prompt_template", TURN)
        config.prompt_end, config.prompt_in_parts = "", False
    elif plan.name is ObjectiveName.REWRITING and "prompt_template" in plan.entry.config:
        # Weights of another entry, such as the backbone's, know no prompt.
        config.prompt_template = plan.entry.config["prompt_template"]
    if plan.family is Family.GENERATE and hasattr(config, "prompt_token_type"):
        # Prefixes are read both ways; the other objectives train from left to right.
        config.prompt_token_type = 0 if plan.name is ObjectiveName.PREFIX_LM else 1


def _set_ends(plan: Plan, start: Start) -> None:
    """Write into the config what texts begin and end with in this training.

    A checkpoint may name tokens of another vocabulary, such as GPT-2's beside a BERT vocabulary.
    """
    special = SpecialIds.of(start.pieces)
    begin, end = special.bos, special.eos
    if plan.name is ObjectiveName.SFT:
        begin, end = chat_ends(load_tokenizer(start.tokenizer_folder))
    elif plan.name is ObjectiveName.PREFIX_LM:
        begin, end = special.cls, special.sep
    elif plan.name is ObjectiveName.DENOISING:
        begin = None  # the prompt is the beginning
    for config in (start.model.config, start.model.generation_config):
        config.bos_token_id = begin
        known = config.eos_token_id
        if end not in (known if isinstance(known, list) else [known]):
            config.eos_token_id = end


def _has_order_head(plan: Plan) -> bool:
    return plan.name is ObjectiveName.SENTENCE_ORDER
