# SPDX-License-Identifier: Apache-2.0
"""One rank of the training stage: `torchrun -m pyfsb.training.run --spec URI`.

Unpacks the spec, puts the pieces together, trains, exports. `python -m pyfsb.training` starts it.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pyfsb import records, storage
from pyfsb.config import Family, RunSpec, Stage, load_spec, pin_checkpoint, stage_hash
from pyfsb.data.shards import check_vocabulary
from pyfsb.data.vocabulary import vocabulary_digest
from pyfsb.errors import EXIT_OK, EXIT_TERMINATED
from pyfsb.models.building import max_positions
from pyfsb.processes import StopRequest
from pyfsb.records import CORPUS_FOLDER, ROWS_FOLDER
from pyfsb.storage.workspace import Workspace
from pyfsb.training.batching import StepPlanner
from pyfsb.training.distributed import ProcessGroup, join_group, leave_group
from pyfsb.training.launcher import run_rank
from pyfsb.training.row_corpus import open_rows
from pyfsb.training.session import Session, publish_checkpoint, train_to_end
from pyfsb.training.sources import Corpus, CorpusPlace, open_corpus
from pyfsb.training.starting import (
    Plan,
    Start,
    build_objective,
    build_start,
    check_lengths,
    plan_training,
)

_OWN_CORPUS = "corpus"


def pretrain(spec: RunSpec, group: ProcessGroup, stop: StopRequest) -> int:
    """Run the training stage of a spec on this rank.

    Returns:
        0 when the record is written, 143 when a stop request ended it before.

    Raises:
        ConfigError: Model, objective, data and processes do not fit each other.
        DataError: The shards or the loss are not usable.
        CheckpointError: First weights or saved state are not usable.
    """
    if records.find_record(spec.output_of(Stage.TRAINING)):
        return EXIT_OK
    with open_pretraining(spec, group) as pretraining:
        return EXIT_OK if pretraining.run(stop) else EXIT_TERMINATED


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretraining:
    """A training stage, ready to run."""

    spec: RunSpec
    plan: Plan
    session: Session
    group: ProcessGroup

    def run(self, stop: StopRequest) -> bool:
        """Train to the end and publish; returns False when a stop request ended it before."""
        trained = train_to_end(self.session, self.group, stop)
        if trained is None:
            return False
        if self.group.is_first:
            publish_checkpoint(
                self.session, trained, run=self.spec.name, model=self.plan.entry.name,
                objective=self.plan.name.value,
                max_tokens=max_positions(self.session.model.config),
            )  # fmt: skip
        self.group.barrier()
        return True


@contextlib.contextmanager
def open_pretraining(spec: RunSpec, group: ProcessGroup) -> Iterator[Pretraining]:
    """Put a spec's model, data and objective together; the block's end closes the data.

    Raises:
        ConfigError: They do not fit each other.
        DataError: The shards are not usable.
        CheckpointError: First weights are not usable.
    """
    workspace = Workspace(spec.output_of(Stage.TRAINING))
    plan = plan_training(spec)
    places = _find_corpora(spec)
    start = build_start(spec, plan, places[0].uri, workspace.uri, group)
    corpus = (
        open_rows(spec, plan, start, places[0].uri)
        if spec.data.rows
        else _open_corpus(spec, plan, places, start)
    )
    try:
        session = _build_session(spec, plan.family, corpus, places, start, workspace)
        yield Pretraining(spec=spec, plan=plan, session=session, group=group)
    finally:
        corpus.close()


def _find_corpora(spec: RunSpec) -> tuple[CorpusPlace, ...]:
    """Return where the shards lie, the run's own first, then those of the blend; or the rows.

    Raises:
        DataError: One of them was never completely prepared.
    """
    folder = ROWS_FOLDER if spec.data.rows else CORPUS_FOLDER
    own = CorpusPlace(
        name=_OWN_CORPUS,
        uri=storage.join(spec.output_of(Stage.DATA), folder),
        weight=spec.data.corpus_weight,
    )
    others = tuple(
        CorpusPlace(name=part.name, uri=storage.join(part.uri, CORPUS_FOLDER), weight=part.weight)
        for part in spec.data.blend
    )
    places = (own, *others) if spec.data.corpus or spec.data.rows else others
    for place in places:  # a corpus that is not there, or not whole, has no record
        records.read_record(place.uri)
    return places


def _open_corpus(spec: RunSpec, plan: Plan, places: Sequence[CorpusPlace], start: Start) -> Corpus:
    """Open all shards and compare their vocabularies with the model's."""
    objective = build_objective(plan, start)
    check_lengths(spec, objective, start.model.config)
    corpus = open_corpus(
        places,
        objective,
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
    start: Start,
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
