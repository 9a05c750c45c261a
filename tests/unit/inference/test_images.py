# SPDX-License-Identifier: Apache-2.0
"""Predictors of images: the numbers of the model, and errors that name the input."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import (
    AutoModel,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    RobertaConfig,
    RobertaModel,
    ViTConfig,
    ViTForImageClassification,
)

from pyfsb.config import Family
from pyfsb.errors import ConfigError
from pyfsb.inference.classify_image import ImageClassifier, ImageEmbedder
from pyfsb.inference.embed import Embedder
from pyfsb.inference.image_text import ImageTextInput, ImageTextMatcher
from pyfsb.inference.images import ImageInput, encode_image
from pyfsb.inference.loading import load_predictor
from pyfsb.models.loading import load_tokenizer
from pyfsb.models.pixels import find_preprocessing
from tests.helpers.captions import CLIP, tiny_clip
from tests.helpers.pictures import draw, to_bytes, write
from tests.helpers.row_texts import TINY, tiny_tokenizer
from tests.helpers.tokenizers import write_byte_bpe

VIT = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48,
    "image_size": 16, "patch_size": 8, "num_labels": 7,
}  # fmt: skip
TEXTS = ("李白写诗", "面很好吃，面很好吃", "书")
PNG = to_bytes(draw())


def matcher(model: Any = None, max_tokens: int = 64) -> ImageTextMatcher:
    return ImageTextMatcher(
        model or tiny_clip(), tiny_tokenizer(), name="tiny", max_tokens=max_tokens
    )


def pixels_of(model: Any, data: bytes) -> torch.Tensor:
    from pyfsb.data.image_files import decode_image
    from pyfsb.objectives.contrastive import normalise_pixels

    found = find_preprocessing(model.config)
    decoded = decode_image(data, found.shape)
    return torch.from_numpy(normalise_pixels(decoded[None], found.mean, found.std))


@torch.no_grad()
def test_matches_are_the_models_own() -> None:
    model = tiny_clip()
    (found,) = matcher(model).predict([ImageTextInput.of(PNG, TEXTS)])
    batch = tiny_tokenizer()(list(TEXTS), padding=True, return_tensors="pt")
    output = model(**batch, pixel_values=pixels_of(model, PNG))
    similarities = output.text_embeds @ output.image_embeds[0]
    assert found.similarities == pytest.approx(similarities.tolist(), abs=2e-6)
    probabilities = output.logits_per_image.softmax(-1)[0]
    assert found.probabilities == pytest.approx(probabilities.tolist(), abs=2e-6)
    assert found.text == TEXTS[int(similarities.argmax())]
    assert found.image_vector is None
    assert not found.is_truncated


def test_one_side_alone_gives_vectors() -> None:
    predictor = matcher()
    image, texts, both = predictor.predict(
        [
            ImageTextInput(image=encode_image(PNG)),
            ImageTextInput(texts=TEXTS),
            ImageTextInput(image=encode_image(PNG), texts=TEXTS, wants_vectors=True),
        ]
    )
    assert (image.text, image.similarities, image.text_vectors) == (None, (), None)
    assert both.image_vector == image.image_vector
    expected = torch.tensor(texts.text_vectors)
    torch.testing.assert_close(torch.tensor(both.text_vectors), expected)
    assert texts.image_vector is None
    assert sum(value**2 for value in image.image_vector or ()) == pytest.approx(1.0, abs=1e-5)
    (plain,) = predictor.predict(["李白写诗"])
    torch.testing.assert_close(torch.tensor(plain.text_vectors), expected[:1], atol=2e-6, rtol=0)


def test_a_batch_is_its_inputs_one_by_one(tmp_path: Path) -> None:
    predictor = matcher(max_tokens=6)
    inputs = [(write(tmp_path / f"{n}.png", seed=n), TEXTS[: n % 4] or TEXTS) for n in range(20)]
    together = predictor.predict(inputs)
    for number in (0, 7, 19):
        (alone,) = predictor.predict([inputs[number]])
        assert alone.text == together[number].text
        assert alone.probabilities == pytest.approx(together[number].probabilities, abs=1e-5)
        assert alone.is_truncated == together[number].is_truncated
    assert [match.is_truncated for match in together[:3]] == [True, False, True]


def test_data_links_and_base64_are_the_same() -> None:
    text = encode_image(PNG)
    plain, link = matcher().predict(
        [
            ImageTextInput(image=text),
            ImageTextInput(image=f"data:image/png;base64,{text}"),
        ]
    )
    assert plain == link


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ("/etc/hostname", "expected an image file's bytes as base64"),
        ("äöü", "expected an image file's bytes as base64"),
        (base64.b64encode(b"hello").decode(), "image: no image of a known kind"),
        (base64.b64encode(PNG[:80]).decode(), "image: a broken image"),
    ],
    ids=["path", "letters", "text", "cut"],
)
def test_broken_images_name_their_input(image: str, text: str) -> None:
    good = ImageTextInput.of(PNG, TEXTS)
    with pytest.raises(ConfigError, match=f"input 1: .*{text}"):
        matcher().predict([good, ImageTextInput(image=image)])
    with pytest.raises(ConfigError, match=f"input 1: .*{text}"):
        classifier().predict([PNG, ImageInput(image=image)])


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give image, texts, or both"):
        ImageTextInput()
    with pytest.raises(ValueError, match="1025 texts; at most 1024"):
        ImageTextInput(texts=("书",) * 1025)
    with pytest.raises(ConfigError, match=r"input 0: texts\.1 is empty"):
        matcher().predict([ImageTextInput(texts=("书", " "))])
    with pytest.raises(ConfigError, match=r"input 0: .*gone\.png cannot be read"):
        matcher().predict([(tmp_path / "gone.png", TEXTS)])
    with pytest.raises(ConfigError, match="input 0: str; this model looks at images"):
        classifier().predict(["今天"])  # type: ignore[list-item]


@torch.no_grad()
def test_chinese_clip_is_asked_the_same_way() -> None:
    torch.manual_seed(0)
    config = ChineseCLIPConfig(
        text_config=TINY, vision_config=CLIP["vision_config"], projection_dim=16
    )
    model = ChineseCLIPModel(config).eval()
    (found,) = matcher(model).predict([ImageTextInput.of(PNG, TEXTS)])
    batch = tiny_tokenizer()(list(TEXTS), padding=True, return_tensors="pt")
    expected = model(**batch, pixel_values=pixels_of(model, PNG)).logits_per_image.softmax(-1)[0]
    assert found.probabilities == pytest.approx(expected.tolist(), abs=2e-6)


def classifier() -> ImageClassifier:
    torch.manual_seed(2)
    model = ViTForImageClassification(ViTConfig(**VIT, initializer_range=0.5))
    return ImageClassifier(model, None, name="tiny", max_tokens=5)


@torch.no_grad()
def test_labels_are_the_models_own() -> None:
    predictor = classifier()
    model = predictor._model
    first, second = predictor.predict([PNG, ImageInput(image=encode_image(PNG))])
    assert first == second
    expected = model(pixels_of(model, PNG)).logits.softmax(-1)[0]
    best = int(expected.argmax())
    assert (first.label, first.score) == (f"LABEL_{best}", pytest.approx(float(expected[best])))
    assert len(first.scores) == 5
    assert list(first.scores.values()) == sorted(first.scores.values(), reverse=True)


@torch.no_grad()
def test_folders_are_found_by_family(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(**VIT)).eval()
    model.save_pretrained(tmp_path / "vit")
    found = load_predictor(str(tmp_path / "vit"))
    assert found.family is Family.CLASSIFY_IMAGE
    embedder = load_predictor(str(tmp_path / "vit"), family=Family.EMBED)
    assert isinstance(embedder, ImageEmbedder)
    (vector,) = embedder.predict([PNG])
    states = AutoModel.from_pretrained(tmp_path / "vit").eval()(pixels_of(model, PNG))[0]
    expected = functional.normalize(states[0, 0], dim=0)
    assert vector.vector == pytest.approx(expected.tolist(), abs=2e-6)
    clip = tiny_clip()
    clip.save_pretrained(tmp_path / "clip")
    tiny_tokenizer().save_pretrained(tmp_path / "clip")
    both = load_predictor(str(tmp_path / "clip"))
    assert both.family is Family.IMAGE_TEXT
    texts = load_predictor(str(tmp_path / "clip"), family=Family.EMBED)
    (text,) = texts.predict(["李白写诗"])
    (match,) = both.predict(["李白写诗"])
    assert text.vector == pytest.approx((match.text_vectors or ())[0], abs=2e-6)


@torch.no_grad()
def test_roberta_with_byte_bpe_embeds(tmp_path: Path) -> None:
    """Taiyi-Roberta-124M-D: RoBERTa as it is, positions from its padding on."""
    folder = write_byte_bpe(tmp_path / "roberta")
    tokenizer = load_tokenizer(folder)
    tokenizer.pad_token = tokenizer.eos_token
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=48, max_position_embeddings=34, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    model = RobertaModel(config).eval()
    predictor = Embedder(model, tokenizer, name="tiny", max_tokens=32)
    texts = ["hello world, it costs 3.14!", "hello"]
    for text, found in zip(texts, predictor.predict(texts), strict=True):
        states = model(**tokenizer(text, return_tensors="pt"))[0].mean(1)[0]
        expected = functional.normalize(states, dim=0)
        assert found.vector == pytest.approx(expected.tolist(), abs=2e-6)
