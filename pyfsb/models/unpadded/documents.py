# SPDX-License-Identifier: Apache-2.0
"""Where documents lie that stand end to end: made once a forward pass, used by every layer.

Shapes: N tokens of all documents end to end, B documents, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, Self

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Lengths of documents and what follows from them."""

    lengths: tuple[int, ...]
    """Tokens of each document, in the order in which they lie."""
    device: torch.device
    """Where the tokens are."""
    order_N: Tensor | None = None
    """Where each token lay before documents were sorted by length; None: they were not."""

    @classmethod
    def side_by_side(
        cls, lengths: Sequence[Tensor], device: torch.device, *, is_sorted: bool | None = None
    ) -> tuple[Self, ...]:
        """Read the lengths of documents, or of the several sides of documents.

        Args:
            lengths: For each side, tokens of each document, [B], on any device.
            device: Of the tokens.
            is_sorted: True sorts documents by length, so that equal ones stand together and are
                attended to in one call. None does so on CPUs, where no kernel takes ragged
                documents.

        Returns:
            The sides, in one common order.
        """
        sides = [tuple(lengths_B.tolist()) for lengths_B in lengths]
        rows = list(zip(*sides, strict=True))
        order = sorted(range(len(rows)), key=rows.__getitem__)
        is_sorted = device.type == "cpu" if is_sorted is None else is_sorted
        if not is_sorted or order == list(range(len(rows))):
            return tuple(cls(lengths=side, device=device) for side in sides)
        return tuple(
            cls(
                lengths=tuple(side[row] for row in order),
                device=device,
                order_N=_token_order(side, order).to(device),
            )
            for side in sides
        )

    @cached_property
    def max_length(self) -> int:
        """Tokens of the longest document."""
        return max(self.lengths, default=0)

    @cached_property
    def num_tokens(self) -> int:
        """Tokens of all documents."""
        return sum(self.lengths)

    @cached_property
    def borders(self) -> Tensor:
        """First token of each document, then N: int32 [B + 1] on the device."""
        borders = torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32)
        return borders.to(self.device, non_blocking=True)

    @cached_property
    def offsets(self) -> Tensor:
        """The borders as int64. One tensor: nested tensors of equal offsets must share it."""
        return self.borders.long()

    @cached_property
    def positions_N(self) -> Tensor:
        """Position of each token in its document, from 0."""
        lengths_B = torch.tensor(self.lengths)
        starts_B = lengths_B.cumsum(0) - lengths_B
        rows_N = torch.repeat_interleave(starts_B, lengths_B, output_size=self.num_tokens)
        positions_N = torch.arange(self.num_tokens) - rows_N
        return positions_N.to(self.device, non_blocking=True)

    def sort(self, values_N: Tensor) -> Tensor:
        """Bring values of tokens into the order of these documents."""
        return values_N if self.order_N is None else values_N.index_select(0, self.order_N)

    def places(self, positions_P: Tensor) -> Tensor:
        """Return where tokens lie now that were given by their positions as they came."""
        if self.order_N is None:
            return positions_P
        return self.order_N.argsort().index_select(0, positions_P)

    def restore(self, hidden_NH: Tensor) -> Tensor:
        """Bring states back into the order in which the documents came."""
        if self.order_N is None:
            return hidden_NH
        restored_NH: Tensor = _Permute.apply(  # type: ignore[no-untyped-call]
            hidden_NH, self.order_N.argsort(), self.order_N
        )
        return restored_NH


def _token_order(lengths: Sequence[int], order: Sequence[int]) -> Tensor:
    starts = [0, *accumulate(lengths)]
    return torch.cat([torch.arange(starts[row], starts[row + 1]) for row in order])


class _Permute(torch.autograd.Function):
    """Rows in another order. Its gradient is a gather too, where that of index_select scatters."""

    @staticmethod
    def forward(ctx: Any, hidden_NH: Tensor, order_N: Tensor, inverse_N: Tensor) -> Tensor:
        ctx.save_for_backward(inverse_N)
        return hidden_NH.index_select(0, order_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (inverse_N,) = ctx.saved_tensors
        return grads[0].index_select(0, inverse_N), None, None
