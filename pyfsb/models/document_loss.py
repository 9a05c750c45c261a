# SPDX-License-Identifier: Apache-2.0
"""What all losses of documents share: hidden states of a flat batch, computed as a layout says.

Shapes: B documents, N tokens of all documents end to end, M tokens of decoder documents, T tokens
of a padded row, P predicted positions, V vocabulary, L labels, H hidden, G n-grams.

Called by the loss modules; never computes a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyfsb.errors import ConfigError
from pyfsb.models import unpadded
from pyfsb.models.building import max_positions

Layout: TypeAlias = Literal["flat", "packed", "buckets", "padded"]

_FILL_LENGTH: Final = 128
"""Tokens of the pad documents that fill a packed batch, at most."""


def pad_flat(ids_N: Tensor, lengths_B: Tensor, pad_id: int) -> tuple[Tensor, Tensor]:
    """Put documents that lie end to end into rows.

    Args:
        ids_N: Ids of all documents, or any value of each token.
        lengths_B: Tokens of each document.
        pad_id: What fills the rows.

    Returns:
        Ids and attention mask (1 on tokens), both [B, T]; `ids_BT[mask_BT.bool()]` is ids_N again.
    """
    lengths_B = lengths_B.to(ids_N.device)
    width = int(lengths_B.max()) if lengths_B.numel() else 0
    mask_BT = torch.arange(width, device=ids_N.device) < lengths_B[:, None]
    ids_BT = ids_N.new_full(mask_BT.shape, pad_id)
    ids_BT[mask_BT] = ids_N
    return ids_BT, mask_BT.long()


class DocumentLoss(nn.Module):
    """What losses of documents share: hidden states by the layout."""

    def __init__(
        self,
        model: nn.Module,
        *,
        layout: Layout = "flat",
        micro_tokens: int | None = None,
        checkpoints_activations: bool = False,
    ) -> None:
        """Wrap a model; the arguments are those of `build_loss`.

        Raises:
            ConfigError: The layout does not fit the architecture, or packed lacks micro_tokens.
        """
        super().__init__()
        self.model = model
        self.layout = layout
        self._micro_tokens = micro_tokens
        self._checkpoints_activations = checkpoints_activations
        inner = unpadded.unwrap(model)
        self._pad_id = int(inner.config.pad_token_id or 0)
        # GPT-2 would take types for tokens, others have no place for a second one.
        self._has_types = getattr(inner.config, "type_vocab_size", 0) > 1
        self._is_padded = layout in ("buckets", "padded")
        if self._is_padded and checkpoints_activations:
            inner.gradient_checkpointing_enable({"use_reentrant": False})
        if not self._is_padded and not unpadded.supports(inner.config.model_type):
            raise ConfigError(
                f"batch.layout = {layout}: {inner.config.model_type} has no forward for it; "
                "expected buckets or padded"
            )
        if layout == "packed" and micro_tokens is None:
            raise ConfigError("batch.layout = packed: expected batch.micro_tokens to fill up to")
        if layout == "packed" and inner.config.is_encoder_decoder:
            raise ConfigError(
                f"batch.layout = packed: {inner.config.model_type} has two lengths to fill; "
                "expected flat, buckets or padded"
            )

    def hidden(
        self,
        input_ids_N: Tensor,
        lengths_B: Tensor,
        positions_P: Tensor,
        token_type_ids_N: Tensor | None = None,
        ngrams: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the last hidden states at positions, [P, H], computed as the layout says.

        Args:
            input_ids_N: Documents end to end.
            lengths_B: Tokens of each.
            positions_P: Indices into N.
            token_type_ids_N: Types of the tokens; None is all 0.
            ngrams: N-grams of the documents by their names in `Inputs.arguments`, of models that
                read them; None or empty is none.
        """
        if not self._has_types:
            token_type_ids_N = None
        if self._is_padded:
            hidden_NH = self._padded_hidden(input_ids_N, lengths_B, token_type_ids_N, ngrams)
            return hidden_NH.index_select(0, positions_P)
        if self.layout == "packed":
            input_ids_N, lengths_B, token_type_ids_N = self._fill(
                input_ids_N, lengths_B, token_type_ids_N
            )
        return unpadded.encode(
            self.model,
            input_ids_N,
            lengths_B,
            token_type_ids_N=token_type_ids_N,
            positions_P=positions_P,
            checkpoints_activations=self._checkpoints_activations,
        )

    def _padded_hidden(
        self,
        input_ids_N: Tensor,
        lengths_B: Tensor,
        token_type_ids_N: Tensor | None,
        ngrams: Mapping[str, Tensor] | None,
    ) -> Tensor:
        ids_BT, mask_BT = pad_flat(input_ids_N, lengths_B, self._pad_id)
        inputs = {"input_ids": ids_BT, "attention_mask": mask_BT}
        if token_type_ids_N is not None:
            inputs["token_type_ids"] = pad_flat(token_type_ids_N, lengths_B, 0)[0]
        inner: Any = unpadded.unwrap(self.model)
        if ngrams:
            inputs |= inner.pad_ngrams(lengths=lengths_B, **ngrams)
        hidden_BTH: Tensor = inner.base_model(**inputs)[0]
        return hidden_BTH[mask_BT.bool()]

    def _fill(
        self, input_ids_N: Tensor, lengths_B: Tensor, token_type_ids_N: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Add pad documents up to the constant number of tokens; their states are thrown away."""
        missing = max(0, (self._micro_tokens or 0) - input_ids_N.numel())
        longest = min(_FILL_LENGTH, max_positions(unpadded.unwrap(self.model).config))
        fill = [min(longest, missing - start) for start in range(0, missing, longest)]
        lengths_B = torch.cat([lengths_B, lengths_B.new_tensor(fill)])
        input_ids_N = functional.pad(input_ids_N, (0, missing), value=self._pad_id)
        if token_type_ids_N is not None:
            token_type_ids_N = functional.pad(token_type_ids_N, (0, missing))
        return input_ids_N, lengths_B, token_type_ids_N
