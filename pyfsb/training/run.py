# SPDX-License-Identifier: Apache-2.0
"""One rank of the training stage: `torchrun -m pyfsb.training.run --spec URI`.

Unpacks the spec, puts the pieces together, trains, exports. `python -m pyfsb.training` starts it.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from pyfsb import records, storage
from pyfsb.config import Family, RunSpec, Stage, load_spec, pin_checkpoint, stage_hash
from pyfsb.data.shards import check_vocabulary
from pyfsb.data.vocabulary import vocabulary_digest
from pyfsb.errors import EXIT_OK, EXIT_TERMINATED, CheckpointError, ConfigError
from pyfsb.models.building import build_config, build_model, max_positions
from pyfsb.models.loading import (
    check_fits,
    load_config,
    load_model,
    load_tokenizer,
    open_weights,
    read_pieces,
)
from pyfsb.objectives import SpecialIds, make_objective
from pyfsb.processes import StopRequest
from pyfsb.records import CORPUS_FOLDER, Parent
from pyfsb.registry import ModelEntry, find_entry
from pyfsb.storage.workspace import Workspace
from pyfsb.training.batching import StepPlanner
from pyfsb.training.building import build_first, count_parameters
from pyfsb.training.distributed import ProcessGroup, join_group, leave_group
from pyfsb.training.launcher import run_rank
from pyfsb.training.session import Session, publish_checkpoint, train_to_end
from pyfsb.training.sources import Corpus, CorpusPlace, open_corpus

_OWN_CORPUS = "corpus"
_TOKENIZER_FOLDER = "tokenizer"
_log = logging.getLogger("pyfsb.training")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """The model a pretraining begins with."""

    model: PreTrainedModel
    pieces: list[str]
    tokenizer_folder: Path
    parents: tuple[Parent, ...]


def pretrain(spec: RunSpec, group: ProcessGroup, stop: StopRequest) -> int:
    """Run the training stage of a spec on this rank.

    Returns:
        0 when the record is written, 143 when a stop request ended it before.

    Raises:
        ConfigError: Model, objective, data and processes do not fit each other.
        DataError: The shards or the loss are not usable.
        CheckpointError: First weights or saved state are not usable.
    """
    workspace = Workspace(spec.output_of(Stage.TRAINING))
    if records.find_record(workspace.uri):
        return EXIT_OK
    entry = find_entry(spec.model.name)
    objective = spec.objective.name or entry.objective
    family = Family.GENERATE if objective == "causal_lm" else Family.FILL_MASK
    places = _find_corpora(spec)
    start = _build_start(spec, entry, family, places, workspace.uri, group)
    corpus = _open_corpus(spec, objective, places, start)
    try:
        session = _build_session(spec, family, corpus, places, start, workspace)
        trained = train_to_end(session, group, stop)
    finally:
        corpus.close()
    if trained is None:
        return EXIT_TERMINATED
    if group.is_first:
        max_tokens = max_positions(session.model.config)
        publish_checkpoint(
            session, trained, run=spec.name, model=entry.name, objective=objective,
            max_tokens=max_tokens,
        )  # fmt: skip
    group.barrier()
    return EXIT_OK


def _find_corpora(spec: RunSpec) -> tuple[CorpusPlace, ...]:
    """Return where the shards lie: the run's own first, then those of the blend.

    Raises:
        DataError: One of them was never completely prepared.
    """
    own = CorpusPlace(
        name=_OWN_CORPUS,
        uri=storage.join(spec.output_of(Stage.DATA), CORPUS_FOLDER),
        weight=spec.data.corpus_weight,
    )
    others = tuple(
        CorpusPlace(name=part.name, uri=storage.join(part.uri, CORPUS_FOLDER), weight=part.weight)
        for part in spec.data.blend
    )
    places = (own, *others) if spec.data.corpus else others
    for place in places:  # a corpus that is not there, or not whole, has no record
        records.read_record(place.uri)
    return places


def _open_corpus(
    spec: RunSpec, objective_name: str, places: Sequence[CorpusPlace], start: _Start
) -> Corpus:
    """Open all shards and compare their vocabularies with the model's."""
    corpus = open_corpus(
        places,
        make_objective(
            objective_name, SpecialIds.of(start.pieces), mask_ratio=spec.objective.mask_ratio
        ),
        data=spec.data,
        seed=spec.seed,
        held_out_samples=spec.training.validation_samples,
        step_tokens=spec.batch.tokens,
    )
    for index in corpus.indexes:
        check_vocabulary(index, vocabulary_digest(start.pieces), owner="the model")
    return corpus


def _build_session(
    spec: RunSpec,
    family: Family,
    corpus: Corpus,
    places: Sequence[CorpusPlace],
    start: _Start,
    workspace: Workspace,
) -> Session:
    """Say what is trained on what, and how."""
    training = spec.training
    linked = tuple(
        records.link(records.read_record(p.uri), p.uri, base=workspace.uri, root=spec.output)
        for p in places
    )
    return Session(
        title=spec.name,
        workspace=workspace,
        model=start.model,
        family=family,
        tokenizer_folder=start.tokenizer_folder,
        source=corpus.source,
        order=corpus.order,
        optimizer=spec.optimizer,
        batch=spec.batch,
        seed=spec.seed,
        num_steps=_num_steps(spec, corpus),
        save_every_steps=training.checkpoint_every_steps,
        keep_last=training.keep_last,
        keep_every_steps=training.keep_every_steps,
        spikes=training.spikes,
        lora=training.lora,
        held_out_ids=corpus.held_out_ids,
        validate_every_steps=training.validate_every_steps,
        patience=training.patience,
        hang_timeout_seconds=training.hang_timeout_seconds,
        energy=training.energy,
        mlflow_uri=training.mlflow_uri,
        parallelism=spec.parallelism,
        config_hash=stage_hash(spec, Stage.TRAINING),
        parents=(*linked, *start.parents),
        metrics_port=training.metrics_port,
    )


def _build_start(
    spec: RunSpec,
    entry: ModelEntry,
    family: Family,
    places: Sequence[CorpusPlace],
    uri: str,
    group: ProcessGroup,
) -> _Start:
    """Build the first model: from a checkpoint, or random with the corpus' vocabulary."""
    if spec.model.checkpoint is None:
        tokenizer_folder = Workspace(places[0].uri).pull(_TOKENIZER_FOLDER) / _TOKENIZER_FOLDER
        pieces = (tokenizer_folder / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
        config = build_config(entry, spec.model.config, vocabulary=pieces)
        model = build_first(
            lambda: build_model(config, family, seed=spec.seed),
            lambda: build_model(config, family, seed=spec.seed),
            group, spec.parallelism,
        )  # fmt: skip
        parents: tuple[Parent, ...] = ()
    else:
        found = open_weights(spec.model.checkpoint)
        tokenizer_folder = found.model_folder
        parents = (found.link(base=uri, root=spec.output),)
        pieces = read_pieces(tokenizer_folder)
        model = build_first(
            lambda: load_model(tokenizer_folder, family, seed=spec.seed),
            lambda: build_model(load_config(tokenizer_folder), family, seed=spec.seed),
            group, spec.parallelism,
        )  # fmt: skip
        check_fits(model, load_tokenizer(tokenizer_folder), tokenizer_folder)
        if model.config.model_type != entry.architecture:
            raise CheckpointError(
                f"{spec.model.checkpoint} is a {model.config.model_type}, "
                f"{entry.name} is a {entry.architecture}"
            )
    if spec.data.max_tokens > max_positions(model.config):
        raise ConfigError(
            f"data.max_tokens = {spec.data.max_tokens}: the model has "
            f"{max_positions(model.config)} positions; lower it or raise model.config's"
        )
    _log.info("%s: %.2f M parameters", entry.name, count_parameters(model) / 1e6)
    return _Start(model=model, pieces=pieces, tokenizer_folder=tokenizer_folder, parents=parents)


def _num_steps(spec: RunSpec, corpus: Corpus) -> int:
    """Return the steps of the whole training: num_epochs passes, cut at max_steps."""
    planner = StepPlanner(corpus.source.lengths, corpus.order, tokens=spec.batch.tokens)
    num_epochs, limit = spec.training.num_epochs, spec.training.max_steps
    # A step takes samples of at most batch.tokens in all: where that many tokens are there, the
    # limit decides and nothing needs to be planned. Where one sample may be longer, it is planned.
    has_short = spec.data.max_tokens <= spec.batch.tokens
    if (
        limit is not None
        and has_short
        and corpus.least_tokens(num_epochs) > (limit * spec.batch.tokens)
    ):
        return limit
    return planner.count_steps(num_epochs, limit=limit)


def main() -> int:
    """Run this rank."""
    parser = argparse.ArgumentParser(prog="pyfsb.training.run", description=__doc__)
    parser.add_argument("--spec", required=True, help="resolved run spec, a path or s3:// URI")
    spec = pin_checkpoint(load_spec(parser.parse_args().spec))
    with StopRequest().listening() as stop:
        group = join_group(spec.parallelism)
        try:
            return pretrain(spec, group, stop)
        finally:
            leave_group()


if __name__ == "__main__":
    sys.exit(run_rank(main))
