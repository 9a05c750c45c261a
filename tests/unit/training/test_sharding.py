"""The arithmetic of layouts: any to any, nothing lost, nothing double."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfsb.errors import CheckpointError
from pyfsb.training.sharding import (
    Piece,
    StoredFragment,
    StoredParameter,
    check_covered,
    describe_difference,
    flat_share,
    plan_reads,
)

Shapes = dict[str, tuple[int, ...]]
SHAPES = st.lists(
    st.lists(st.integers(1, 7), min_size=0, max_size=3).map(tuple), min_size=1, max_size=6
).map(lambda shapes: {f"p{number}": shape for number, shape in enumerate(shapes)})
STAGES = st.sampled_from([0, 1, 3])
SIZES = st.integers(1, 9)


def pieces_of(shapes: Shapes, stage: int, rank: int, size: int) -> list[Piece]:
    """Return what a rank holds: parts of a flat buffer, or (ZeRO-3) a part of each parameter."""
    names, numels = list(shapes), [math.prod(shape) for shape in shapes.values()]
    if stage == 3:
        found = []
        for number, numel in enumerate(numels):
            part = -(-numel // size)
            if (rest := min(part, numel - part * rank)) > 0:
                found.append((number, part * rank, rest))
    else:
        found = flat_share(numels, rank=rank, size=size)
    return [
        Piece(name=names[number], shape=shapes[names[number]], start=start, numel=numel)
        for number, start, numel in found
    ]


def index_of(shapes: Shapes, layout: Sequence[Sequence[Piece]]) -> dict[str, StoredParameter]:
    return {
        name: StoredParameter(
            shape=shape,
            dtype="F32",
            fragments=tuple(
                sorted(
                    (
                        StoredFragment(file=str(rank), start=piece.start, numel=piece.numel)
                        for rank, pieces in enumerate(layout)
                        for piece in pieces
                        if piece.name == name
                    ),
                    key=lambda fragment: fragment.start,
                )
            ),
        )
        for name, shape in shapes.items()
    }


@given(SHAPES, STAGES, SIZES, STAGES, SIZES)
def test_any_layout_is_made_of_any_other(
    shapes: Shapes, stage: int, size: int, other_stage: int, other_size: int
) -> None:
    values = {
        name: np.arange(math.prod(shape)) + 1000 * number
        for number, (name, shape) in enumerate(shapes.items())
    }
    layout = [pieces_of(shapes, stage, rank, size) for rank in range(size)]
    index = index_of(shapes, layout)
    check_covered(index)
    files = {
        (str(rank), piece.name): values[piece.name][piece.start : piece.start + piece.numel]
        for rank, pieces in enumerate(layout)
        for piece in pieces
    }
    for rank in range(other_size):
        wanted = pieces_of(shapes, other_stage, rank, other_size)
        made = [np.full(piece.numel, -1) for piece in wanted]
        for file, reads in plan_reads(index, wanted).items():
            for read in reads:
                source = files[file, read.name][read.source_start :][: read.numel]
                target = made[read.target][read.target_start :][: read.numel]
                assert (target == -1).all(), "written twice"
                target[:] = source
        for piece, found in zip(wanted, made, strict=True):
            expected = values[piece.name][piece.start : piece.start + piece.numel]
            assert (found == expected).all()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), SIZES)
def test_shares_are_even_and_whole(numels: list[int], size: int) -> None:
    shares = [flat_share(numels, rank=rank, size=size) for rank in range(size)]
    counts = [sum(numel for _, _, numel in share) for share in shares]
    assert sum(counts) == sum(numels)
    assert max(counts) - min(counts) <= 1
    ends = dict.fromkeys(range(len(numels)), 0)
    for share in shares:
        for number, start, numel in share:
            assert start == ends[number]
            ends[number] += numel
    assert list(ends.values()) == numels


def test_the_same_layout_reads_whole_fragments_of_its_own_file() -> None:
    shapes: Shapes = {"a": (10,), "b": (3, 5)}
    layout = [pieces_of(shapes, 3, rank, 3) for rank in range(3)]
    index = index_of(shapes, layout)
    for rank in range(3):
        plan = plan_reads(index, layout[rank])
        assert list(plan) == [str(rank)]
        assert all(read.source_start == read.target_start == 0 for read in plan[str(rank)])


@pytest.mark.parametrize(
    ("fragments", "words"),
    [
        ([(0, 4), (5, 5)], "starts at element 5; expected 4"),
        ([(0, 4), (3, 7)], "starts at element 3; expected 4"),
        ([(0, 4), (4, 5)], "hold 9 elements"),
        ([], "hold 0 elements"),
    ],
)
def test_gaps_and_overlaps_are_named(fragments: list[tuple[int, int]], words: str) -> None:
    parameter = StoredParameter(
        shape=(2, 5), dtype="F32",
        fragments=tuple(StoredFragment(file="f", start=s, numel=n) for s, n in fragments),
    )  # fmt: skip
    with pytest.raises(CheckpointError, match=f"w: .*{words}"):
        check_covered({"w": parameter})


def test_another_model_is_told_by_its_parameters() -> None:
    index = index_of({"a": (2,), "b": (3,), "c": (4,)}, [])
    assert describe_difference(index, {"a": (2,), "b": (3,), "c": (4,)}) is None
    assert describe_difference(index, {"a": (2,), "b": (5,), "d": (1,)}) == (
        "it lacks d; it has besides c; b has shape [3], not [5]"
    )


def decoder_13b() -> Shapes:
    """Parameters of a 13B decoder, from the real module on the meta device."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=5120, intermediate_size=13_824, num_hidden_layers=40, num_attention_heads=40,
        vocab_size=39_424,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def test_thirteen_billion_parameters_are_planned_on_any_number_of_ranks() -> None:
    shapes = decoder_13b()
    total = sum(math.prod(shape) for shape in shapes.values())
    assert total > 13e9
    saved = [pieces_of(shapes, 3, rank, 64) for rank in range(64)]
    index = index_of(shapes, saved)
    check_covered(index)
    for size in (1, 8, 96, 256):
        seen, largest = 0, 0
        for rank in range(size):
            wanted = pieces_of(shapes, 1, rank, size)
            if rank in (0, size // 2, size - 1):
                reads = [read for reads in plan_reads(index, wanted).values() for read in reads]
                assert sum(read.numel for read in reads) == sum(p.numel for p in wanted)
            count = sum(piece.numel for piece in wanted)
            seen, largest = seen + count, max(largest, count)
        assert seen == total
        assert largest <= total / size + 1
