# SPDX-License-Identifier: Apache-2.0
"""`fsb models import` of a Taiyi-CLIP that was published as two checkpoints: texts and images.

Both are read through the door of `importing` and joined to one folder, which is then imported as
any other; the record names the files of both. Called by `pyfsb.cli.models_import`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pyfsb.errors import CheckpointError, ConfigError
from pyfsb.models import import_sources
from pyfsb.models.architectures.taiyi_clip import TaiyiClipModel
from pyfsb.models.architectures.taiyi_clip_towers import (
    IMAGE_KEYS,
    TEXT_KEYS,
    join_configs,
    join_weights,
)
from pyfsb.models.hub import WEIGHTS_NAME, hash_sha256
from pyfsb.models.import_sources import Source
from pyfsb.models.importing import (
    RECORD_NAME,
    ImportRecord,
    Limits,
    SourceFile,
    convert_file,
    import_model,
)
from pyfsb.models.key_maps import KeyMap
from pyfsb.models.pixels import PREPROCESSOR_NAME
from pyfsb.registry import find_model

_ARCHITECTURE: Final = TaiyiClipModel.config_class.model_type


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tower:
    """One published checkpoint."""

    source: Source
    config: dict[str, Any]
    state: dict[str, Tensor]
    network: str
    others: tuple[str, ...]


def import_towers(
    text_source: str, image_source: str, name: str, folder: Path, *, limits: Limits | None = None
) -> ImportRecord:
    """Convert a published text tower and the CLIP whose images it joined into one folder.

    Args:
        text_source: A folder, a file of weights in it, s3:// or a hub's URI.
        image_source: The same of the CLIP.
        name: The registered model that they are.
        folder: Must not exist, or be empty; it appears whole or not at all.
        limits: Of each pickled file.

    Returns:
        What is written to `import.json`.

    Raises:
        UnknownNameError: No such model.
        ConfigError: The model is not one of two towers.
        CheckpointError: Files are broken, too large, want to run code, or do not fit each other.
    """
    entry = find_model(name)
    if entry.architecture != _ARCHITECTURE:
        raise ConfigError(
            f"{entry.name} is a {entry.architecture}; only a {_ARCHITECTURE} has an image source"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".towers-", dir=folder.parent) as place:
        towers = [
            _read(source, Path(place, part), limits or Limits())
            for part, source in (("texts", text_source), ("images", image_source))
        ]
        joined = Path(place, "joined")
        joined.mkdir()
        _join(towers[0], towers[1], joined)
        record = import_model(
            str(joined), name, folder, tokenizer_source=towers[0].source.folder, limits=limits
        )
        found = towers[1].source.folder / PREPROCESSOR_NAME
        if found.is_file():
            shutil.copyfile(found, folder / PREPROCESSOR_NAME)
        return _complete(record, towers, folder)


def _read(source: str, place: Path, limits: Limits) -> _Tower:
    found = import_sources.locate(source, max_bytes=limits.max_bytes)
    place.mkdir()
    state: dict[str, Tensor] = {}
    network, others = "none opened", []
    for number, path in enumerate(found.weights):
        target = path
        if path.suffix != ".safetensors":
            target = place / f"{number}.safetensors"
            answer = convert_file(path, target, limits)
            network = str(answer["network"])
            others += answer["others"]
        try:
            state |= load_file(target)
        except (SafetensorError, OSError) as exc:
            raise CheckpointError(f"{path}: not whole safetensors: {exc}") from None
    try:
        config = json.loads((found.folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as exc:
        raise CheckpointError(f"{found.folder}/config.json is not JSON: {exc}") from None
    return _Tower(source=found, config=config, state=state, network=network, others=tuple(others))


def _join(texts: _Tower, images: _Tower, folder: Path) -> None:
    """Write both towers as one published folder would have them."""
    config = join_configs(texts.config, images.config)
    with torch.device("meta"):
        expected = TaiyiClipModel(config)
    weights = join_weights(texts.state, images.state, expected)
    save_file(
        {name: tensor.contiguous().clone() for name, tensor in weights.items()},
        folder / WEIGHTS_NAME,
        metadata={"format": "pt"},
    )
    config.save_pretrained(folder)


def _complete(record: ImportRecord, towers: list[_Tower], folder: Path) -> ImportRecord:
    """Name the published files in place of those that were joined."""
    maps: tuple[KeyMap, ...] = (TEXT_KEYS, IMAGE_KEYS)
    opened = [tower.network for tower in towers if tower.network != "none opened"]
    completed = record.model_copy(
        update={
            "source": " + ".join(tower.source.uri for tower in towers),
            "weights_read": tuple(
                SourceFile(path=path.name, num_bytes=path.stat().st_size, sha256=hash_sha256(path))
                for tower in towers
                for path in tower.source.weights
            ),
            "network": opened[0] if opened else "none opened",
            "others": tuple(other for tower in towers for other in tower.others),
            "dropped": tuple(
                sorted(
                    name
                    for tower, keys in zip(towers, maps, strict=True)
                    for name in tower.state
                    if keys.rename(name) is None
                )
            ),
        }
    )
    text = json.dumps(completed.to_json(), ensure_ascii=False, indent=2)
    (folder / RECORD_NAME).write_text(text + "\n", encoding="utf-8")
    return completed
