# SPDX-License-Identifier: Apache-2.0
"""Family image_text: an image and texts in, how well each text fits out (Taiyi-CLIP, Chinese-CLIP).

Either side may be left out: what is there comes back as a vector. Texts of one request compete for
its probabilities, so which labels are offered is part of the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final, Self, TypeAlias

import torch
from pydantic import model_validator
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pyfsb.config import Family
from pyfsb.errors import ConfigError
from pyfsb.inference.deadline import check_deadline
from pyfsb.inference.encoding import encode_rows, group_by_length, pad_rows
from pyfsb.inference.images import batch_images, encode_image, preprocessing_of
from pyfsb.inference.protocol import TextInput, as_list, as_schema
from pyfsb.models.contrastive_loss import MAX_LOGIT_SCALE, image_vectors_of, text_vectors
from pyfsb.schema import Schema

MAX_TEXTS: Final = 1024
"""Texts of one input at most."""
_NUM_DIGITS: Final = 6
Vector = tuple[float, ...]


class ImageTextInput(Schema):
    """An image, texts, or both."""

    image: str | None = None
    """The bytes of an image file as base64. None asks for the vectors of the texts."""
    texts: tuple[str, ...] = ()
    """What may be on the image. Empty asks for the vector of the image."""
    wants_vectors: bool = False
    """True returns vectors beside similarities, too."""

    @model_validator(mode="after")
    def _has_something(self) -> Self:
        if self.image is None and not self.texts:
            raise ValueError("give image, texts, or both")
        if len(self.texts) > MAX_TEXTS:
            raise ValueError(f"{len(self.texts)} texts; at most {MAX_TEXTS} fit one input")
        return self

    @classmethod
    def of(cls, image: bytes | Path, texts: Sequence[str] = ()) -> Self:
        """Return the input of an image file or its bytes.

        Raises:
            ConfigError: The file cannot be read.
        """
        return cls(image=encode_image(image), texts=tuple(texts))


class ImageTextMatch(Schema):
    """How well texts fit an image."""

    text: str | None
    """The text that fits best; None without an image or without texts."""
    similarities: Vector
    """Cosine of the image and each text, in [-1, 1]; empty where one side is missing."""
    probabilities: Vector
    """The same as probabilities among the texts; they sum to 1."""
    image_vector: Vector | None
    """The image's place in the common space, of length 1; None where nobody asked."""
    text_vectors: tuple[Vector, ...] | None
    """The texts' places, of length 1; None where nobody asked."""
    is_truncated: bool
    """True: the end of a text was not looked at."""


MatchInput: TypeAlias = ImageTextInput | TextInput | str | tuple[bytes | Path, Sequence[str]]
"""What a matcher takes; a plain text is an input without an image."""


class ImageTextMatcher:
    """Two towers with one space."""

    family: Family = Family.IMAGE_TEXT
    input_schema: ClassVar[type[Schema]] = ImageTextInput

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        max_tokens: int,
    ) -> None:
        """Keep a model in evaluation mode.

        Raises:
            ConfigError: It looks at no square images.
            CheckpointError: Its preprocessor_config.json cannot be used.
        """
        self.name = name
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._preprocessing = preprocessing_of(model)

    @torch.inference_mode()
    def predict(self, inputs: Sequence[MatchInput]) -> list[ImageTextMatch]:
        """Return how well the texts of each input fit its image."""
        checked = [_as_input(item, position) for position, item in enumerate(as_list(inputs))]
        given = [(n, item.image) for n, item in enumerate(checked) if item.image is not None]
        images: dict[int, Tensor] = {}
        for positions, pixels in batch_images(given, self._preprocessing):
            check_deadline()
            found = image_vectors_of(self._model, pixels.to(self._model.device))
            images |= zip(positions, functional.normalize(found.float()).cpu(), strict=True)
        texts, cut = self._read_texts([text for item in checked for text in item.texts])
        matches, start = [], 0
        for number, item in enumerate(checked):
            own = slice(start, start + len(item.texts))
            start = own.stop
            matches.append(self._match(item, images.get(number), texts[own], any(cut[own])))
        return matches

    def _read_texts(self, texts: Sequence[str]) -> tuple[list[Tensor], list[bool]]:
        """Return the vector of each text, and whether it was cut."""
        if not texts:
            return [], []
        rows = encode_rows(
            self._tokenizer, [TextInput(text=text) for text in texts], max_tokens=self._max_tokens
        )
        vectors: dict[int, Tensor] = {}
        pad_id = int(self._tokenizer.pad_token_id or 0)
        for group in group_by_length(rows):
            check_deadline()
            batch = pad_rows([rows[number] for number in group], pad_id=pad_id)
            ids, mask = (batch[k].to(self._model.device) for k in ("input_ids", "attention_mask"))
            found = functional.normalize(text_vectors(self._model, ids, mask).float()).cpu()
            vectors |= zip(group, found, strict=True)
        return [vectors[n] for n in range(len(rows))], [row.is_truncated for row in rows]

    def _match(
        self, item: ImageTextInput, image: Tensor | None, texts: list[Tensor], is_cut: bool
    ) -> ImageTextMatch:
        is_whole = image is not None and bool(texts)
        similarities = torch.stack(texts) @ image if image is not None and texts else torch.empty(0)
        scale = self._model.logit_scale.float().clamp(0.0, MAX_LOGIT_SCALE).exp().cpu()
        probabilities = torch.softmax(scale * similarities, dim=0)
        shows_vectors = item.wants_vectors or not is_whole
        return ImageTextMatch(
            text=item.texts[int(similarities.argmax())] if is_whole else None,
            similarities=_rounded(similarities),
            probabilities=_rounded(probabilities),
            image_vector=_rounded(image) if shows_vectors and image is not None else None,
            text_vectors=tuple(map(_rounded, texts)) if shows_vectors and texts else None,
            is_truncated=is_cut,
        )


def _rounded(values: Tensor) -> Vector:
    return tuple(round(value, _NUM_DIGITS) for value in values.tolist())


def _as_input(item: MatchInput, position: int) -> ImageTextInput:
    try:
        if isinstance(item, str):
            item = ImageTextInput(texts=(item,))
        elif isinstance(item, TextInput):
            item = ImageTextInput(texts=(item.text,))
        elif isinstance(item, tuple) and len(item) == 2:
            item = ImageTextInput.of(item[0], item[1])
    except ConfigError as exc:
        raise ConfigError(f"input {position}: {exc}") from None
    item = as_schema(item, ImageTextInput, position)
    for number, text in enumerate(item.texts):
        if not text.strip():
            raise ConfigError(f"input {position}: texts.{number} is empty")
    return item
