# SPDX-License-Identifier: Apache-2.0
"""ZEN without heads: an encoder of tokens that an encoder of n-grams adds its states to.

Behind every layer of tokens, each token gets the states of the n-grams that cover it, as a matrix
says: 1 for each (ZEN1), or weights that sum to 1 (ZEN2). Without n-grams it is a plain encoder.
`zen1` and `zen2` make their classes of this. Never matches n-grams: `pyfsb.tokenizers` does.

Shapes: B rows, T tokens of a row, G n-grams of a row (of all rows where they lie flat), H hidden.

Source: as of `zen_layers`.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling

from pyfsb.errors import ConfigError, DataError
from pyfsb.models.architectures.bert_layers import Pooler
from pyfsb.models.architectures.zen_layers import (
    Embeddings,
    Encoder,
    Layer,
    SelfAttention,
    ZenConfig,
)
from pyfsb.tokenizers.ngram_lexicon import NgramLexicon, NgramLimit

NGRAM_PAD_ID: Final = 0
_TINY: Final = 1e-10
"""Keeps tokens without n-grams from dividing by zero. Source: the original."""


class ZenPreTrainedModel(PreTrainedModel):
    """What the model and its heads share."""

    config_class = ZenConfig
    base_model_prefix = "bert"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = [Layer.__name__]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, SelfAttention) and module.is_relative:
            init.xavier_normal_(module.r_r_bias)
            init.xavier_normal_(module.r_w_bias)

    def weigh_ngrams(self, covers_BTG: Tensor, frequencies_BG: Tensor | None) -> Tensor:
        """Return the position matrix, [B, T, G].

        Args:
            covers_BTG: 1 where an n-gram covers a token, else 0.
            frequencies_BG: How often each n-gram is in the lexicon's corpus; ZEN1 needs none.
        """
        raise NotImplementedError

    def pad_ngrams(
        self,
        *,
        lengths: Tensor,
        ngram_ids: Tensor,
        ngram_starts: Tensor,
        ngram_lengths: Tensor,
        ngram_counts: Tensor,
        ngram_frequencies: Tensor | None = None,
        width: int = 1,
    ) -> dict[str, Tensor]:
        """Turn the n-grams of documents that lie end to end into arguments of `forward`.

        Args:
            lengths: Tokens of each document, [B].
            ngram_ids: N-grams of all documents end to end, [G].
            ngram_starts: First token of each: an index into the tokens of all documents, [G].
            ngram_lengths: Tokens of each, [G].
            ngram_counts: N-grams of each document, [B]; their sum is G.
            ngram_frequencies: How often each is in the lexicon's corpus, [G]; ZEN2 weighs by it.
            width: Columns that rows get at least. One, also without any n-gram, so that every
                weight takes part in every step.

        Returns:
            `input_ngram_ids` and `ngram_attention_mask` [B, G], `ngram_position_matrix` [B, T, G].

        Raises:
            DataError: An id is not in the model's table, or an n-gram leaves its document.
        """
        device = ngram_ids.device
        lengths_B, counts_B = lengths.to(device), ngram_counts.to(device)
        self.check_ngram_ids(ngram_ids)
        rows_G = torch.repeat_interleave(
            torch.arange(counts_B.numel(), device=device), counts_B, output_size=ngram_ids.numel()
        )
        columns_G = torch.arange(ngram_ids.numel(), device=device)
        columns_G = columns_G - (counts_B.cumsum(0) - counts_B)[rows_G]
        starts_G = ngram_starts - (lengths_B.cumsum(0) - lengths_B)[rows_G]
        ends_G = starts_G + ngram_lengths
        if bool(((starts_G < 0) | (ends_G > lengths_B[rows_G])).any()):
            raise DataError("an n-gram leaves its document; starts are indices into all tokens")
        shape = (lengths_B.numel(), max(width, int(counts_B.max()) if counts_B.numel() else 0))
        ids_BG = ngram_ids.new_full(shape, NGRAM_PAD_ID)
        ids_BG[rows_G, columns_G] = ngram_ids
        bounds_BG2 = ids_BG.new_zeros((*shape, 2))
        bounds_BG2[rows_G, columns_G] = torch.stack([starts_G, ends_G], dim=-1)
        positions_T = torch.arange(int(lengths_B.max()) if lengths_B.numel() else 0, device=device)
        starts_B1G, ends_B1G = bounds_BG2[:, None].unbind(-1)
        covers_BTG = (positions_T[:, None] >= starts_B1G) & (positions_T[:, None] < ends_B1G)
        frequencies_BG = None
        if ngram_frequencies is not None:
            frequencies_BG = ngram_frequencies.new_zeros(shape, dtype=torch.float32)
            frequencies_BG[rows_G, columns_G] = ngram_frequencies.float()
        return {
            "input_ngram_ids": ids_BG,
            "ngram_position_matrix": self.weigh_ngrams(covers_BTG.float(), frequencies_BG),
            "ngram_attention_mask": (ids_BG != NGRAM_PAD_ID).long(),
        }

    def match_ngrams(
        self, tokenizer: Any, input_ids: Tensor, attention_mask: Tensor
    ) -> dict[str, Tensor]:
        """Return the n-gram arguments of `forward` for padded rows.

        Args:
            tokenizer: A `ZenTokenizer`; its lexicon is the model's.
            input_ids: Ids, [B, T], padding on the right.
            attention_mask: 1 on tokens, 0 on padding, [B, T].

        Raises:
            DataError: The tokenizer has no lexicon.
            ConfigError: The lexicon has more n-grams than the model.
        """
        if not hasattr(tokenizer, "lexicon"):
            raise DataError(
                f"{type(tokenizer).__name__} has no n-gram lexicon; {self.config.model_type} needs "
                "a ZenTokenizer: ngram.txt beside vocab.txt"
            )
        lexicon: NgramLexicon = tokenizer.lexicon(self.config.model_type)
        lexicon.check_fits(self.config.word_size)
        is_token_BT = attention_mask.bool().cpu()
        lengths_B = is_token_BT.sum(-1)
        found = lexicon.find(
            input_ids.cpu()[is_token_BT].numpy(),
            lengths_B.numpy(),
            limit=NgramLimit(max_tokens=self.config.max_position_embeddings),
        )
        ngrams: dict[str, Any] = {
            name: torch.from_numpy(array) for name, array in found.arguments.items()
        }
        padded = self.pad_ngrams(lengths=lengths_B, **ngrams)
        return {name: tensor.to(input_ids.device) for name, tensor in padded.items()}

    def check_ngram_ids(self, ids: Tensor) -> None:
        """Refuse n-grams that the model has no row for.

        Raises:
            DataError: Names the id and the size of the table.
        """
        if not ids.numel():
            return
        lowest, highest = (int(value) for value in torch.aminmax(ids))
        if lowest < 0 or highest >= self.config.word_size:
            wrong = lowest if lowest < 0 else highest
            raise DataError(
                f"n-gram id {wrong}: the model has word_size = {self.config.word_size}, ids from 0 "
                f"to {self.config.word_size - 1}; take the lexicon that it was trained with"
            )


def normalise_weights(covers_BTG: Tensor, frequencies_BG: Tensor) -> Tensor:
    """Return each n-gram's share of the frequencies of all that cover a token, [B, T, G].

    Args:
        covers_BTG: 1 where an n-gram covers a token, else 0.
        frequencies_BG: How often each n-gram is in the lexicon's corpus.
    """
    weights_BTG = covers_BTG * frequencies_BG[:, None].to(covers_BTG.dtype)
    return weights_BTG / (weights_BTG.sum(-1, keepdim=True) + _TINY)


class ZenModel(ZenPreTrainedModel):
    """ZEN without a head."""

    def __init__(self, config: ZenConfig, *, has_legacy_masks: bool = False) -> None:
        """Build it.

        Args:
            config: Sizes.
            has_legacy_masks: Mask as the original's heads did; see the config's legacy fields.
        """
        super().__init__(config)
        self.has_legacy_masks = has_legacy_masks
        self.embeddings = Embeddings(
            config,
            config.vocab_size,
            pad_id=config.pad_token_id,
            has_positions=not config.has_relative_positions,
        )
        self.word_embeddings = Embeddings(
            config, config.word_size, pad_id=NGRAM_PAD_ID, has_positions=False
        )
        self.encoder = Encoder(config)
        self.pooler = Pooler(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding of tokens."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the embedding of tokens."""
        self.embeddings.word_embeddings = value

    def legacy_masks(
        self, attention_mask: Tensor | None, ngrams: dict[str, Tensor | None]
    ) -> Tensor | None:
        """Change `ngrams` in place and return the mask of tokens as the original's heads had it."""
        raise NotImplementedError

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        input_ngram_ids: Tensor | None = None,
        ngram_position_matrix: Tensor | None = None,
        ngram_attention_mask: Tensor | None = None,
        ngram_token_type_ids: Tensor | None = None,
        output_hidden_states: bool = False,
        **_: Any,
    ) -> BaseModelOutputWithPooling:
        """Return the states of padded rows.

        Args:
            input_ids: Ids, [B, T].
            attention_mask: 1 on tokens, 0 on padding, [B, T]; None: there is no padding.
            token_type_ids: [B, T]; None: all 0.
            position_ids: [B, T]; None: 0, 1, 2 …. Without effect in ZEN2.
            input_ngram_ids: N-grams of each row, [B, G]; 0 is padding. None: there are none.
            ngram_position_matrix: What each n-gram gives to each token, [B, T, G].
            ngram_attention_mask: 1 on n-grams, 0 on padding, [B, G]; None: by the ids.
            ngram_token_type_ids: [B, G]; None: all 0.
            output_hidden_states: Whether to return the states before and behind each layer.
            **_: Switches of `transformers` that have no meaning here.

        Raises:
            ConfigError: There is an n-gram argument without the other one, or shapes do not fit.
            DataError: An n-gram id is not in the model's table.
        """
        ngrams = {"mask": ngram_attention_mask, "types": ngram_token_type_ids}
        self._check_ngrams(input_ids, input_ngram_ids, ngram_position_matrix)
        if self.has_legacy_masks:
            ngrams["ids"] = input_ngram_ids
            attention_mask = self.legacy_masks(attention_mask, ngrams)
        hidden_BTH = self.embeddings(input_ids, token_type_ids, position_ids)
        seen_B11T = None if attention_mask is None else attention_mask.bool()[:, None, None]
        states_BGH = seen_B11G = None
        if input_ngram_ids is not None:
            mask_BG = input_ngram_ids != NGRAM_PAD_ID if ngrams["mask"] is None else ngrams["mask"]
            states_BGH = self.word_embeddings(input_ngram_ids, ngrams["types"])
            seen_B11G = mask_BG.bool()[:, None, None]
        every = [hidden_BTH]
        for number, layer in enumerate(self.encoder.layer):
            hidden_BTH = layer(hidden_BTH, seen_B11T)
            if states_BGH is not None:
                assert ngram_position_matrix is not None
                if number < len(self.encoder.word_layers):
                    states_BGH = self.encoder.word_layers[number](states_BGH, seen_B11G)
                hidden_BTH = hidden_BTH + ngram_position_matrix.to(states_BGH.dtype) @ states_BGH
            every.append(hidden_BTH)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_BTH,
            pooler_output=self.pooler(hidden_BTH),
            hidden_states=tuple(every) if output_hidden_states else None,
        )

    def _check_ngrams(
        self, ids_BT: Tensor, ngram_ids_BG: Tensor | None, matrix_BTG: Tensor | None
    ) -> None:
        if ngram_ids_BG is None and matrix_BTG is None:
            return
        if ngram_ids_BG is None or matrix_BTG is None:
            raise ConfigError(
                "n-grams need both input_ngram_ids [B, G] and ngram_position_matrix [B, T, G]"
            )
        expected = (*ids_BT.shape, ngram_ids_BG.shape[-1])
        if tuple(matrix_BTG.shape) != expected or len(ngram_ids_BG) != len(ids_BT):
            raise ConfigError(
                f"ngram_position_matrix {list(matrix_BTG.shape)} does not fit input_ids "
                f"{list(ids_BT.shape)} and input_ngram_ids {list(ngram_ids_BG.shape)}"
            )
        if ngram_ids_BG.device.type == "cpu":  # elsewhere looking would wait for the device
            self.check_ngram_ids(ngram_ids_BG)
