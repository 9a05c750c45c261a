"""Every recipe for twenty steps at a tiny size, in one process.

`python -m tests.helpers.recipe_runs FOLDER [NAME …]` writes FOLDER/found.json: the losses of each
recipe, or of those named, and FOLDER/seconds.json: how long each took. All that a recipe says stays,
but for sizes, places, lengths and the height of the learning rate: objective, schedule, decay, ZeRO
profile, checkpointing, dropout, and where the weights come from (`hf://` is read from a cache made
here). Recipes that need the same of a corpus share one.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT, SAMPLES
from tests.helpers.groups import load, run_ranks

RECIPES = sorted((ROOT / "docs/recipes").glob("*.yaml"))
NUM_STEPS = 20
PEAK_RATE = 2e-3
NUM_PIECES = 2000
NUM_NEW_PIECES = 50
MAX_TOKENS = {"denoising": 32, "sft": 128}
"""Where a document holds its text twice, and where sample rows are longer than 64."""
SENTENCE_WEIGHT = 9
"""What is masked of 62 tokens, as the default is what is masked of 510."""
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
"""Smaller than the registry's own tiny sizes, which the others have: most recipes are of these."""


def shrink(recipe: Path, folder: Path) -> dict[str, Any]:
    """Return a recipe's spec with tiny sizes, the sample texts and a place below a folder."""
    spec: dict[str, Any] = yaml.safe_load(recipe.read_text("utf-8"))
    spec["output"] = str(folder / "runs" / recipe.stem)
    spec.setdefault("parallelism", {}).update(num_processes=1, threads_per_process=1)
    shrink_model(spec["model"], folder)
    if is_training(spec):
        shrink_data(spec, folder)
        spec["batch"].update(tokens=512, micro_tokens=256)
        training = spec["training"]
        shrink_optimizer(spec["optimizer"], training.get("max_steps"))
        training.update(max_steps=NUM_STEPS, num_epochs=99)
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


def shrink_model(model: dict[str, Any], folder: Path) -> None:
    """Give a model its tiny size, or weights of it."""
    if "checkpoint" not in model:
        model["config"] = tiny(model["name"])
    elif not model["checkpoint"].startswith("hf://"):
        model["checkpoint"] = str(folder / "own" / model["name"])
    sizes = {key: value for key, value in tiny(model["name"]).items() if "image_size" in key}
    if sizes:  # the data stage makes images of that size, whatever the weights are
        model.setdefault("config", {}).update(sizes)


def tiny(name: str) -> dict[str, Any]:
    """Return the overrides that make an entry tiny."""
    from pyfsb.registry import find_entry
    from pyfsb.registry.sizes import tiny_config

    entry = find_entry(name)
    is_long = entry.objective.value in MAX_TOKENS
    return dict(tiny_config(entry) if is_long else TINY.get(entry.architecture, tiny_config(entry)))


def shrink_data(spec: dict[str, Any], folder: Path) -> None:
    """Put the sample texts or rows in, and a small vocabulary of the same kind."""
    from pyfsb.data.row_sets import ROW_OBJECTIVES
    from pyfsb.evaluation.check_rows import write_rows

    data, objective = spec["data"], objective_of(spec)
    if objective == "sentence_order":
        spec["objective"]["sentence_order"] = {"sentence_weight": SENTENCE_WEIGHT}
    data.update(num_processes=1, max_tokens=MAX_TOKENS.get(objective, 64))
    if objective in ROW_OBJECTIVES:
        place = folder / "rows" / objective
        place.mkdir(parents=True, exist_ok=True)
        data.update(root=str(place), rows=[write_rows(objective, place)])
        data["vocabulary"] = {"size": NUM_PIECES}
        return
    data.update(root=str(SAMPLES), corpus=["rawcorpus/*.jsonl.gz"])
    data.pop("segmenter", None)  # they differ in ties only
    vocabulary = data.get("vocabulary", {})
    if vocabulary.get("extend"):
        vocabulary["extend"] = NUM_NEW_PIECES
        if not data["tokenizer"].startswith("hf://"):
            data["tokenizer"] = spec["model"]["checkpoint"]
        return
    data.pop("tokenizer", None)  # a corpus for each would be the same one
    kept = ("kind", "num_sentinels")
    data["vocabulary"] = {"size": NUM_PIECES} | {k: vocabulary[k] for k in kept if k in vocabulary}


def objective_of(spec: dict[str, Any]) -> Any:
    """Return a spec's objective, or its model's."""
    from pyfsb.config import ObjectiveName
    from pyfsb.registry import find_entry

    name = spec.get("objective", {}).get("name") or find_entry(spec["model"]["name"]).objective
    return ObjectiveName(name)


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


def bring_corpus(spec: dict[str, Any], folder: Path) -> Path:
    """Return the data folder of a spec's corpus, made once for all that need the same of it."""
    from pyfsb.config import resolve_spec
    from pyfsb.data.prepare import prepare
    from pyfsb.data.wanted import complete_data
    from pyfsb.schema import digest

    data = complete_data(resolve_spec(yaml.safe_dump(spec)))
    place = folder / "corpora" / digest(data.model_dump(mode="json"))[-16:]
    if not place.exists():
        prepare(resolve_spec(yaml.safe_dump({**spec, "output": str(place)})))
    return place / "data"


def bring_weights(spec: dict[str, Any], folder: Path) -> None:
    """Make the published model that a recipe starts from: tiny, random, with the corpus' words."""
    from pyfsb.config import Family, resolve_spec
    from pyfsb.data.tokenizer_files import read_pieces_of
    from pyfsb.models.building import build_config, build_model
    from pyfsb.models.loading import load_tokenizer
    from pyfsb.registry import all_entries, find_entry
    from pyfsb.training.starting import plan_training

    uri, name = spec["model"].get("checkpoint"), spec["model"]["name"]
    if uri is None or place_of(uri, folder).exists():
        return
    family, own = Family.FILL_MASK, spec
    if is_training(spec):
        family = plan_training(resolve_spec(yaml.safe_dump(spec))).family
    if not spec["data"].get("corpus") or "tokenizer" in spec["data"]:
        own = {**spec, "data": {}, "objective": {"name": "token_mlm"}}
        shrink_data(own, folder)
    tokenizer = bring_corpus(own, folder) / "corpus/tokenizer"
    published = [entry for entry in all_entries() if uri == f"hf://{entry.hub_id}"]
    entry = published[0] if published else find_entry(name)
    config = build_config(entry, tiny(name), vocabulary=read_pieces_of(tokenizer))
    place = place_of(uri, folder)
    build_model(config, family, seed=1).save_pretrained(place)
    load_tokenizer(tokenizer).save_pretrained(place)


def is_training(spec: dict[str, Any]) -> bool:
    """Say whether a recipe trains on a corpus or rows; the others fine-tune."""
    return bool(spec["data"].get("corpus") or spec["data"].get("rows"))


def place_of(uri: str, folder: Path) -> Path:
    """Return where weights lie; a repository's in the cache of the hub."""
    if not uri.startswith("hf://"):
        return Path(uri)
    hub = folder / "hub" / f"models--{uri.removeprefix('hf://').replace('/', '--')}"
    (hub / "refs").mkdir(parents=True, exist_ok=True)
    (hub / "refs/main").write_text(COMMIT)
    return hub / "snapshots" / COMMIT


def pretrain(spec: dict[str, Any], folder: Path, group: Any) -> Path:
    """Run the training stage on the shards or rows; returns its folder."""
    from pyfsb.config import resolve_spec
    from pyfsb.data.prepare import prepare
    from pyfsb.processes import StopRequest
    from pyfsb.training.run import pretrain as run

    output = Path(spec["output"])
    output.mkdir(parents=True)
    resolved = resolve_spec(yaml.safe_dump(spec))
    if spec["data"].get("rows"):
        prepare(resolved)
    else:
        (output / "data").symlink_to(bring_corpus(spec, folder))
    assert run(resolved, group, StopRequest()) == 0
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


def likeness(spec: dict[str, Any]) -> str:
    """Return what the losses of a shrunk recipe follow from: equal for two, they are run once."""
    from pyfsb.models.building import build_config
    from pyfsb.registry import find_entry
    from pyfsb.schema import digest

    name = spec["model"]["name"]
    config = build_config(find_entry(name), tiny(name), vocabulary=()).to_dict()
    model = {"config": config, "is_random": "checkpoint" not in spec["model"]}
    return digest(
        {**spec, "name": "", "output": "", "model": {k: str(v) for k, v in model.items()}}
    )


def run_one(spec: dict[str, Any], folder: Path, group: Any) -> list[float]:
    """Run a shrunk recipe; returns its losses."""
    from pyfsb.training.metrics import read_metrics

    bring_weights(spec, folder)
    done = (pretrain if is_training(spec) else finetune)(spec, folder, group)
    return [step["loss"] for step in read_metrics(done / "metrics.jsonl")]


def run_all(folder: Path, recipes: list[Path], group: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run recipes; returns the losses, or what went wrong, and the seconds of each."""
    from huggingface_hub import constants

    from pyfsb.training import export

    constants.HF_HUB_CACHE = str(folder / "hub")
    constants.HF_HUB_OFFLINE = True
    export.draw_curve = lambda steps, path, record: None  # a quarter of the time of a tiny run
    found: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    known: dict[str, list[float]] = {}
    for recipe in recipes:
        started = time.monotonic()
        try:
            spec = shrink(recipe, folder)
            key = likeness(spec)
            if key not in known:
                known[key] = run_one(spec, folder, group)
            found[recipe.stem] = known[key]
        except Exception:
            found[recipe.stem] = traceback.format_exc()
        seconds[recipe.stem] = round(time.monotonic() - started, 1)
    return found, seconds


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    recipes = [path for path in RECIPES if not names or path.stem in names]
    load()
    found, seconds = run_ranks(1, lambda group: run_all(folder, recipes, group))[0]
    (folder / "found.json").write_text(json.dumps(found, indent=2))
    (folder / "seconds.json").write_text(json.dumps(seconds, indent=2))


if __name__ == "__main__":
    main()
