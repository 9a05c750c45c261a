# SPDX-License-Identifier: Apache-2.0
"""Floating-point operations of a training step, counted from a model's config and its batch.

Model FLOPs: multiplications and additions of the matrix products that forward and backward need,
on tokens that are not padding; on predicted positions only behind the last attention. Recomputed
activations do not count, so the share of the peak that is reached (MFU) can be compared between
ways to train. The loop calls it each step for the MFU meter, the planner for its times. Norms,
activations and softmax are left out, as is usual. Never imports torch.

Shapes: B documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyfsb.training.architectures import ConfigMapping, shape_of
from pyfsb.training.shapes import ModelShape, Stack

_TRAINING_FACTOR: Final = 3.0
"""Forward, gradient of the inputs, gradient of the weights: one product of each size."""
_OPERATIONS: Final = 2.0
"""A multiplication and an addition."""


def num_parameters(architecture: str, config: ConfigMapping) -> int:
    """Return the parameters of a model with its pretraining head, tied ones once.

    Raises:
        UnknownNameError: No shape is known for this architecture.
        ConfigError: A size is impossible.
    """
    return shape_of(architecture, config).num_parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class FlopParts:
    """FLOPs of forward and backward, by what reaches different shares of a device's peak."""

    layers: float
    """Products with the weights of layers."""
    attention: float
    """Products of queries, keys and values, and of positions."""
    head: float
    """Products with the head's weights."""

    @property
    def total(self) -> float:
        """All of them."""
        return self.layers + self.attention + self.head


@dataclass(frozen=True, slots=True, kw_only=True)
class FlopCounter:
    """Counts the model FLOPs of batches of one model."""

    shape: ModelShape

    @classmethod
    def of(cls, architecture: str, config: ConfigMapping) -> Self:
        """Return the counter of a model.

        Args:
            architecture: Transformers' `model_type`.
            config: Fields of its config; what is missing takes Transformers' default.

        Raises:
            UnknownNameError: No shape is known for this architecture.
            ConfigError: A size is impossible.
        """
        return cls(shape=shape_of(architecture, config))

    def count(
        self, lengths: ArrayLike, num_targets: float, *, decoder_lengths: ArrayLike | None = None
    ) -> float:
        """Return the FLOPs of forward and backward over a batch.

        Args:
            lengths: Tokens of each document, [B]; attention stays within documents.
            num_targets: Predicted positions: those that pass the vocabulary head.
            decoder_lengths: Tokens of each document in the second stack, [B]. None shares the
                targets out as the first stack's tokens are, since there every position predicts.

        Source: Narayanan et al. 2021, appendix; Chowdhery et al. 2022, appendix B (the whole
        square of a causal attention counts). DeBERTa's position terms: He et al. 2021, over the
        distances that occur in a document. Of windows, the pairs within them (Beltagy et al. 2020);
        of further encoders their own tokens and the products that add their states.
        """
        return self.parts(lengths, num_targets, decoder_lengths=decoder_lengths).total

    def parts(
        self, lengths: ArrayLike, num_targets: float, *, decoder_lengths: ArrayLike | None = None
    ) -> FlopParts:
        """Return what `count` sums up; the arguments are the same."""
        lengths_B = np.asarray(lengths, dtype=np.float64)
        shape = self.shape
        layers = float(lengths_B.sum()) * shape.body.token_weights
        attention = _score_products(shape.body, lengths_B)
        if shape.side:
            side = shape.side
            side_B = side.tokens_per_document + side.tokens_per_token * lengths_B
            layers += float(side_B.sum()) * side.stack.token_weights
            attention += _score_products(side.stack, side_B)
            added = float((lengths_B * side_B).sum()) * side.stack.hidden
            attention += side.num_additions * added
        if shape.decoder is None and shape.has_vocabulary_head:
            # Behind the last attention only predicted positions go on (`models.unpadded`).
            num_left = max(0.0, float(lengths_B.sum()) - num_targets)
            layers -= num_left * shape.body.last_weights
        if shape.decoder:
            if decoder_lengths is None:
                decoder_B = lengths_B * (num_targets / max(1.0, float(lengths_B.sum())))
            else:
                decoder_B = np.asarray(decoder_lengths, dtype=np.float64)
            num_cross = shape.decoder.num_layers * shape.decoder.cross_weights / 2
            layers += float(decoder_B.sum()) * shape.decoder.token_weights
            layers += float(lengths_B.sum()) * num_cross  # keys and values of the encoder's tokens
            attention += _score_products(shape.decoder, decoder_B)
            pairs = 2.0 * shape.decoder.width * float((lengths_B * decoder_B).sum())
            attention += shape.decoder.num_layers * pairs
        factor = _TRAINING_FACTOR * _OPERATIONS
        return FlopParts(
            layers=factor * layers,
            attention=factor * attention,
            head=factor * float(num_targets) * shape.head_weights,
        )

    def per_token(self, length: float, target_ratio: float) -> float:
        """Return the FLOPs of a token in documents of one length.

        Args:
            length: Tokens of a document.
            target_ratio: Predicted positions over (first stack's) tokens.
        """
        return self.count([length], target_ratio * length) / length


def _score_products(stack: Stack, lengths_B: NDArray[np.float64]) -> float:
    """Return the products of queries with keys and weights with values, of all layers."""
    reaches = stack.reaches or (None,) * stack.num_layers
    products = sum(2.0 * stack.width * _num_pairs(lengths_B, reach) for reach in reaches)
    if stack.num_relative_terms:
        # Documents of few tokens reach few of the distances that the table has rows for.
        distances_B = lengths_B if stack.has_past_distances else 2.0 * lengths_B - 1.0
        rows_B = np.minimum(stack.num_relative, distances_B)
        relative = stack.num_relative_terms * stack.width * float((lengths_B * rows_B).sum())
        products += stack.num_layers * relative
    return products


def _num_pairs(lengths_B: NDArray[np.float64], reach: int | None) -> float:
    """Return how many pairs of tokens see each other, at most `reach` apart."""
    if reach is None:
        return float(np.square(lengths_B).sum())
    near_B = np.minimum(reach, lengths_B - 1.0)
    return float((lengths_B * (2.0 * near_B + 1.0) - near_B * (near_B + 1.0)).sum())
