"""Every recipe for twenty steps at a tiny size, in one process.

`python -m tests.helpers.recipe_runs FOLDER` writes FOLDER/found.json: the losses of each recipe. All
that a recipe says stays, but for sizes, places, lengths and the height of the learning rate:
objective, schedule, decay, ZeRO profile, checkpointing, dropout, and where the weights come from
(`hf://` is read from a cache made here).
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT, SAMPLES
from tests.helpers.groups import load, run_ranks

RECIPES = sorted((ROOT / "docs/recipes").glob("*.yaml"))
NUM_STEPS = 20
PEAK_RATE = 2e-3
COMMIT = "0" * 40
ENCODER = {
    "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 64,
}  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "megatron-bert": ENCODER,
    "deberta-v2": {**ENCODER, "position_buckets": 16},
    "gpt2": {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 64},
}


def shrink(recipe: Path, folder: Path) -> dict[str, Any]:
    """Return a recipe's spec with tiny sizes, the sample texts and a place below a folder."""
    from pyfsb.registry import find_entry

    spec: dict[str, Any] = yaml.safe_load(recipe.read_text("utf-8"))
    spec["output"] = str(folder / "runs" / recipe.stem)
    spec.setdefault("parallelism", {}).update(num_processes=1, threads_per_process=1)
    model = spec["model"]
    if "checkpoint" in model:
        if not model["checkpoint"].startswith("hf://"):
            model["checkpoint"] = str(folder / "own" / find_entry(model["name"]).name)
    else:
        model["config"] = {**TINY[find_entry(model["name"]).architecture]}
    if spec["data"].get("corpus"):
        spec["data"].update(root=str(SAMPLES), corpus=["rawcorpus/*.jsonl.gz"], max_tokens=64)
        spec["data"]["vocabulary"] = {"size": 2000}
        spec["batch"].update(tokens=512, micro_tokens=256)
        training = spec["training"]
        shrink_optimizer(spec["optimizer"], training.get("max_steps"))
        training.update(max_steps=NUM_STEPS, num_epochs=9)
        if "validation_samples" in training:
            training["validation_samples"] = 8
    else:
        settings = spec["evaluation"]["finetune"]
        settings["batch"].update(tokens=512, micro_tokens=256)
        settings.update(max_steps=NUM_STEPS, max_tokens=64)
        if "validate_every_steps" in settings:
            settings["validate_every_steps"] = 10
        shrink_optimizer(settings["optimizer"], None)
    return spec


def shrink_optimizer(optimizer: dict[str, Any], max_steps: int | None) -> None:
    """Raise the rates so that twenty steps show them, and bring the schedule's steps down."""
    peak = float(optimizer["learning_rate"])
    optimizer["learning_rate"] = PEAK_RATE
    if "min_learning_rate" in optimizer:
        optimizer["min_learning_rate"] = float(optimizer["min_learning_rate"]) / peak * PEAK_RATE
    if "decay_steps" in optimizer and max_steps:
        optimizer["decay_steps"] = max(1, optimizer["decay_steps"] * NUM_STEPS // max_steps)
    if "warmup_steps" in optimizer:
        optimizer["warmup_steps"] = min(4, optimizer["warmup_steps"])


def prepare(folder: Path) -> None:
    """Make the shards and the published models: tiny, with random weights and the corpus' words."""
    from pyfsb.config import Family, resolve_spec
    from pyfsb.data.prepare import prepare as prepare_data
    from pyfsb.data.vocabulary import write_tokenizer
    from pyfsb.models.building import build_config, build_model
    from pyfsb.registry import all_entries

    spec = shrink(ROOT / "docs/recipes/erlangshen-bert-pretrain.yaml", folder)
    prepare_data(resolve_spec(yaml.safe_dump({**spec, "output": str(folder / "corpus")})))
    text = (folder / "corpus/data/corpus/tokenizer/vocab.txt").read_text("utf-8")
    pieces = text.split("\n")[:-1]
    for entry in all_entries():
        if entry.architecture not in TINY:
            continue
        config = build_config(entry, TINY[entry.architecture], vocabulary=pieces)
        family = Family.GENERATE if entry.objective == "causal_lm" else Family.FILL_MASK
        model = build_model(config, family, seed=1)
        hub = folder / "hub" / f"models--{entry.hub_id.replace('/', '--')}"
        (hub / "refs").mkdir(parents=True)
        (hub / "refs/main").write_text(COMMIT)
        for place in (hub / "snapshots" / COMMIT, folder / "own" / entry.name):
            model.save_pretrained(place)
            write_tokenizer(pieces, place, lowercase=True)


def pretrain(spec: dict[str, Any], folder: Path, group: Any) -> Path:
    """Run the training stage on the shards; returns its folder."""
    from pyfsb.config import resolve_spec
    from pyfsb.processes import StopRequest
    from pyfsb.training.run import pretrain as run

    output = Path(spec["output"])
    output.mkdir(parents=True)
    (output / "data").symlink_to(folder / "corpus/data")
    assert run(resolve_spec(yaml.safe_dump(spec)), group, StopRequest()) == 0
    return output / "training"


def finetune(spec: dict[str, Any], folder: Path, group: Any) -> Path:
    """Fine-tune on sample rows of the recipe's family; returns the folder."""
    from pyfsb.config import resolve_spec
    from pyfsb.evaluation.finetune import Base, Finetuning
    from pyfsb.evaluation.finetune import finetune as run
    from pyfsb.models.loading import open_weights
    from pyfsb.processes import StopRequest
    from pyfsb.storage.workspace import Workspace
    from pyfsb.training.progress import Part

    resolved = resolve_spec(yaml.safe_dump(spec))
    assert resolved.model.checkpoint
    weights = open_weights(resolved.model.checkpoint)
    task, examples = sample_rows(resolved)
    workspace = Workspace(str(Path(spec["output"]) / "evaluation" / task.name))
    work = Finetuning(
        base=Base(folder=weights.model_folder, model=resolved.model.name, uri=weights.uri),
        task=task, examples=examples, settings=resolved.evaluation.finetune, seed=42,
        run=resolved.name, workspace=workspace, parallelism=resolved.parallelism,
        training=resolved.training,
        parents=(weights.link(base=workspace.uri, root=resolved.output),),
        part=Part(task=task.name, number=0, num_parts=1),
    )  # fmt: skip
    assert run(work, group, StopRequest())
    return workspace.path


def sample_rows(spec: Any) -> tuple[Any, Any]:
    """Return a task of the recipe's family with rows of the samples."""
    from dataclasses import replace

    from pyfsb.config import Family, TaskSpec
    from pyfsb.data.labelled import parse_rows
    from pyfsb.data.row_files import read_rows
    from pyfsb.evaluation.tasks import find_task
    from pyfsb.schema import parse

    names = spec.evaluation.tasks
    family = find_task(names[0]).spec.family if names else spec.own_task.family
    tnews = find_task("tnews")
    if family is Family.CLASSIFY:
        path, own = SAMPLES / tnews.train, tnews.spec
    else:
        name, file = {
            Family.PAIR: ("pair", "questions.csv"), Family.TAG: ("tag", "reviews.jsonl")
        }[family]  # fmt: skip
        path = SAMPLES / "own" / file
        text = (ROOT / f"docs/examples/task-{name}.yaml").read_text("utf-8")
        own = parse(TaskSpec, yaml.safe_load(text), source=name)
    task = replace(tnews, spec=own)
    return task, parse_rows(read_rows(path), own, source=str(path))


def run_all(folder: Path, group: Any) -> dict[str, Any]:
    """Run every recipe; returns its losses, or what went wrong."""
    from huggingface_hub import constants

    from pyfsb.training.metrics import read_metrics

    constants.HF_HUB_CACHE = str(folder / "hub")
    constants.HF_HUB_OFFLINE = True
    prepare(folder)
    found: dict[str, Any] = {}
    for recipe in RECIPES:
        try:
            spec = shrink(recipe, folder)
            run = pretrain if spec["data"].get("corpus") else finetune
            steps = read_metrics(run(spec, folder, group) / "metrics.jsonl")
            found[recipe.stem] = [step["loss"] for step in steps]
        except Exception:
            found[recipe.stem] = traceback.format_exc()
    return found


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    folder = Path(sys.argv[1])
    load()
    found = run_ranks(1, lambda group: run_all(folder, group))[0]
    (folder / "found.json").write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
