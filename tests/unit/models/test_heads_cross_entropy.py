from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from pyfsb.models.cross_entropy import cross_entropy_sum


@pytest.mark.parametrize("spread", [1.0, 30.0, 200.0])
def test_value_and_gradient_equal_torchs(spread: float) -> None:
    logits = (torch.randn(7, 50, dtype=torch.float64) * spread).float()
    targets = torch.randint(0, 50, (7,))
    found = []
    for function in (
        cross_entropy_sum,
        lambda *pair: functional.cross_entropy(*pair, reduction="sum"),
    ):
        leaf = logits.clone().requires_grad_()
        value = function(leaf, targets)
        (value * 0.37).backward()
        found.append((value.detach(), leaf.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)


def test_a_hopeless_target_has_a_finite_loss() -> None:
    logits = torch.tensor([[500.0, 0.0]])
    assert float(cross_entropy_sum(logits, torch.tensor([1]))) == 500.0


def test_no_targets_are_no_loss() -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    value = cross_entropy_sum(logits, torch.zeros(0, dtype=torch.int64))
    value.backward()
    assert float(value.detach()) == 0.0


def test_half_precision_is_summed_in_full() -> None:
    logits = torch.randn(64, 300).bfloat16()
    targets = torch.randint(0, 300, (64,))
    expected = functional.cross_entropy(logits.double(), targets, reduction="sum")
    assert float(cross_entropy_sum(logits, targets)) == pytest.approx(float(expected), rel=1e-6)
