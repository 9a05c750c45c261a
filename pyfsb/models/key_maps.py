# SPDX-License-Identifier: Apache-2.0
"""From the tensor names of published checkpoints to those of our modules.

A map is data: each architecture states its own, `fsb models import` and the tests apply it. Never
opens a file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from pyfsb.errors import CheckpointError

_MAX_NAMES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyMap:
    """How the names of one architecture's published tensors become ours."""

    rules: tuple[tuple[str, str], ...] = ()
    """Regular expressions and replacements (`re.sub`), applied to each name one after the other."""
    dropped: tuple[str, ...] = ()
    """Expressions (`re.fullmatch`, on the published name) of tensors that no output depends on."""

    def rename(self, name: str) -> str | None:
        """Return our name of a published tensor; None if it is dropped."""
        if any(re.fullmatch(pattern, name) for pattern in self.dropped):
            return None
        for pattern, replacement in self.rules:
            name = re.sub(pattern, replacement, name)
        return name

    def convert(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a state dict under our names; the tensors are the same objects.

        Raises:
            CheckpointError: Two published tensors become one.
        """
        converted: dict[str, Tensor] = {}
        origins: dict[str, str] = {}
        for name, tensor in state.items():
            ours = self.rename(name)
            if ours is None:
                continue
            if ours in converted:
                raise CheckpointError(f"{origins[ours]!r} and {name!r} both become {ours!r}")
            converted[ours], origins[ours] = tensor, name
        return converted


def check_numbers(state: Mapping[str, Tensor], *, source: str) -> None:
    """Refuse weights that are no numbers: with one of them every answer is none.

    Args:
        state: Tensors by name.
        source: Where they are from, for the message.

    Raises:
        CheckpointError: Names the first tensor that has some, and how many.
    """
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            num_wrong = int((~tensor.isfinite()).sum())
            raise CheckpointError(
                f"{source}: {num_wrong} of the {tensor.numel()} numbers of {name} are infinite or "
                "none at all; the file is damaged, or was saved by a training that had diverged"
            )


def check_keys(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    *,
    optional: Collection[str] = (),
    source: str,
) -> None:
    """Compare names and shapes of a state dict with those of a module.

    Args:
        found: Tensors at hand, under our names.
        expected: The module's own.
        optional: Names that may be missing: tied tensors and new heads.
        source: Where `found` is from, for the message.

    Raises:
        CheckpointError: Lists missing and extra names and wrong shapes.
    """
    missing = sorted(set(expected) - set(found) - set(optional))
    extra = sorted(set(found) - set(expected))
    wrong = [
        f"{name} {list(found[name].shape)}, expected {list(expected[name].shape)}"
        for name in sorted(set(found) & set(expected))
        if found[name].shape != expected[name].shape
    ]
    problems = [
        f"{len(names)} {what}: {', '.join(names[:_MAX_NAMES])}"
        + (" …" if len(names) > _MAX_NAMES else "")
        for what, names in (("missing", missing), ("extra", extra), ("of another shape", wrong))
        if names
    ]
    if problems:
        raise CheckpointError(f"{source}: weights do not fit: {'; '.join(problems)}")
