# SPDX-License-Identifier: Apache-2.0
"""One rank of the training stage: `torchrun -m pyfsb.training.run --spec URI`.

Unpacks the spec, puts the pieces together, trains, exports. `python -m pyfsb.training` starts it.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from pyfsb import records, storage
from pyfsb.config import Family, RunSpec, Stage, load_spec, pin_checkpoint, stage_hash
from pyfsb.data.shards import Shards, check_vocabulary
from pyfsb.data.vocabulary import vocabulary_digest
from pyfsb.errors import EXIT_OK, EXIT_TERMINATED, CheckpointError, ConfigError
from pyfsb.models.loading import (
    build_config,
    build_model,
    check_fits,
    count_parameters,
    find_weights,
    load_model,
    load_tokenizer,
    max_positions,
    read_pieces,
)
from pyfsb.objectives import SpecialIds, make_objective
from pyfsb.processes import StopRequest
from pyfsb.records import CORPUS_FOLDER, MODEL_FOLDER, Parent
from pyfsb.registry import ModelEntry, find_entry
from pyfsb.storage.workspace import Workspace, localise
from pyfsb.training.batching import StepPlanner
from pyfsb.training.distributed import ProcessGroup, join_group, leave_group
from pyfsb.training.launcher import run_rank
from pyfsb.training.session import Session, publish_checkpoint, train_to_end
from pyfsb.training.sources import CorpusSource

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
        ConfigError: Model, objective and data do not fit each other.
        DataError: The shards or the loss are not usable.
        CheckpointError: First weights or saved state are not usable.
    """
    workspace = Workspace(spec.output_of(Stage.TRAINING))
    if records.find_record(workspace.uri):
        return EXIT_OK
    entry = find_entry(spec.model.name)
    objective = spec.objective.name or entry.objective
    session = _build_session(spec, entry, objective, workspace)
    trained = train_to_end(session, group, stop)
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


def _build_session(
    spec: RunSpec, entry: ModelEntry, objective_name: str, workspace: Workspace
) -> Session:
    """Put model, shards and objective together."""
    family = Family.GENERATE if objective_name == "causal_lm" else Family.FILL_MASK
    data_uri = storage.join(spec.output_of(Stage.DATA), CORPUS_FOLDER)
    data_record, data_folder = records.read_record(data_uri), localise(data_uri)
    start = _build_start(spec, entry, family, data_folder, workspace.uri)
    shards = Shards.open(data_folder)
    check_vocabulary(shards.index, vocabulary_digest(start.pieces), owner="the model")
    objective = make_objective(
        objective_name, SpecialIds.of(start.pieces), mask_ratio=spec.objective.mask_ratio
    )
    source = CorpusSource(shards, objective, seed=spec.seed)
    return Session(
        title=spec.name,
        workspace=workspace,
        model=start.model,
        family=family,
        tokenizer_folder=start.tokenizer_folder,
        source=source,
        optimizer=spec.optimizer,
        batch=spec.batch,
        seed=spec.seed,
        num_steps=_num_steps(spec, source),
        save_every_steps=spec.training.checkpoint_every_steps,
        keep_last=spec.training.keep_last,
        parallelism=spec.parallelism,
        config_hash=stage_hash(spec, Stage.TRAINING),
        parents=(
            records.link(data_record, data_uri, base=workspace.uri, root=spec.output),
            *start.parents,
        ),
        metrics_port=spec.training.metrics_port,
    )


def _build_start(
    spec: RunSpec, entry: ModelEntry, family: Family, data_folder: Path, uri: str
) -> _Start:
    """Build the first model: from a checkpoint, or random with the corpus' vocabulary."""
    if spec.model.checkpoint is None:
        tokenizer_folder = data_folder / "tokenizer"
        pieces = (tokenizer_folder / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
        config = build_config(entry, spec.model.config, vocabulary=pieces)
        model = build_model(config, family, seed=spec.seed)
        parents: tuple[Parent, ...] = ()
    else:
        folder = find_weights(spec.model.checkpoint)
        record = records.find_record(spec.model.checkpoint)
        places = {"base": uri, "root": spec.output}
        if record:
            records.verify_files(record.files, folder)
            parents = (records.link(record, spec.model.checkpoint, **places),)
        else:
            parents = (records.link_weights(folder, spec.model.checkpoint, **places),)
        tokenizer_folder = folder / MODEL_FOLDER if record else folder
        pieces = read_pieces(tokenizer_folder)
        model = load_model(tokenizer_folder, family, seed=spec.seed)
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


def _num_steps(spec: RunSpec, source: CorpusSource) -> int:
    """Return the steps of the whole training: num_epochs passes, cut at max_steps."""
    limit = spec.training.max_steps
    planner = StepPlanner(source.lengths, tokens=spec.batch.tokens, seed=spec.seed)
    # A step takes samples of at most batch.tokens in all, or one longer sample alone: where that
    # many tokens are there, the limit decides and nothing needs to be planned.
    num_tokens = np.minimum(source.lengths, spec.batch.tokens).sum()
    if limit is not None and num_tokens * spec.training.num_epochs > limit * spec.batch.tokens:
        return limit
    num_steps = planner.count_steps(spec.training.num_epochs)
    return num_steps if limit is None else min(limit, num_steps)


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
