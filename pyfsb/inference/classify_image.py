# SPDX-License-Identifier: Apache-2.0
"""Family classify_image: an image in, one of the model's labels out (Taiyi-vit).

Also the vector of an image, for models without texts beside their images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from pyfsb.config import Family
from pyfsb.errors import ConfigError
from pyfsb.inference.deadline import check_deadline
from pyfsb.inference.images import ImageInput, batch_images, encode_image, preprocessing_of
from pyfsb.inference.protocol import Embedding, as_list, as_schema
from pyfsb.schema import Schema

NUM_BEST: Final = 5
"""Labels that a result names at most."""
_NUM_DIGITS: Final = 6


class ImageLabel(Schema):
    """What is on an image."""

    label: str
    """The most likely label."""
    score: float
    """Its probability as the model sees it, in [0, 1]."""
    scores: dict[str, float]
    """The same of the best five labels, best first."""


PictureInput: TypeAlias = ImageInput | bytes | Path
"""What predictors of images take."""


class _ImageReader:
    """What both predictors share."""

    input_schema: ClassVar[type[Schema]] = ImageInput

    def __init__(
        self, model: PreTrainedModel, tokenizer: object = None, *, name: str, max_tokens: int
    ) -> None:
        """Keep a model in evaluation mode; there is no text, so no tokenizer and no limit of it.

        Raises:
            ConfigError: It looks at no square images.
            CheckpointError: Its preprocessor_config.json cannot be used.
        """
        del tokenizer, max_tokens
        self.name = name
        self._model: Any = model.eval()
        self._preprocessing = preprocessing_of(model)

    def _read(self, inputs: Sequence[PictureInput], part: str) -> list[Tensor]:
        """Return the float32 output of that name for each image."""
        given = [(n, _as_input(item, n).image) for n, item in enumerate(as_list(inputs))]
        found: list[Tensor] = []
        for _, pixels in batch_images(given, self._preprocessing):
            check_deadline()
            output = self._model(pixel_values=pixels.to(self._model.device))
            found += list(getattr(output, part).float().cpu())
        return found


class ImageClassifier(_ImageReader):
    """A vision model with a head of labels."""

    family: Family = Family.CLASSIFY_IMAGE

    @torch.inference_mode()
    def predict(self, inputs: Sequence[PictureInput]) -> list[ImageLabel]:
        """Return the label of each image."""
        names = self._model.config.id2label
        results = []
        for logits_L in self._read(inputs, "logits"):
            best = torch.softmax(logits_L, dim=0).topk(min(NUM_BEST, logits_L.numel()))
            scores = {
                str(names[number]): round(score, _NUM_DIGITS)
                for score, number in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            }
            label = next(iter(scores))
            results.append(ImageLabel(label=label, score=scores[label], scores=scores))
        return results


class ImageEmbedder(_ImageReader):
    """A vision model without a head: the last state of [CLS], of length 1."""

    family: Family = Family.EMBED

    @torch.inference_mode()
    def predict(self, inputs: Sequence[PictureInput]) -> list[Embedding]:
        """Return the vector of each image."""
        return [
            Embedding(
                vector=tuple(
                    round(value, _NUM_DIGITS)
                    for value in functional.normalize(states_TH[0], dim=0).tolist()
                ),
                is_truncated=False,
            )
            for states_TH in self._read(inputs, "last_hidden_state")
        ]


def _as_input(item: PictureInput, position: int) -> ImageInput:
    if isinstance(item, ImageInput | Mapping):
        return as_schema(item, ImageInput, position)
    if not isinstance(item, bytes | Path):
        raise ConfigError(
            f"input {position}: {type(item).__name__}; this model looks at images: give their "
            "bytes as base64 in `image`"
        )
    try:
        return ImageInput(image=encode_image(item))
    except ConfigError as exc:
        raise ConfigError(f"input {position}: {exc}") from None
