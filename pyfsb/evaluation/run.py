# SPDX-License-Identifier: Apache-2.0
"""One rank of the evaluation stage: `torchrun -m pyfsb.evaluation.run --spec URI`.

For each task and runner: train, answer, score, write predictions and submission. Each score is
kept as soon as it is there, so a stopped evaluation goes on with the next one.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyfsb import records, storage
from pyfsb.config import FinetuneSpec, RunSpec, Stage, load_spec, pin_checkpoint, stage_hash
from pyfsb.errors import EXIT_OK, EXIT_TERMINATED, CheckpointError
from pyfsb.evaluation.finetune import Base, Finetuning, finetune
from pyfsb.evaluation.gate import decide_gate
from pyfsb.evaluation.mixtures import describe_sets, labelled_uri, read_sets, score_sets
from pyfsb.evaluation.predict import Answer, answer_rows
from pyfsb.evaluation.protocol import Task
from pyfsb.evaluation.rows import TaskRows, describe_rows, read_task_rows, tasks_of
from pyfsb.evaluation.scoring import Scored, score_answers
from pyfsb.evaluation.submission import write_submission
from pyfsb.inference.loading import load_predictor
from pyfsb.models.loading import count_stored_parameters, load_config, open_weights
from pyfsb.models.overrides import check_held
from pyfsb.processes import StopRequest
from pyfsb.records import (
    EvalReport,
    Parent,
    Score,
)
from pyfsb.registry import find_model
from pyfsb.schema import Json, digest
from pyfsb.storage.workspace import Workspace
from pyfsb.training.distributed import ProcessGroup, join_group, leave_group
from pyfsb.training.launcher import run_rank
from pyfsb.training.progress import Part

_log = logging.getLogger("pyfsb.evaluation")


class _StoppedError(Exception):
    """A stop request ended the stage; what was complete is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """Everything that is the same for all tasks."""

    spec: RunSpec
    workspace: Workspace
    base: Base
    base_link: Parent
    num_parameters: int
    finetunings: tuple[tuple[str, int], ...]
    """Task and seed of every fine-tuning, in order."""
    group: ProcessGroup
    stop: StopRequest


def evaluate(spec: RunSpec, group: ProcessGroup, stop: StopRequest) -> int:
    """Run the evaluation stage of a spec on this rank.

    Returns:
        0 when the report is written, 143 when a stop request ended it before.

    Raises:
        DataError: Files or rows of a task are wrong.
        CheckpointError: The model to evaluate is not usable.
    """
    workspace = Workspace(spec.output_of(Stage.EVALUATION))
    if records.find_record(workspace.uri):
        return EXIT_OK
    started = time.monotonic()
    job = _start(spec, workspace, group, stop)
    try:
        tasks = tasks_of(spec)
        rows = _read_rows(spec, tasks)
        scores = [s for task in tasks for s in _evaluate_task(job, task, rows[task.name])]
    except _StoppedError:
        return EXIT_TERMINATED
    if group.is_first:
        served = spec.serving.task or tasks[-1 if spec.has_labelled_rows else 0].name
        gate = decide_gate(scores, spec.evaluation.gate, spec.serving, task=served)
        report = EvalReport(
            run=spec.name,
            created_at=records.now(),
            seconds=time.monotonic() - started,
            config_hash=stage_hash(spec, Stage.EVALUATION),
            seeds=spec.evaluation.finetune.seeds,
            parents=(job.base_link, *_data_links(job, tasks)),
            model=job.base.model,
            num_parameters=job.num_parameters,
            scores=tuple(scores),
            gate=gate,
            example=_example(rows[served]),
        )
        records.write_record(report, workspace.uri)
        _log.info("gate %s: %s", "passed" if gate.has_passed else "not passed", gate.reason)
    group.barrier()
    return EXIT_OK


def _read_rows(spec: RunSpec, tasks: Sequence[Task]) -> dict[str, TaskRows]:
    """Return the rows of every task; a mixture's depend on those of the others."""
    rows = {t.name: read_task_rows(t, spec.data.root) for t in tasks if not t.is_mixture}
    mixed = {task.name: read_sets(spec, rows) for task in tasks if task.is_mixture}
    return {**rows, **mixed}


def _start(spec: RunSpec, workspace: Workspace, group: ProcessGroup, stop: StopRequest) -> _Job:
    """Find the model to evaluate: the one this run trained, else the spec's checkpoint."""
    trained = Stage.TRAINING in spec.stages
    uri = spec.output_of(Stage.TRAINING) if trained else spec.model.checkpoint
    if uri is None:
        raise CheckpointError("nothing to evaluate: set model.checkpoint or data.corpus")
    weights = open_weights(uri)
    if not trained:
        check_held(load_config(weights.model_folder), spec.model.config, source=uri)
    model = find_model(spec.model.name).name
    return _Job(
        spec=spec,
        workspace=workspace,
        base=Base(folder=weights.model_folder, model=model, uri=weights.uri),
        base_link=weights.link(base=workspace.uri, root=spec.output),
        num_parameters=count_stored_parameters(weights.model_folder),
        finetunings=tuple(
            (task.name, seed) for task in tasks_of(spec) for seed in _settings(spec, task).seeds
        ),
        group=group,
        stop=stop,
    )


def _evaluate_task(job: _Job, task: Task, rows: TaskRows) -> list[Score]:
    """Score every runner on one task."""
    started = time.monotonic()
    workspace = Workspace(storage.join(job.workspace.uri, task.name))
    data_uri = _data_uri(job, task)
    if job.group.is_first and (task.is_mixture or not task.is_prepared):
        seconds = time.monotonic() - started
        record = (
            describe_sets(job.spec, task, rows, seconds=seconds)
            if task.is_mixture
            else describe_rows(job.spec.name, task, rows, seconds)
        )
        records.write_record(record, data_uri)
    job.group.barrier()
    scores = []
    for runner in job.spec.evaluation.runners:
        found = _load_scores(job, task, rows, runner, workspace)
        found = found or _run(job, task, rows, runner, workspace)
        scores += found
        for shown in found if job.group.is_first else ():
            _log.info(
                "%s by %s: %.3f [%.3f, %.3f] on %d rows, majority %.3f",
                shown.task, runner, shown.seed_values[0], *shown.interval, shown.num_rows,
                shown.majority_value,
            )  # fmt: skip
    return scores


def _run(job: _Job, task: Task, rows: TaskRows, runner: str, workspace: Workspace) -> list[Score]:
    """Train, answer and score one runner on one task."""
    started = time.monotonic()
    settings = _settings(job.spec, task)
    seeds = settings.seeds if runner == "finetune" else settings.seeds[:1]
    answers: list[list[Answer]] = []
    for seed in seeds:
        place = Workspace(storage.join(workspace.uri, f"{runner}-{seed}"))
        _train(job, task, rows, runner, seed, place)
        predictor = load_predictor(str(place.pull()))
        answers.append(answer_rows(predictor, rows.held_out, job.group))
        if seed == seeds[0] and rows.submission and rows.submission_path:
            board = answer_rows(predictor, rows.submission, job.group)
            if job.group.is_first:
                folder = workspace.path / "submission" / runner
                write_submission(task, rows.submission_path, board, folder)
    first = Workspace(storage.join(workspace.uri, f"{runner}-{seeds[0]}"))
    record = records.read_record(first.uri)
    scored = Scored(
        task=task,
        runner=runner,
        seeds=tuple(seeds),
        checkpoint=storage.relative(first.uri, job.workspace.uri, root=job.spec.output),
        checkpoint_digest=record.digest,
        split_hash=rows.split_hash,
        num_train=len(rows.train),
        num_excluded=rows.num_excluded,
        seconds=round(time.monotonic() - started, 3),
    )
    scores = (
        score_sets(scored, rows, answers)
        if rows.sets
        else [score_answers(scored, rows.held_out, rows.has_overlap, answers, train=rows.train)]
    )
    if job.group.is_first:
        _write_predictions(rows, answers[0], workspace.path / f"predictions-{runner}.jsonl")
        stored = {
            "fingerprint": _fingerprint(job, task, rows, runner),
            "scores": [score.to_json() for score in scores],
        }
        path = workspace.path / f"score-{runner}.json"
        storage.write_text(str(path), json.dumps(stored, ensure_ascii=False, indent=2) + "\n")
        workspace.push([workspace.path / f"predictions-{runner}.jsonl", path])
        workspace.push([workspace.path / "submission"])
    return scores


def _train(job: _Job, task: Task, rows: TaskRows, runner: str, seed: int, place: Workspace) -> None:
    """Make the checkpoint of one runner and seed."""
    data_link = _data_link(job, task, place.uri)
    if runner == "ngram":
        if job.group.is_first:
            from pyfsb.evaluation.ngram import fit_ngram  # costs scikit-learn

            fit_ngram(
                task, rows.train, seed=seed, run=job.spec.name, workspace=place,
                parents=(data_link,),
            )  # fmt: skip
        job.group.barrier()
        return
    uri = storage.relative(job.base.uri, place.uri, root=job.spec.output)
    work = Finetuning(
        base=job.base,
        task=task,
        examples=rows.train,
        sets=rows.sets,
        temperature=_temperature(job.spec),
        settings=_settings(job.spec, task),
        seed=seed,
        run=job.spec.name,
        workspace=place,
        parallelism=job.spec.parallelism,
        training=job.spec.training,
        parents=(job.base_link.model_copy(update={"uri": uri}), data_link),
        part=Part(
            task=task.name,
            number=job.finetunings.index((task.name, seed)),
            num_parts=len(job.finetunings),
        ),
    )
    is_done = finetune(work, job.group, job.stop)
    if not is_done:
        raise _StoppedError


def _settings(spec: RunSpec, task: Task) -> FinetuneSpec:
    return spec.evaluation.overrides.get(task.name, spec.evaluation.finetune)


def _data_uri(job: _Job, task: Task) -> str:
    if task.is_prepared and not task.is_mixture:
        return labelled_uri(job.spec)
    return storage.join(job.workspace.uri, task.name, "data")


def _data_link(job: _Job, task: Task, base: str) -> Parent:
    return _link(job, _data_uri(job, task), base)


def _data_links(job: _Job, tasks: Sequence[Task]) -> list[Parent]:
    """Return the report's links: of a mixture also to the rows as they were prepared."""
    uris = [_data_uri(job, task) for task in tasks]
    uris += [labelled_uri(job.spec) for task in tasks if task.is_mixture]
    return [_link(job, uri, job.workspace.uri) for uri in uris]


def _link(job: _Job, uri: str, base: str) -> Parent:
    return records.link(records.read_record(uri), uri, base=base, root=job.spec.output)


def _fingerprint(job: _Job, task: Task, rows: TaskRows, runner: str) -> str:
    """Return the digest of everything a score depends on."""
    value: Json = {
        "base": job.base_link.digest,
        "files": [entry.xxh3 for entry in rows.files],
        "task": [task.spec.to_json(), task.version],
        "settings": _settings(job.spec, task).to_json(),
        "runner": runner,
    }
    if rows.sets:
        value["weights"] = [part.weight for part in rows.sets]
        value["temperature"] = _temperature(job.spec)
    return digest(value)


def _temperature(spec: RunSpec) -> float:
    return spec.data.mixture.temperature if spec.data.mixture else 1.0


def _example(rows: TaskRows) -> Json:
    """Return the first held-out row without overlap, as a question and its gold answer."""
    flags = zip(rows.held_out, rows.has_overlap, strict=True)
    row = next((row for row, overlaps in flags if not overlaps), rows.held_out[0])
    return {"text": row.text, "text_pair": row.text_pair, "gold": row.gold}


def _load_scores(
    job: _Job, task: Task, rows: TaskRows, runner: str, workspace: Workspace
) -> list[Score]:
    """Return the scores of an earlier, stopped evaluation if what they depend on is the same."""
    uri = storage.join(workspace.uri, f"score-{runner}.json")
    found = storage.exists(uri)
    job.group.barrier()
    if not found:
        return []
    stored = json.loads(storage.read_text(uri))
    if stored["fingerprint"] != _fingerprint(job, task, rows, runner):
        return []
    return [Score.model_validate(score) for score in stored["scores"]]


def _write_predictions(rows: TaskRows, answers: Sequence[Answer], path: Path) -> None:
    """Write one line a held-out row: id, gold, answer, overlap; of a mixture also the set."""
    sets = [part.name for part in rows.sets for _ in range(part.num_held_out)]
    lines = []
    columns = zip(rows.held_out, answers, rows.has_overlap, strict=True)
    for number, (row, answer, overlaps) in enumerate(columns):
        value: Json = {
            "id": row.id,
            "gold": row.gold,
            "answer": answer.value,
            "is_truncated": answer.is_truncated,
            "has_overlap": overlaps,
        }
        if sets:
            value["set"] = sets[number]
        lines.append(json.dumps(value, ensure_ascii=False))
    storage.write_text(str(path), "".join(f"{line}\n" for line in lines))


def main() -> int:
    """Run this rank."""
    parser = argparse.ArgumentParser(prog="pyfsb.evaluation.run", description=__doc__)
    parser.add_argument("--spec", required=True, help="resolved run spec, a path or s3:// URI")
    spec = pin_checkpoint(load_spec(parser.parse_args().spec))
    with StopRequest().listening() as stop:
        group = join_group(spec.parallelism)
        try:
            return evaluate(spec, group, stop)
        finally:
            leave_group()


if __name__ == "__main__":
    sys.exit(run_rank(main))
