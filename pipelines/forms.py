# SPDX-License-Identifier: Apache-2.0
"""From the fields of a pipeline's form to a run spec, checked before anything is started.

Called by the components `compose_*`. Pure but for the check of the spec; never imports kfp.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any, Final

from pipelines.environment import SETTINGS_MAP
from pipelines.launching import check_engine
from pyfsb.config import Stage, pin_checkpoint, resolve_spec
from pyfsb.engines.cluster_resources import check_places
from pyfsb.errors import ConfigError
from pyfsb.registry import find_model
from pyfsb.schema import Json, parse_yaml_mapping, to_yaml
from pyfsb.storage.uris import split_glob
from pyfsb.versions import STORE_VARIABLE, is_reference

RUN_MARK: Final = "{run}"
"""Stands for the pipeline run's id in a form's `output`."""
_ENDINGS: Final = (".jsonl", ".jsonl.gz", ".txt", ".txt.gz")


def compose(
    form: Json,
    *,
    settings: str,
    stages: Collection[Stage],
    engine: str,
    run_id: str,
    register_as: str = "",
) -> str:
    """Return the run spec of a form as YAML text.

    Args:
        form: Nested values of a run spec; those that are None or "" are left to their defaults.
        settings: Further settings as YAML; they win.
        stages: What the pipeline does.
        engine: Where its stages run.
        run_id: Id of the pipeline's run.
        register_as: Name in the model store that a later task registers the model under.

    Raises:
        ConfigError: A value is not what it should be; names it.
        UnknownNameError: There is no such model, version or engine; carries the nearest.
    """
    check_engine(engine)
    value = _without_empty(form)
    if settings.strip():
        value = _merged(value, parse_yaml_mapping(settings, source="settings"))
    value["output"] = str(value.get("output", "")).replace(RUN_MARK, _short(run_id))
    spec = resolve_spec(to_yaml(value), source="form")
    find_model(spec.model.name)
    if unwanted := [stage for stage in spec.stages if stage not in stages]:
        raise ConfigError(
            f"settings ask for {', '.join(unwanted)}, which this pipeline has no task for; it does "
            f"{', '.join(stages)}. The pipeline fsb-end-to-end does everything"
        )
    if engine == "kubernetes":
        checkpoint = spec.model.checkpoint or ""
        _check_store("checkpoint", checkpoint if is_reference(checkpoint) else "")
        _check_store("register_as", register_as)
    pinned = pin_checkpoint(spec)  # an alias that moves meanwhile does not touch this run
    if engine == "kubernetes":
        check_places(pinned)
    if pinned.model.checkpoint != spec.model.checkpoint:
        value["model"]["checkpoint"] = pinned.model.checkpoint
    return to_yaml(value)


def finetuning(
    *,
    name: str,
    output: str,
    model: str,
    checkpoint: str,
    seeds: str,
    learning_rate: float,
    num_epochs: int,
    batch_tokens: int,
    max_tokens: int,
) -> Json:
    """Return what the forms of fine-tuning pipelines share.

    Raises:
        ConfigError: A seed is not a whole number.
    """
    return {
        "name": name,
        "output": output,
        "model": {"name": model, "checkpoint": checkpoint},
        "evaluation": {
            "finetune": {
                "optimizer": {"learning_rate": learning_rate},
                "batch": {"tokens": batch_tokens},
                "num_epochs": num_epochs,
                "max_tokens": max_tokens,
                "seeds": split_numbers(seeds, field="seeds"),
            }
        },
    }


def corpus_section(corpus: str) -> Json:
    """Return `data.root` and `data.corpus` of a glob or a file.

    Raises:
        ConfigError: It is a folder.
    """
    root, pattern = split_glob(corpus)
    if not pattern and corpus.endswith(_ENDINGS):
        root, _, pattern = corpus.rpartition("/")
    if not pattern or not root:
        raise ConfigError(
            f"corpus = {corpus!r}: expected a file or a glob in a folder, such as "
            f"{corpus.rstrip('/') or 's3://bucket/corpus'}/**/*.jsonl.gz"
        )
    return {"root": root, "corpus": [pattern]}


def split_names(text: str) -> list[str]:
    """Return the names in a field, separated by commas or new lines."""
    return [name for part in text.splitlines() for name in map(str.strip, part.split(",")) if name]


def split_numbers(text: str, *, field: str) -> list[int]:
    """Return the whole numbers in a field, separated by commas.

    Raises:
        ConfigError: One of them is not a whole number.
    """
    try:
        return [int(part) for part in split_names(text)]
    except ValueError:
        raise ConfigError(
            f"{field} = {text!r}: expected whole numbers separated by commas, such as 42, 43"
        ) from None


def _check_store(field: str, name: str) -> None:
    """A pod's own folder would be a model store that is gone a moment later."""
    if name and not os.environ.get(STORE_VARIABLE):
        raise ConfigError(
            f"{field} = {name!r}: no model store is set up; set modelStore in the chart's values "
            f"({STORE_VARIABLE} in ConfigMap {SETTINGS_MAP})"
        )


def _short(run_id: str) -> str:
    return run_id[:8] if run_id and "{{" not in run_id else "run"


def _without_empty(value: Mapping[str, Any]) -> Json:
    """Return the fields that somebody filled in."""
    kept = {
        key: _without_empty(item) if isinstance(item, Mapping) else item
        for key, item in value.items()
    }
    return {key: item for key, item in kept.items() if item not in (None, "", {}, [])}


def _merged(below: Json, above: Json) -> Json:
    """Return two nested mappings as one; the second wins."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = _merged(old, value)
        else:
            merged[key] = value
    return merged
