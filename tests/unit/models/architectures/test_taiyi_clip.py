# SPDX-License-Identifier: Apache-2.0
"""Taiyi-CLIP against the original module, and the towers that were released."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoModel,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    CLIPConfig,
    CLIPModel,
)

from pyfsb.errors import CheckpointError
from pyfsb.models.architectures.taiyi_clip import ARCHITECTURE, TaiyiClipConfig, TaiyiClipModel
from pyfsb.models.architectures.taiyi_clip_towers import join_configs, join_weights
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
        torch.testing.assert_close(
            outputs[name], tensor, msg=lambda text, n=name: f"{n}: {text}", **limits
        )


@reference_cases("taiyi_clip")
def test_texts_have_one_vector_by_default(case: ReferenceCase) -> None:
    outputs, expected = compute(load(case), case), case.outputs()
    for name in set(expected) - {"text_features"}:
        torch.testing.assert_close(
            outputs[name], expected[name], rtol=1e-5, atol=ABSOLUTE_TOLERANCE
        )
    directions = torch.nn.functional.normalize(outputs["text_features"], dim=-1)
    torch.testing.assert_close(directions, outputs["text_embeds"])
    assert (outputs["text_features"] - expected["text_features"]).abs().max() > 0.1


TEXT = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT |= {"intermediate_size": 48, "max_position_embeddings": 20}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
VISION |= {"num_attention_heads": 2, "image_size": 16, "patch_size": 8, "projection_dim": 12}


def released_towers() -> tuple[BertForSequenceClassification, CLIPModel]:
    """Return both towers as they were released, from classes of their own."""
    torch.manual_seed(3)
    text = BertForSequenceClassification(BertConfig(**TEXT, num_labels=12)).eval()
    own = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 70}
    clip = CLIPModel(CLIPConfig(text_config=own, vision_config=VISION, projection_dim=12)).eval()
    with torch.no_grad():
        text.classifier.bias.normal_()
        clip.logit_scale.fill_(4.0)
    return text, clip


def test_released_towers_become_one_model() -> None:
    text, clip = released_towers()
    config = join_configs(text.config.to_dict(), clip.config.to_dict())
    model = TaiyiClipModel(config).eval()
    text_state = text.state_dict() | {"bert.embeddings.position_ids": torch.arange(20)[None]}
    model.load_state_dict(join_weights(text_state, clip.state_dict(), model))
    ids, pixels = torch.randint(5, 60, (3, 7)), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        found = model(ids, pixels)
        expected_BD = functional.normalize(text(ids).logits, dim=-1)
        images = clip.get_image_features(pixels).pooler_output
        expected_ID = functional.normalize(images, dim=-1)
    torch.testing.assert_close(found.text_embeds, expected_BD)
    torch.testing.assert_close(found.image_embeds, expected_ID)
    expected = expected_BD @ expected_ID.T * torch.tensor(4.0).exp()
    torch.testing.assert_close(found.logits_per_text, expected)
    torch.testing.assert_close(model.get_text_features(ids), text(ids).logits)


def test_a_text_tower_without_a_map_is_joined_with_the_identity() -> None:
    """As the ViT-H was released: what a BertModel pools is the text's vector."""
    _, clip = released_towers()
    text = BertModel(BertConfig(**TEXT, architectures=["BertModel"])).eval()
    width = text.config.hidden_size
    with pytest.raises(CheckpointError, match=f"vectors of {width} numbers, the CLIP of 12"):
        join_configs(text.config.to_dict(), clip.config.to_dict())
    own = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 70}
    clip = CLIPModel(CLIPConfig(text_config=own, vision_config=VISION, projection_dim=width)).eval()
    model = TaiyiClipModel(join_configs(text.config.to_dict(), clip.config.to_dict())).eval()
    model.load_state_dict(join_weights(text.state_dict(), clip.state_dict(), model))
    ids = torch.randint(5, 60, (3, 7))
    with torch.no_grad():
        torch.testing.assert_close(model.get_text_features(ids), text(ids).pooler_output)


def test_towers_that_do_not_fit_are_refused() -> None:
    text, clip = released_towers()
    with pytest.raises(CheckpointError, match="vectors of 12 numbers, the CLIP of 7"):
        join_configs(text.config.to_dict(), {**clip.config.to_dict(), "projection_dim": 7})
    with pytest.raises(CheckpointError, match="'clip': expected 'bert'"):
        join_configs(clip.config.to_dict(), text.config.to_dict())
    config = join_configs(text.config.to_dict(), clip.config.to_dict())
    state = {name: tensor for name, tensor in text.state_dict().items() if "pooler" not in name}
    with pytest.raises(CheckpointError, match=r"2 missing: text_model\.pooler"):
        join_weights(state, clip.state_dict(), TaiyiClipModel(config))


def test_new_weights_and_saved_ones(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = TaiyiClipConfig(text_config=TEXT, vision_config=VISION, text_projection_bias=True)
    model = TaiyiClipModel(config).eval()
    assert float(model.logit_scale.detach()) == pytest.approx(2.6592)
    for projection in (model.text_projection, model.visual_projection):
        assert float(projection.weight.detach().std()) == pytest.approx(32**-0.5, rel=0.05)
    assert float(model.vision_model.embeddings.patch_embedding.weight.detach().std()) > 0
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert isinstance(loaded, TaiyiClipModel)
    assert loaded.config.text_projection_bias
    ids, pixels = torch.randint(5, 60, (3, 7)), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded(ids, pixels)[0], model(ids, pixels)[0])


def test_padding_changes_no_text() -> None:
    torch.manual_seed(0)
    model = TaiyiClipModel(TaiyiClipConfig(text_config=TEXT, vision_config=VISION)).eval()
    ids = torch.randint(5, 60, (1, 6))
    longer = torch.cat([ids, torch.full((1, 4), 9)], dim=1)
    mask = torch.tensor([[1] * 6 + [0] * 4])
    with torch.no_grad():
        torch.testing.assert_close(
            model.get_text_features(longer, mask), model.get_text_features(ids)
        )


def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for is_checkpointed in (False, True):
        torch.manual_seed(0)
        vision = {**VISION, "num_hidden_layers": 2}
        text = {**TEXT, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        model = TaiyiClipModel(TaiyiClipConfig(text_config=text, vision_config=vision)).train()
        if is_checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        ids = torch.arange(12).view(2, 6) + 5
        model(ids, torch.ones(2, 3, 16, 16).mul_(ids[:, :1, None, None]), return_loss=True)[
            0
        ].backward()
        gradients.append([weight.grad for weight in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)
