# SPDX-License-Identifier: Apache-2.0
"""Losses as modules: a flat batch goes in, the sum over its targets comes out.

Shapes: B documents, N tokens of all documents end to end, M tokens of decoder documents, T tokens
of a padded row, P predicted positions, V vocabulary, L labels, H hidden.

The sum, never the mean: training divides by the number of targets of all processes, so the result
does not depend on how a batch is shared out. The vocabulary head runs at predicted positions only.
Called by training, evaluation and inference; never moves a tensor to a device.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from pyfsb.config import Family
from pyfsb.errors import ConfigError
from pyfsb.models import unpadded
from pyfsb.models.cross_entropy import cross_entropy_sum
from pyfsb.models.loading import max_positions

Layout: TypeAlias = Literal["flat", "packed", "buckets", "padded"]

_FILL_LENGTH: Final = 128
"""Tokens of the pad documents that fill a packed batch, at most."""
_FIRST_TOKEN_KINDS: Final = ("bert", "megatron-bert", "deberta-v2")
_LAST_TOKEN_KINDS: Final = ("gpt2",)


def default_layout(architecture: str, device_type: str) -> Layout:
    """Return how samples lie where a spec does not say.

    Args:
        architecture: `model_type` of the config.
        device_type: "cpu", "cuda" …; every device here has a way to attend to flat documents.
    """
    del device_type
    return "flat" if unpadded.supports(architecture) else "buckets"


def build_loss(
    model: nn.Module,
    family: Family,
    layout: Layout,
    *,
    micro_tokens: int | None = None,
    checkpoints_activations: bool = False,
) -> nn.Module:
    """Return the module that turns flat batches into the sum of their losses.

    Args:
        model: With the head of the family; also inside of peft's adapters.
        family: What it is trained for. GENERATE takes encoder-decoders too.
        layout: flat and packed compute no padding; buckets and padded pad inside of the module.
        micro_tokens: Tokens that layout packed fills every batch up to.
        checkpoints_activations: Keep only the inputs of layers for the backward pass.

    Raises:
        ConfigError: The layout does not fit the architecture, or packed lacks micro_tokens.
    """
    kinds: dict[Family, type[DocumentLoss]] = {
        Family.CLASSIFY: ClassificationLoss,
        Family.PAIR: ClassificationLoss,
        Family.TAG: TaggingLoss,
    }
    is_pair = unpadded.unwrap(model).config.is_encoder_decoder
    kind = kinds.get(family, PairLoss if is_pair else LanguageModelLoss)
    return kind(
        model,
        layout=layout,
        micro_tokens=micro_tokens,
        checkpoints_activations=checkpoints_activations,
    )


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


def vocabulary_logits(model: nn.Module, hidden_PH: Tensor) -> Tensor:
    """Return the logits of hidden states over the vocabulary, [P, V].

    Args:
        model: A language model, masked, causal or encoder-decoder.
        hidden_PH: Last hidden states at the wanted positions.

    Raises:
        ConfigError: No vocabulary head is known for its architecture.
    """
    inner: Any = unpadded.unwrap(model)
    kind = inner.config.model_type
    if kind == "deberta-v2" and not inner.legacy:
        return inner.lm_predictions(hidden_PH, inner.deberta.embeddings.word_embeddings)
    if kind in ("bert", "megatron-bert", "deberta-v2"):
        return inner.cls(hidden_PH)
    if kind == "t5" and inner.config.scale_decoder_outputs:
        return inner.lm_head(hidden_PH * inner.config.d_model**-0.5)
    if kind in ("gpt2", "t5", "mt5"):
        return inner.lm_head(hidden_PH)
    if kind in ("bart", "pegasus"):
        return inner.lm_head(hidden_PH) + inner.final_logits_bias
    raise ConfigError(f"{kind}: no vocabulary head known; add it to vocabulary_logits")


def logits_at(
    model: PreTrainedModel, input_ids_BT: Tensor, attention_mask_BT: Tensor, positions_P: Tensor
) -> Tensor:
    """Return vocabulary logits at chosen positions of padded rows only.

    Args:
        model: A masked or causal language model.
        input_ids_BT: Ids, [B, T].
        attention_mask_BT: 1 on tokens, [B, T].
        positions_P: Positions row x T + column, [P].

    Returns:
        Logits [P, V], equal to the full forward pass at these positions.

    Raises:
        ConfigError: No vocabulary head is known for its architecture.
    """
    hidden_BTH = model.base_model(input_ids=input_ids_BT, attention_mask=attention_mask_BT)[0]
    hidden_PH = hidden_BTH.flatten(0, 1).index_select(0, positions_P)
    return vocabulary_logits(model, hidden_PH)


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
    ) -> Tensor:
        """Return the last hidden states at positions, [P, H], computed as the layout says."""
        if self._is_padded:
            hidden_NH = self._padded_hidden(input_ids_N, lengths_B, token_type_ids_N)
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
        self, input_ids_N: Tensor, lengths_B: Tensor, token_type_ids_N: Tensor | None
    ) -> Tensor:
        ids_BT, mask_BT = pad_flat(input_ids_N, lengths_B, self._pad_id)
        inputs = {"input_ids": ids_BT, "attention_mask": mask_BT}
        if token_type_ids_N is not None:
            inputs["token_type_ids"] = pad_flat(token_type_ids_N, lengths_B, 0)[0]
        hidden_BTH: Tensor = unpadded.unwrap(self.model).base_model(**inputs)[0]
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


class LanguageModelLoss(DocumentLoss):
    """Cross entropy of predicted tokens, masked or causal."""

    def forward(
        self,
        input_ids: Tensor,
        lengths: Tensor,
        target_positions: Tensor,
        target_ids: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """Return the sum of the losses at the target positions, in nats."""
        hidden_PH = self.hidden(input_ids, lengths, target_positions, token_type_ids)
        logits_PV = vocabulary_logits(self.model, hidden_PH)
        return cross_entropy_sum(logits_PV, target_ids)


class PairLoss(DocumentLoss):
    """Cross entropy of an encoder-decoder's next tokens."""

    def forward(
        self,
        input_ids: Tensor,
        lengths: Tensor,
        decoder_ids: Tensor,
        decoder_lengths: Tensor,
        target_positions: Tensor,
        target_ids: Tensor,
    ) -> Tensor:
        """Return the sum of the losses at the target positions (in `decoder_ids`), in nats."""
        if self._is_padded:
            hidden_MH = self._padded_pairs(input_ids, lengths, decoder_ids, decoder_lengths)
        else:
            hidden_MH = unpadded.encode_pair(
                self.model,
                input_ids,
                lengths,
                decoder_ids,
                decoder_lengths,
                checkpoints_activations=self._checkpoints_activations,
            )
        logits_PV = vocabulary_logits(self.model, hidden_MH.index_select(0, target_positions))
        return cross_entropy_sum(logits_PV, target_ids)

    def _padded_pairs(
        self, ids_N: Tensor, lengths_B: Tensor, decoder_ids_M: Tensor, decoder_lengths_B: Tensor
    ) -> Tensor:
        ids_BT, mask_BT = pad_flat(ids_N, lengths_B, self._pad_id)
        decoder_ids_BT, decoder_mask_BT = pad_flat(decoder_ids_M, decoder_lengths_B, self._pad_id)
        base: Any = unpadded.unwrap(self.model).base_model
        encoded_BTH = base.encoder(input_ids=ids_BT, attention_mask=mask_BT)[0]
        hidden_BTH: Tensor = base.decoder(
            input_ids=decoder_ids_BT,
            attention_mask=decoder_mask_BT,
            encoder_hidden_states=encoded_BTH,
            encoder_attention_mask=mask_BT,
        )[0]
        return hidden_BTH[decoder_mask_BT.bool()]


class ClassificationLoss(DocumentLoss):
    """Cross entropy of one label a document."""

    def forward(
        self,
        input_ids: Tensor,
        lengths: Tensor,
        target_ids: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """Return the sum of the documents' losses, in nats."""
        logits_BL = self.logits(input_ids, lengths, token_type_ids)
        return cross_entropy_sum(logits_BL, target_ids)

    def logits(
        self, input_ids_N: Tensor, lengths_B: Tensor, token_type_ids_N: Tensor | None = None
    ) -> Tensor:
        """Return the logits of the labels, [B, L]."""
        inner: Any = unpadded.unwrap(self.model)
        kind = inner.config.model_type
        if kind in _FIRST_TOKEN_KINDS + _LAST_TOKEN_KINDS:
            ends_B = lengths_B.to(input_ids_N.device).cumsum(0)
            is_last = kind in _LAST_TOKEN_KINDS
            positions_B = ends_B - (1 if is_last else lengths_B.to(input_ids_N.device))
            hidden_BH = self.hidden(input_ids_N, lengths_B, positions_B, token_type_ids_N)
            if is_last:
                return inner.score(hidden_BH)
            pooler = inner.pooler if kind == "deberta-v2" else inner.base_model.pooler
            return inner.classifier(inner.dropout(pooler(hidden_BH[:, None])))
        # The heads of encoder-decoders look at rows of their own making.
        ids_BT, mask_BT = pad_flat(input_ids_N, lengths_B, self._pad_id)
        return inner(input_ids=ids_BT, attention_mask=mask_BT).logits


class TaggingLoss(DocumentLoss):
    """Cross entropy of one label a token."""

    def forward(
        self,
        input_ids: Tensor,
        lengths: Tensor,
        target_positions: Tensor,
        target_ids: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """Return the sum of the losses at the target positions, in nats."""
        hidden_PH = self.hidden(input_ids, lengths, target_positions, token_type_ids)
        inner: Any = unpadded.unwrap(self.model)
        logits_PL = inner.classifier(inner.dropout(hidden_PH))
        return cross_entropy_sum(logits_PL, target_ids)
