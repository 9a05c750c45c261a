# SPDX-License-Identifier: Apache-2.0
"""The contrastive loss: formula, processes that share a batch, frozen towers, kept vectors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, ViTConfig, ViTForImageClassification

from pyfsb.errors import ConfigError
from pyfsb.models.architectures.taiyi_clip import TaiyiClipModel
from pyfsb.models.contrastive_loss import (
    MAX_LOGIT_SCALE,
    ContrastiveLoss,
    ImageClassificationLoss,
    freeze_vision,
    is_vision_frozen,
)
from pyfsb.models.image_vectors import encode_images_once
from pyfsb.training.distributed import ProcessGroup
from tests.helpers import groups
from tests.helpers.captions import CAPTIONS, collate_pairs, tiny_clip, tiny_contrastive, tiny_images

ALL = list(range(len(CAPTIONS)))
VISION = ("vision_model.", "visual_projection.")


def gradients(module: torch.nn.Module) -> dict[str, Tensor]:
    return {
        name.removeprefix("model."): weight.grad.clone()
        for name, weight in module.named_parameters()
        if weight.grad is not None
    }


def test_it_is_the_models_own_loss_times_the_pairs() -> None:
    model = tiny_clip()
    batch = collate_pairs(ALL)
    texts = {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values")}
    expected = model(**texts, return_loss=True).loss * len(ALL)
    torch.testing.assert_close(ContrastiveLoss(model)(**batch), expected)


def test_pairs_without_weight_change_nothing() -> None:
    model = tiny_clip()
    batch = collate_pairs(ALL)
    weights = torch.tensor([1.0, 1, 0, 1, 1, 0])
    loss = ContrastiveLoss(model)(**(batch | {"pair_weights": weights}))
    torch.testing.assert_close(loss, ContrastiveLoss(model)(**collate_pairs([0, 1, 3, 4])))
    nothing = ContrastiveLoss(model)(**(batch | {"pair_weights": torch.zeros(6)}))
    nothing.backward()
    assert float(nothing) == 0.0
    assert all(torch.isfinite(part).all() for part in gradients(model).values())


@pytest.mark.parametrize(("value", "expected"), [(-1.0, 0.0), (2.0, 2.0), (9.0, MAX_LOGIT_SCALE)])
def test_the_factor_keeps_its_bounds(value: float, expected: float) -> None:
    model = tiny_clip()
    losses = []
    for scale in (value, expected):
        with torch.no_grad():
            model.logit_scale.fill_(scale)
        losses.append(ContrastiveLoss(model)(**collate_pairs(ALL)))
    assert float(losses[0]) == float(losses[1])
    assert pytest.approx(100.0) == math.exp(MAX_LOGIT_SCALE)


def test_the_factor_comes_back_from_beyond_its_bounds() -> None:
    """Right pairs want a larger factor, wrong ones a smaller one."""
    model = tiny_clip()
    texts = torch.eye(4, 16)
    slopes = []
    for shift in (0, 1):
        with torch.no_grad():
            model.logit_scale.fill_(9.0)
        model.logit_scale.grad = None
        model.get_text_features = lambda **_: texts
        batch = collate_pairs(ALL[:4]) | {"image_vectors": texts.roll(shift, 0)}
        batch.pop("pixel_values")
        ContrastiveLoss(model)(**batch).backward()
        slopes.append(float(model.logit_scale.grad))
    assert slopes[0] == 0.0
    assert slopes[1] > 0.0


SHARES = ([0, 1, 2, 3], [4, 5], [0])
"""Pairs of each process; the last one has nothing to do and repeats the first pair."""


def share_work(group: ProcessGroup, shares: tuple[list[int], ...]) -> dict[str, Any]:
    model = tiny_clip()
    batch = collate_pairs(shares[group.rank])
    if group.rank == 2:
        batch["pair_weights"] = torch.zeros(1)
    loss = ContrastiveLoss(model)(**batch)
    loss.backward()
    found = gradients(model)
    for part in found.values():
        torch.distributed.all_reduce(part)
    return {"loss": group.sum([float(loss)])[0], "gradients": found}


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_processes_together_are_one_process(num_ranks: int) -> None:
    groups.load()
    for found in groups.run_ranks(num_ranks, lambda group: share_work(group, SHARES)):
        model = tiny_clip()
        loss = ContrastiveLoss(model)(**collate_pairs(ALL))
        loss.backward()
        assert found["loss"] == pytest.approx(float(loss), rel=1e-6)
        expected = gradients(model)
        assert set(found["gradients"]) == set(expected)
        for name, part in expected.items():
            torch.testing.assert_close(found["gradients"][name], part, rtol=1e-4, atol=1e-6)


def train(model: TaiyiClipModel, batch: dict[str, Tensor], num_steps: int = 5) -> list[float]:
    module = ContrastiveLoss(model).train()
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3, weight_decay=0.1)
    losses = []
    for _ in range(num_steps):
        loss = module(**batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    return losses


def test_a_frozen_tower_stays_as_it_is(tmp_path: Path) -> None:
    model = tiny_clip()
    freeze_vision(model)
    assert is_vision_frozen(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    losses = train(model, collate_pairs(ALL), 20)
    assert losses[-1] < losses[0] / 2
    for name, weight in model.named_parameters():
        is_vision = name.startswith(VISION)
        assert (weight.grad is None) == is_vision, name
        assert torch.equal(weight, before[name]) == is_vision, name
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert isinstance(loaded, TaiyiClipModel)
    assert not is_vision_frozen(loaded)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_a_tower_that_is_not_frozen_learns() -> None:
    model = tiny_clip()
    before = model.visual_projection.weight.clone()
    losses = train(model, collate_pairs(ALL), 20)
    assert losses[-1] < losses[0] / 2
    assert not torch.equal(model.visual_projection.weight, before)
    assert all(weight.grad is not None for weight in model.parameters())


def test_a_frozen_tower_has_no_dropout() -> None:
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    model = tiny_clip(vision_config=vision | {"attention_dropout": 0.5})
    freeze_vision(model)
    module = ContrastiveLoss(model).train()
    batch = collate_pairs(ALL)
    assert float(module(**batch)) == float(module(**batch))
    assert model.text_model.training


def test_kept_vectors_give_the_same_numbers() -> None:
    outcomes = []
    for keeps in (False, True):
        model = tiny_clip()
        freeze_vision(model)
        images = tiny_images()
        if keeps:
            images = encode_images_once(model, images, torch.device("cpu"))
        batch = collate_pairs(ALL, tiny_contrastive(images))
        assert ("image_vectors" in batch) == keeps
        assert ("pixel_values" in batch) != keeps
        outcomes.append((train(model, batch), model.state_dict()))
    (plain, weights), (kept, kept_weights) = outcomes
    assert kept == pytest.approx(plain, rel=1e-5)
    for name, tensor in weights.items():
        torch.testing.assert_close(kept_weights[name], tensor, rtol=1e-4, atol=1e-5)


def encode_together(group: ProcessGroup) -> Tensor:
    with torch.device("meta" if group.rank == 1 else "cpu"):
        model = tiny_clip()
    if group.rank != 1:
        model = tiny_clip()
    found = encode_images_once(model, tiny_images(), group.device).vectors
    assert found is not None
    return torch.from_numpy(found)


def test_processes_with_weights_share_the_images() -> None:
    groups.load()
    alone = encode_images_once(tiny_clip(), tiny_images(), torch.device("cpu")).vectors
    assert alone is not None
    for vectors in groups.run_ranks(3, encode_together):
        torch.testing.assert_close(vectors, torch.from_numpy(alone))


def test_images_with_labels() -> None:
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48,
        image_size=16, patch_size=8, num_labels=3,
    )  # fmt: skip
    model = ViTForImageClassification(config).eval()
    pixels, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 2, 1, 1])
    loss = ImageClassificationLoss(model)(pixel_values=pixels, labels=labels)
    expected = functional.cross_entropy(model(pixels).logits, labels) * 4
    torch.testing.assert_close(loss, expected)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch\.layout = flat"):
        ContrastiveLoss(tiny_clip(), layout="flat")
    config = ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    with pytest.raises(ConfigError, match="vit has no vision tower"):
        ContrastiveLoss(ViTForImageClassification(config))
