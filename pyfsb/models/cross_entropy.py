# SPDX-License-Identifier: Apache-2.0
"""Cross entropy over a vocabulary with one array of its size fewer than torch's.

Shapes: P predicted positions, V classes.

torch keeps log probabilities and fills a gradient of zeros for them; here the probabilities become
the gradient where they are. Called by `pyfsb.models.heads`.

Source: the gradient of the cross entropy of a softmax is the probabilities less one at the target.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def cross_entropy_sum(logits_PV: Tensor, target_ids_P: Tensor) -> Tensor:
    """Return the sum of the negative log probabilities of the targets, in nats, computed in fp32.

    Args:
        logits_PV: Scores of the classes.
        target_ids_P: The right classes; none is left out.
    """
    loss: Tensor = _CrossEntropySum.apply(logits_PV.float(), target_ids_P)  # type: ignore[no-untyped-call]
    return loss


class _CrossEntropySum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_PV: Tensor, target_ids_P: Tensor) -> Tensor:
        highest_P, places_P = logits_PV.max(-1)
        right_P = logits_PV.gather(-1, target_ids_P[:, None])[:, 0]
        probabilities_PV = logits_PV.softmax(-1)
        # The highest probability is at least 1 / V: its logarithm is exact where others underflow.
        best_P = probabilities_PV.gather(-1, places_P[:, None])[:, 0]
        ctx.save_for_backward(probabilities_PV, target_ids_P)
        return (highest_P - best_P.log() - right_P).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        probabilities_PV, target_ids_P = ctx.saved_tensors
        gradient_PV = probabilities_PV.mul_(grads[0])
        gradient_PV.scatter_add_(
            -1, target_ids_P[:, None], -grads[0].expand(target_ids_P.numel(), 1)
        )
        return gradient_PV, None
