# SPDX-License-Identifier: Apache-2.0
"""The weights of the best measurement so far, beside the training states.

    best/step-00000100/weights.safetensors    fp32 weights by the module's names

The loop keeps them when a measurement is the best one and the session exports them at the end. A
state names the step of its best weights, and a training may fall back by some states, so those of
the last few best steps stay. A storage that fails is tried again with the next ones.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pyfsb.errors import CheckpointError, StorageError
from pyfsb.storage.workspace import Workspace
from pyfsb.training.checkpoint import explain_write_error

FOLDER: Final = "best"
_NAME: Final = "weights.safetensors"
_log = logging.getLogger(__name__)


class BestWeights:
    """Keeps and finds the best weights of one training."""

    def __init__(self, workspace: Workspace, *, num_kept: int) -> None:
        """Keep the place.

        Args:
            workspace: The training's folder.
            num_kept: Best steps whose weights stay.
        """
        self._workspace = workspace
        self._folder = workspace.path / FOLDER
        self._num_kept = num_kept
        self._unsent: list[Path] = []

    def keep(self, weights: Iterable[tuple[str, Tensor]], step: int) -> None:
        """Write the weights of a step; the first process calls it.

        Raises:
            StorageError: The disk is full or refuses.
        """
        path = self._path(step)
        partial = path.with_name(f".partial-{_NAME}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({name: value.contiguous() for name, value in weights}, partial)
            partial.replace(path)
        except (OSError, SafetensorError) as exc:
            partial.unlink(missing_ok=True)
            raise explain_write_error(exc, path, "keep the best weights in") from exc
        self._send(path)
        # A run that fell back comes by a step again: what is later than it counts no more.
        saved = sorted(self._folder.glob("step-*"), reverse=True)
        earlier = [folder for folder in saved if folder.name <= path.parent.name]
        for folder in set(saved) - set(earlier[: self._num_kept]):
            self._forget(folder)

    def load(self, step: int) -> dict[str, Tensor]:
        """Return the weights of a step.

        Raises:
            CheckpointError: They are gone or broken.
        """
        path = self._path(step)
        if not path.is_file():
            self._workspace.pull_file(path.relative_to(self._workspace.path).as_posix())
        try:
            return load_file(path)
        except (OSError, SafetensorError) as exc:
            raise CheckpointError(f"{path}: the best weights cannot be read: {exc}") from None

    def clear(self) -> None:
        """Forget all: what counted is exported."""
        for folder in sorted(self._folder.glob("step-*")):
            self._forget(folder)

    def _send(self, path: Path) -> None:
        self._unsent.append(path)
        try:
            self._workspace.push([path for path in self._unsent if path.is_file()])
            self._unsent.clear()
        except StorageError as exc:
            _log.warning("%s; training goes on, the weights are sent with the next ones", exc)

    def _forget(self, folder: Path) -> None:
        try:
            self._workspace.remove(f"{FOLDER}/{folder.name}")
        except StorageError as exc:
            _log.warning("%s; old best weights stay", exc)

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:08d}" / _NAME
