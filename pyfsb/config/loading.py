# SPDX-License-Identifier: Apache-2.0
"""From YAML and `--set` overrides to a run spec with absolute paths.

Called by the command line, the stages and the pipelines.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyfsb import storage, versions
from pyfsb.config.run_spec import RunSpec
from pyfsb.config.sections import TaskSpec
from pyfsb.errors import ConfigError
from pyfsb.schema import Json, parse, parse_yaml, parse_yaml_mapping


def load_spec(uri: str, overrides: Iterable[str] = ()) -> RunSpec:
    """Read a run spec, apply `a.b=c` overrides, and make its paths absolute.

    Args:
        uri: A YAML file, or one on s3://.
        overrides: Each `key.path=value`, the value in YAML.

    Raises:
        ConfigError: Names every wrong key with the nearest right one.
        DataError: There is no such file.
    """
    return resolve_spec(storage.read_text(uri), overrides, source=uri)


def resolve_spec(text: str, overrides: Iterable[str] = (), *, source: str = "spec") -> RunSpec:
    """Do what `load_spec` does for a spec given as YAML text."""
    value = parse_yaml_mapping(text, source=source)
    for override in overrides:
        set_value(value, override)
    spec = parse(RunSpec, value, source=source)
    data = spec.data
    own_task = data.task
    if isinstance(own_task, str):
        task_text = storage.read_text(own_task)
        own_task = parse(TaskSpec, parse_yaml_mapping(task_text, source=own_task), source=own_task)
    root = storage.absolute(data.root)
    paths: dict[str, Any] = {"root": root, "task": own_task}
    paths["blend"] = tuple(
        part.model_copy(update={"uri": storage.absolute(part.uri)}) for part in data.blend
    )
    for field in ("train", "test"):
        path = getattr(data, field)
        paths[field] = storage.absolute(path) if path else None
    if data.tokenizer and not storage.is_hub(data.tokenizer):
        paths["tokenizer"] = _first_existing(data.tokenizer, root)
    vocabulary = data.vocabulary
    if vocabulary.file:
        found = _first_existing(vocabulary.file, root)
        vocabulary = vocabulary.model_copy(update={"file": found})
    checkpoint = spec.model.checkpoint
    return spec.model_copy(
        update={
            "output": storage.absolute(spec.output),
            "data": data.model_copy(update={**paths, "vocabulary": vocabulary}),
            "model": spec.model.model_copy(
                update={"checkpoint": _keep_reference(checkpoint) if checkpoint else None}
            ),
        }
    )


def pin_checkpoint(spec: RunSpec) -> RunSpec:
    """Return the spec with the checkpoint that its `name@alias` stands for now.

    Engines and stages call it first, so that records and hashes see the weights themselves.

    Raises:
        UnknownNameError: The model store has no such name, alias or version.
        CheckpointError: Other weights lie there now than were registered.
    """
    checkpoint = spec.model.checkpoint
    if checkpoint is None or not versions.is_reference(checkpoint):
        return spec
    model = spec.model.model_copy(update={"checkpoint": versions.locate(checkpoint)})
    return spec.model_copy(update={"model": model})


def set_value(value: Json, override: str) -> None:
    """Set one `key.path=value` in a nested mapping, in place.

    Raises:
        ConfigError: There is no `=`, or a part of the path is not a mapping.
    """
    path, separator, text = override.partition("=")
    keys = path.split(".")
    if not separator or not all(keys):
        raise ConfigError(
            f"--set {override!r}: expected key.path=value, e.g. training.max_steps=10"
        )
    for position, key in enumerate(keys[:-1]):
        nested = value.setdefault(key, {})
        if not isinstance(nested, dict):
            parent = ".".join(keys[: position + 1])
            raise ConfigError(f"--set {override!r}: {parent} is {nested!r}, which has no keys")
        value = nested
    value[keys[-1]] = parse_yaml(text, source=f"--set {path}")


def _keep_reference(checkpoint: str) -> str:
    """Return `name@alias`, and a name of which there is no folder, as they are; else a place."""
    is_name = "/" not in checkpoint and not Path(checkpoint).exists()
    is_kept = is_name or versions.is_reference(checkpoint)
    return checkpoint if is_kept else storage.absolute(checkpoint)


def _first_existing(path: str, root: str) -> str:
    """Return a path relative to the working directory if it is there, else relative to root."""
    if storage.is_s3(path):
        return path
    return storage.absolute(path) if Path(path).exists() else storage.join(root, path)
