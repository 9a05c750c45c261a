# SPDX-License-Identifier: Apache-2.0
"""Which bytes of which files make up another layout of the same state: arithmetic only.

A saved state is a set of fragments: element ranges of flattened parameters, each in some file.
Processes of another number or ZeRO stage hold other ranges; `plan_reads` says where each comes
from. Called by `fragments`, `checkpoint` and `restoring`; never imports torch or opens a file.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pyfsb.errors import CheckpointError
from pyfsb.schema import Schema

KINDS: Final = ("weight", "exp_avg", "exp_avg_sq")
"""What is kept of each element: its fp32 value and AdamW's moments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A range of elements of a flattened parameter."""

    name: str
    """The parameter."""
    shape: tuple[int, ...]
    """Shape of the whole parameter."""
    start: int
    """First element."""
    numel: int
    """Number of elements."""


class StoredFragment(Schema):
    """A range of a parameter, and the file that holds it."""

    file: str
    """Name of the file in the state's folder."""
    start: int
    """First element of the flattened parameter."""
    numel: int
    """Number of elements."""


class StoredParameter(Schema):
    """One parameter of index.json."""

    shape: tuple[int, ...]
    """Shape of the whole."""
    dtype: str
    """As safetensors names it; of the weight and of both moments."""
    fragments: tuple[StoredFragment, ...]
    """Ranges that cover it exactly, sorted by start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A copy from a stored fragment into a wanted one, in elements."""

    name: str
    """The parameter."""
    source_start: int
    """First element, counted in the stored fragment."""
    target: int
    """Number of the wanted piece."""
    target_start: int
    """First element, counted in the wanted piece."""
    numel: int
    """Number of elements."""


def flat_share(numels: Sequence[int], *, rank: int, size: int) -> list[tuple[int, int, int]]:
    """Return one process's part of parameters laid end to end and cut into equal parts.

    Args:
        numels: Elements of each parameter.
        rank: Number of the process.
        size: Number of processes.

    Returns:
        (number of the parameter, first element, number of elements), none of them empty.
    """
    total = sum(numels)
    first, last = total * rank // size, total * (rank + 1) // size
    found, offset = [], 0
    for number, numel in enumerate(numels):
        start, end = max(first - offset, 0), min(last - offset, numel)
        if start < end:
            found.append((number, start, end - start))
        offset += numel
    return found


def check_covered(index: Mapping[str, StoredParameter]) -> None:
    """Check that the fragments of each parameter cover it exactly.

    Raises:
        CheckpointError: Names the parameter and the first element that is missing or double.
    """
    for name, parameter in index.items():
        end = 0
        for fragment in parameter.fragments:
            if fragment.start != end or fragment.numel < 1:
                raise CheckpointError(
                    f"{name}: the fragment in {fragment.file} starts at element {fragment.start}; "
                    f"expected {end}"
                )
            end += fragment.numel
        if end != math.prod(parameter.shape):
            raise CheckpointError(
                f"{name}: fragments hold {end} elements; its shape {list(parameter.shape)} has "
                f"{math.prod(parameter.shape)}"
            )


def plan_reads(
    index: Mapping[str, StoredParameter], wanted: Sequence[Piece]
) -> dict[str, list[Read]]:
    """Return, for each file needed, the copies that make up the wanted pieces.

    Args:
        index: The saved fragments, covering every parameter.
        wanted: Pieces of those parameters.
    """
    reads: dict[str, list[Read]] = {}
    starts = {
        name: [fragment.start for fragment in index[name].fragments]
        for name in {piece.name for piece in wanted}
    }
    for target, piece in enumerate(wanted):
        fragments = index[piece.name].fragments
        first = bisect.bisect_right(starts[piece.name], piece.start) - 1
        end = piece.start + piece.numel
        for fragment in itertools.islice(fragments, first, None):
            if fragment.start >= end:
                break
            start = max(piece.start, fragment.start)
            numel = min(end, fragment.start + fragment.numel) - start
            reads.setdefault(fragment.file, []).append(
                Read(
                    name=piece.name,
                    source_start=start - fragment.start,
                    target=target,
                    target_start=start - piece.start,
                    numel=numel,
                )
            )
    return reads


def describe_difference(
    index: Mapping[str, StoredParameter], shapes: Mapping[str, tuple[int, ...]]
) -> str | None:
    """Say how a model's trainable parameters differ from the saved ones; None when they do not."""
    saved = {name: parameter.shape for name, parameter in index.items()}
    if saved == dict(shapes):
        return None
    parts = [
        _named("it lacks", sorted(shapes.keys() - saved.keys())),
        _named("it has besides", sorted(saved.keys() - shapes.keys())),
        *(
            f"{name} has shape {list(saved[name])}, not {list(shapes[name])}"
            for name in sorted(saved.keys() & shapes.keys())
            if saved[name] != shapes[name]
        ),
    ]
    return "; ".join([part for part in parts if part][:3])


def _named(words: str, names: Iterable[str]) -> str:
    first = list(names)
    more = f" and {len(first) - 2} more" if len(first) > 2 else ""
    return f"{words} {', '.join(first[:2])}{more}" if first else ""
