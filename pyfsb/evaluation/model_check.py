# SPDX-License-Identifier: Apache-2.0
"""Shows that models of the registry work: `fsb models check`.

Tiny: a small variant of an entry goes the whole way through the stages themselves: data, training
on its objective, export, reloading, one request to the predictor of its family. Full size: the
module is built without memory and its parameters are counted. Called by the command line and by
tests; makes nothing that lasts.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from transformers import PreTrainedModel

from pyfsb.config import Family, ObjectiveName, ParallelismSpec, RunSpec, Stage
from pyfsb.data.prepare import prepare
from pyfsb.data.row_sets import ROW_OBJECTIVES
from pyfsb.errors import FsbError
from pyfsb.evaluation.check_rows import sample_input, write_rows
from pyfsb.evaluation.check_texts import sample_texts
from pyfsb.inference.loading import load_folder
from pyfsb.models.building import LABELLED, build_config, build_model, max_positions
from pyfsb.models.loading import count_parameters, load_model, load_tokenizer
from pyfsb.processes import StopRequest
from pyfsb.records import MODEL_FOLDER
from pyfsb.registry import ModelEntry
from pyfsb.registry.sizes import tiny_config
from pyfsb.schema import Schema
from pyfsb.storage.workspace import Workspace
from pyfsb.training.distributed import ProcessGroup, join_group, leave_group
from pyfsb.training.meters import METRICS_NAME, read_metrics
from pyfsb.training.run import Pretraining, open_pretraining

NUM_STEPS: Final = 20
SIZE_TOLERANCE: Final = 0.01
"""Parameters may differ from the name by so much, as a ratio, before an entry must say why."""
_NUM_ENDS: Final = 5
"""Steps at either end whose mean losses are compared."""
_ALONE: Final = ParallelismSpec(num_processes=1, threads_per_process=1)
"""Tiny models gain nothing from more threads."""
_MAX_TOKENS: Final = {ObjectiveName.DENOISING: 32, ObjectiveName.SFT: 128}
"""Tokens of a sample where a document holds more than it."""
_LABELS: Final = ("差评", "好评")


class CheckResult(Schema):
    """What a check of one entry found."""

    name: str
    """The entry."""
    is_ok: bool
    """False: `note` says what is wrong."""
    parameters: int
    """Parameters that were built."""
    expected_parameters: int | None = None
    """Parameters that the name states; None of a tiny variant."""
    first_loss: float | None = None
    """Mean loss of the first steps, nats per target."""
    last_loss: float | None = None
    """Mean loss of the last steps."""
    answer: str = ""
    """What the predictor answered, shortened."""
    seconds: float
    """How long it took."""
    note: str = ""
    """What is wrong, or why the size differs."""


def check_full_size(entry: ModelEntry) -> CheckResult:
    """Build an entry at its published size without memory and count its parameters."""
    started = time.monotonic()
    parameters, note, is_ok = 0, "", False
    try:
        with torch.device("meta"):
            config = build_config(entry, {}, vocabulary=())
            family, has_order_head = _full_size_head(entry)
            model = build_model(
                config, family, seed=0, labels=entry.labels, has_order_head=has_order_head
            )
        parameters = count_parameters(model)
        difference = parameters / entry.num_parameters - 1
        is_ok = abs(difference) <= SIZE_TOLERANCE or bool(entry.size_note)
        if abs(difference) > SIZE_TOLERANCE:
            note = f"{difference:+.1%}: {entry.size_note or 'the entry does not say why'}"
        if 0 < entry.max_tokens > max_positions(config):
            is_ok, note = False, f"{entry.max_tokens} tokens, {max_positions(config)} positions"
    except FsbError as exc:
        note = str(exc)
    return CheckResult(
        name=entry.name,
        is_ok=is_ok,
        parameters=parameters,
        expected_parameters=entry.num_parameters,
        seconds=time.monotonic() - started,
        note=note,
    )


def check_tiny(entry: ModelEntry) -> CheckResult:
    """Take a tiny variant of an entry from text to an answer.

    `single_process` must be open.
    """
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="fsb-check-") as folder:
            found = _go_through(entry, Path(folder))
    except FsbError as exc:
        found = {"is_ok": False, "parameters": 0, "note": f"{type(exc).__name__}: {exc}"}
    return CheckResult(name=entry.name, seconds=time.monotonic() - started, **found)


@contextlib.contextmanager
def single_process() -> Iterator[None]:
    """Be a process group of one for the length of the block."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    values = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    values["MASTER_PORT"] = str(port)
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        _GROUPS.append(join_group(_ALONE))
        yield
    finally:
        _GROUPS.clear()
        leave_group()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


_GROUPS: list[ProcessGroup] = []


def _full_size_head(entry: ModelEntry) -> tuple[Family, bool]:
    """Return the head that a published model has: that of its family."""
    return Family(entry.family), entry.objective == ObjectiveName.SENTENCE_ORDER


def _go_through(entry: ModelEntry, folder: Path) -> dict[str, Any]:
    spec = _make_spec(entry, folder)
    prepare(spec)
    with open_pretraining(spec, _GROUPS[0]) as pretraining:
        if not pretraining.run(StopRequest()):
            return {"is_ok": False, "parameters": 0, "note": "stopped"}
        parameters = count_parameters(pretraining.session.model)
        difference = _compare(pretraining)
    workspace = Workspace(spec.output_of(Stage.TRAINING))
    losses = [row["loss"] for row in read_metrics(workspace.path / METRICS_NAME)]
    first = sum(losses[:_NUM_ENDS]) / _NUM_ENDS
    last = sum(losses[-_NUM_ENDS:]) / _NUM_ENDS
    answer = _ask(entry, workspace.path / MODEL_FOLDER, folder)
    problems = []
    if not last < first:
        problems.append(f"the loss did not fall: {first:.4f} to {last:.4f}")
    if difference:
        problems.append(f"reloaded weights differ: {difference}")
    return {
        "is_ok": not problems,
        "parameters": parameters,
        "first_loss": round(first, 4),
        "last_loss": round(last, 4),
        "answer": answer,
        "note": "; ".join(problems),
    }


def _make_spec(entry: ModelEntry, folder: Path) -> RunSpec:
    """Return the spec of a tiny run, with its texts or rows written down."""
    values: dict[str, Any] = {
        "name": "check",
        "output": str(folder / "run"),
        "model": {"name": entry.name, "config": tiny_config(entry)},
        "data": {
            "root": str(folder), "max_tokens": _MAX_TOKENS.get(entry.objective, 64),
            "num_processes": 1,
            "vocabulary": {"size": 400}, "shard_tokens": 1 << 20,
        },
        "optimizer": {
            "learning_rate": 3e-3, "warmup_ratio": 0.1, "max_gradient_norm": 1.0,
        },
        "batch": {"tokens": 4096, "micro_tokens": 4096},
        "training": {
            "max_steps": NUM_STEPS, "num_epochs": 1000, "checkpoint_every_steps": 1000,
            "spikes": {"max_norm_ratio": None},
        },
        "parallelism": _ALONE.to_json(),
    }  # fmt: skip
    if entry.objective in ROW_OBJECTIVES:
        values["data"]["rows"] = [write_rows(entry.objective, folder)]
    else:
        lines = [json.dumps({"text": text}, ensure_ascii=False) for text in sample_texts()]
        (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        values["data"]["corpus"] = ["corpus.jsonl"]
    return RunSpec.model_validate(values)


def _compare(pretraining: Pretraining) -> str:
    """Compare the exported folder's logits with those of the model that was trained."""
    session, plan = pretraining.session, pretraining.plan
    folder = session.workspace.path / MODEL_FOLDER
    reloaded = load_model(
        folder, plan.family, has_order_head=plan.name is ObjectiveName.SENTENCE_ORDER
    )
    batch = session.source.collate(*_first_samples())
    losses = [_loss_of(model, pretraining, dict(batch.inputs)) for model in
              (session.model, reloaded)]  # fmt: skip
    return "" if losses[0] == losses[1] else f"loss {losses[0]!r}, reloaded {losses[1]!r}"


def _first_samples() -> tuple[Any, Any]:
    import numpy as np

    ids = np.arange(8)
    return ids, np.zeros_like(ids)


def _loss_of(model: PreTrainedModel, pretraining: Pretraining, inputs: dict[str, Any]) -> float:
    from pyfsb.models.heads import build_loss, default_layout

    family = pretraining.plan.family
    layout = default_layout(model.config.model_type, "cpu", family)
    module = build_loss(model.eval(), family, layout).eval()
    with torch.no_grad():
        return float(module(**inputs))


def _ask(entry: ModelEntry, exported: Path, folder: Path) -> str:
    """Ask the exported model one thing, as its family is asked."""
    family = Family(entry.family)
    has_text = entry.tokenizer != "none"
    if (family in LABELLED and has_text) or family is Family.ANSWER:
        # A published head was fine-tuned; here it starts from random weights.
        labels = entry.labels or _LABELS
        model = load_model(exported, family, labels=None if family is Family.ANSWER else labels)
        exported = folder / "asked"
        model.save_pretrained(exported)
        load_tokenizer(folder / "run" / "training" / MODEL_FOLDER).save_pretrained(exported)
    predictor = load_folder(exported, family, name=entry.name, max_tokens=64)
    mask_token = str(load_tokenizer(exported).mask_token) if has_text else ""
    (prediction,) = predictor.predict([sample_input(family, mask_token)])
    text = json.dumps(prediction.to_json(), ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:79]}…"
