# SPDX-License-Identifier: Apache-2.0
"""Taiyi-CLIP against the original module, and the towers that were released."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pyfsb.models.architectures.taiyi_clip import ARCHITECTURE, TaiyiClipConfig, TaiyiClipModel
from pyfsb.models.key_maps import check_keys
from tests.helpers.reference import (
    ABSOLUTE_TOLERANCE,
    RELATIVE_LOSS_TOLERANCE,
    ReferenceCase,
    reference_cases,
)


def load(case: ReferenceCase, **changes: Any) -> TaiyiClipModel:
    model = TaiyiClipModel(TaiyiClipConfig(**case.config["model"], **changes)).eval()
    state = ARCHITECTURE.key_map.convert(case.weights())
    check_keys(state, model.state_dict(), source=str(case.folder))
    model.load_state_dict(state)
    return model


@torch.no_grad()
def compute(model: TaiyiClipModel, case: ReferenceCase) -> dict[str, Tensor]:
    inputs, config = case.inputs(), case.config
    texts = {name: tensor for name, tensor in inputs.items() if name != "pixel_values"}
    is_square = config["batch"] == config["images"]
    found = model(**inputs, return_loss=is_square)
    outputs = {
        "text_features": model.get_text_features(**texts),
        "image_features": model.get_image_features(inputs["pixel_values"]),
        "text_embeds": found.text_embeds,
        "image_embeds": found.image_embeds,
        "logits_per_text": found.logits_per_text,
        "logits_per_image": found.logits_per_image,
        "text_last_hidden_state": found.text_model_output.last_hidden_state,
        "text_pooler_output": found.text_model_output.pooler_output,
        "vision_last_hidden_state": found.vision_model_output.last_hidden_state,
        "vision_pooler_output": found.vision_model_output.pooler_output,
    }
    return outputs | ({"loss": found.loss} if is_square else {})


@reference_cases("taiyi_clip")
def test_outputs_are_those_of_the_original(case: ReferenceCase) -> None:
    outputs = compute(load(case, legacy_unpooled_text_features=True), case)
    expected = case.outputs()
    assert set(outputs) == set(expected)
    for name, tensor in expected.items():
        limits = (
            {"rtol": RELATIVE_LOSS_TOLERANCE, "atol": 0.0}
            if name == "loss"
            else {"rtol": 0.0, "atol": ABSOLUTE_TOLERANCE}
        )
        torch.testing.assert_close(outputs[name], tensor, msg=lambda text, n=name: f"{n}: {text}", **limits)


@reference_cases("taiyi_clip")
def test_texts_have_one_vector_by_default(case: ReferenceCase) -> None:
    outputs, expected = compute(load(case), case), case.outputs()
    for name in set(expected) - {"text_features"}:
        torch.testing.assert_close(outputs[name], expected[name], rtol=1e-5, atol=ABSOLUTE_TOLERANCE)
    directions = torch.nn.functional.normalize(outputs["text_features"], dim=-1)
    torch.testing.assert_close(directions, outputs["text_embeds"])
    assert (outputs["text_features"] - expected["text_features"]).abs().max() > 0.1
