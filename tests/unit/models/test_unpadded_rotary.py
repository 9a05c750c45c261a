"""What only Zhouwenwang (token types as masks) and RoPE-Longformer (windows) do without padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyfsb.config import Family
from pyfsb.errors import ConfigError
from pyfsb.models import unpadded
from pyfsb.models.architectures.longformer import (
    RopeLongformerForMaskedLM,
    RopeLongformerForQuestionAnswering,
    RopeLongformerForSequenceClassification,
)
from pyfsb.models.architectures.longformer_model import RopeLongformerConfig
from pyfsb.models.architectures.zhouwenwang import (
    ZhouwenwangForCausalLM,
    ZhouwenwangForMaskedLM,
    ZhouwenwangForSequenceClassification,
)
from pyfsb.models.architectures.zhouwenwang_model import ZhouwenwangConfig
from pyfsb.models.heads import build_loss, pad_flat
from pyfsb.models.unpadded import attention
from tests.helpers.rotary_models import draw_ids, randomise

LENGTHS = torch.tensor([5, 17, 1, 90, 17, 2, 66])
TINY: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48,
}  # fmt: skip


def make(kind: Any, **changes: Any) -> Any:
    is_longformer = "Longformer" in kind.__name__
    config = RopeLongformerConfig if is_longformer else ZhouwenwangConfig
    torch.manual_seed(4)
    return randomise(kind(config(**(TINY | changes))))


def flat_ids(seed: int = 0) -> Tensor:
    return draw_ids(1, int(LENGTHS.sum()), seed=seed)[0]


def both_ways(model: Any, ids: Tensor, types: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the last hidden states without and with padding."""
    padded, mask = pad_flat(ids, LENGTHS, 0)
    types_BT = None if types is None else pad_flat(types, LENGTHS, 0)[0]
    with torch.no_grad():
        expected = model.base_model(padded, mask, types_BT)[0][mask.bool()]
        return unpadded.encode(model, ids, LENGTHS, token_type_ids_N=types), expected


@pytest.fixture(params=["by length", "padded rows"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "padded rows":
        monkeypatch.setattr(attention, "calls_by_length", lambda device: False)
    return request.param


@pytest.mark.parametrize("ratio", [0.0, 0.4])
@pytest.mark.parametrize("kind", [ZhouwenwangForMaskedLM, ZhouwenwangForCausalLM])
def test_types_mask_each_document(kind: Any, ratio: float, route: str) -> None:
    types = (
        torch.rand(int(LENGTHS.sum()), generator=torch.Generator().manual_seed(1)) < ratio
    ).long()
    found, expected = both_ways(make(kind), flat_ids(), types)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_types_of_one_kind_need_no_mask() -> None:
    for value in (0, 1):
        types = torch.full((int(LENGTHS.sum()),), value)
        found, expected = both_ways(make(ZhouwenwangForMaskedLM), flat_ids(), types)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_types_train_as_with_padding(route: str) -> None:
    model, ids = make(ZhouwenwangForCausalLM), flat_ids()
    types = (torch.arange(ids.numel()) % 7 > 2).long()
    batch = {
        "input_ids": ids, "lengths": LENGTHS, "target_positions": torch.arange(0, ids.numel(), 3),
        "target_ids": flat_ids(1)[::3], "token_type_ids": types,
    }  # fmt: skip
    found = []
    for layout in ("flat", "padded"):
        model.zero_grad()
        loss = build_loss(model, Family.GENERATE, layout)(**batch)
        loss.backward()
        found.append([loss.detach(), *(part.grad.clone() for part in model.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@settings(max_examples=12, deadline=None)
@given(
    types=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), min_size=2, max_size=4),
    data=st.data(),
)
def test_a_token_reaches_those_of_its_document_that_may_see_it(types: list[Any], data: Any) -> None:
    model, lengths = make(ZhouwenwangForMaskedLM), [len(row) for row in types]
    flat = [value for row in types for value in row]
    ids = draw_ids(1, len(flat))[0]
    place = data.draw(st.integers(0, len(flat) - 1))
    changed = ids.clone()
    changed[place] = 5 + (int(ids[place]) - 4) % 55
    with torch.no_grad():
        before, after = (
            unpadded.encode(
                model, values, torch.tensor(lengths), token_type_ids_N=torch.tensor(flat)
            )
            for values in (ids, changed)
        )
    rows = [row for row, length in enumerate(lengths) for _ in range(length)]
    for other in range(len(flat)):
        may_see = rows[place] == rows[other] and sum(flat[: place + 1]) <= sum(flat[: other + 1])
        assert torch.equal(before[other], after[other]) != may_see


def test_heads_that_understand_take_no_types(route: str) -> None:
    model, ids = make(ZhouwenwangForSequenceClassification), flat_ids()
    types = (torch.arange(ids.numel()) % 5 > 2).long()
    found, expected = both_ways(model, ids, types)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, both_ways(model, ids)[0], rtol=0, atol=0)


def test_the_legacy_mask_needs_rows() -> None:
    model = make(ZhouwenwangForMaskedLM, legacy_additive_mask=True)
    with pytest.raises(ConfigError, match="expected batch.layout = padded"):
        unpadded.encode(model, flat_ids(), LENGTHS)


@pytest.mark.parametrize(
    "kind",
    [
        RopeLongformerForMaskedLM,
        RopeLongformerForSequenceClassification,
        RopeLongformerForQuestionAnswering,
    ],
)
@pytest.mark.parametrize("window", [2, [6, 200], 50])
def test_windows_and_global_tokens_equal_padded_rows(kind: Any, window: Any, route: str) -> None:
    model, ids = make(kind, attention_window=window, eos_token_id=3), flat_ids()
    ids[[40, 60, 150]] = 3
    found, expected = both_ways(model, ids)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
