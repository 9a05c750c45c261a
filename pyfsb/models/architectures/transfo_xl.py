# SPDX-License-Identifier: Apache-2.0
"""Transformer-XL denoiser: GPT-2 blocks with relative attention and a recurrent memory.

Found by `pyfsb.models.architectures`. The memory is a cache of transformers, so `generate` works;
keys and values are kept, which are a function of the states that the original keeps. Never reads a
file.

Shapes: B rows, T tokens of a row, K keys (memory, then the row), H hidden, V vocabulary.

Source: IDEA-CCNL/Fengshenbang-LM c8fb7b8, fengshen/models/transfo_xl_denoise (facts and formats).
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from pyfsb.config import Family
from pyfsb.models.architectures.protocol import Architecture
from pyfsb.models.architectures.transfo_xl_layers import (
    ResidualLinear,
    TransfoXLDenoiseConfig,
    TransfoXLLayer,
    check_config,
    distance_code,
)
from pyfsb.models.key_maps import KeyMap

_IGNORED: Final = -100
"""Label without a loss."""


class TransfoXLDenoisePreTrainedModel(PreTrainedModel):
    """What the classes share."""

    config_class = TransfoXLDenoiseConfig
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _no_split_modules = ["TransfoXLLayer"]
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ResidualLinear):
            # Two branches a layer are summed up: scaled by their number, as in GPT-2. Asked of the
            # projection itself: transformers passes over foreign modules without own weights.
            num_branches = 2 * self.config.num_hidden_layers
            init.normal_(module.weight, std=self.config.initializer_range / math.sqrt(num_branches))
        elif isinstance(module, TransfoXLDenoiseModel) and module.r_w_bias is not None:
            init.zeros_(module.r_w_bias)
            init.zeros_(module.r_r_bias)


class TransfoXLDenoiseModel(TransfoXLDenoisePreTrainedModel):
    """The stack without a head."""

    def __init__(self, config: TransfoXLDenoiseConfig) -> None:
        """Build the stack.

        Raises:
            ValueError: The config fits no module.
        """
        check_config(config)
        super().__init__(config)
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width)
        biases: tuple[nn.Parameter | None, ...] = (None, None)
        self.position_embeddings: nn.Embedding | None = None
        if config.relative_encoding:
            shape = (config.num_attention_heads, width // config.num_attention_heads)
            biases = (nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape)))
        else:
            self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.r_w_bias, self.r_r_bias = biases
        self.layers = nn.ModuleList(
            TransfoXLLayer(config, layer=number) for number in range(config.num_hidden_layers)
        )
        self.final_layernorm = nn.LayerNorm(width, config.layer_norm_eps)
        self._dropout = nn.Dropout(config.embedding_dropout_prob)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the table of words."""
        return self.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the table of words."""
        self.word_embeddings = value

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutputWithPast:
        """Return the states of a text, [B, T, H].

        Args:
            input_ids: Ids, [B, T]; after a cache only the new ones.
            attention_mask: 1 on tokens, [B, T] or with those of the memory in front; or what each
                token sees, [B or 1, 1, T, at least K], used as it is.
            position_ids: Only without relative encoding; None: go on from the cache.
            past_key_values: The memory; grows up to `max_memory_length`.
            use_cache: Make one if there is none; None: only outside of training.
            output_hidden_states: Return the states of all layers too.

        Raises:
            ValueError: The text is longer than the absolute positions.
        """
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        hidden_BTH = self._embed(input_ids, position_ids, past_key_values)
        length = input_ids.shape[1]
        num_keys = length
        if past_key_values is not None:
            num_keys = past_key_values.get_mask_sizes(length, 0)[0]
        code_KH = None
        if self.position_embeddings is None:
            code_KH = distance_code(num_keys, self.config.hidden_size, hidden_BTH.device)
            code_KH = self._dropout(code_KH.to(hidden_BTH.dtype))
        hidden_B1TK = ~self._seen(length, num_keys, attention_mask)
        states = [hidden_BTH]
        for layer in self.layers:
            hidden_BTH = layer(
                hidden_BTH,
                hidden_B1TK,
                code_KH,
                self.r_w_bias,
                self.r_r_bias,
                past_key_values=past_key_values,
            )
            states.append(hidden_BTH)
        states[-1] = self.final_layernorm(hidden_BTH)
        return BaseModelOutputWithPast(
            last_hidden_state=states[-1],
            past_key_values=past_key_values,
            hidden_states=tuple(states) if output_hidden_states else None,
        )

    def _embed(self, ids_BT: Tensor, positions_BT: Tensor | None, cache: Cache | None) -> Tensor:
        hidden_BTH = self.word_embeddings(ids_BT)
        if self.position_embeddings is not None:
            if positions_BT is None:
                past = int(cache.get_seq_length()) if cache is not None else 0
                last = past + ids_BT.shape[1]
                if last > self.position_embeddings.num_embeddings:
                    raise ValueError(
                        f"{last} tokens are longer than the model's "
                        f"{self.position_embeddings.num_embeddings} positions"
                    )
                positions_BT = torch.arange(past, last, device=ids_BT.device)[None]
            hidden_BTH = hidden_BTH + self.position_embeddings(positions_BT)
        return self._dropout(hidden_BTH)

    def _seen(self, length: int, num_keys: int, mask: Tensor | None) -> Tensor:
        """Return what each token sees, [B or 1, 1, T, K]."""
        if mask is not None and mask.dim() == 4:
            return mask[..., -num_keys:].bool()
        keys_K = torch.arange(num_keys, device=self.device)
        distance_TK = keys_K[num_keys - length :, None] - keys_K
        is_band = self.config.legacy_segment_band and length > 1
        window = length if is_band else self.config.sliding_window
        seen = ((distance_TK >= 0) & (distance_TK < window))[None, None]
        if mask is None:
            return seen
        # A mask of the new tokens alone says nothing of the memory: all of it is seen.
        mask_BK = functional.pad(mask, (max(0, num_keys - mask.shape[1]), 0), value=1)
        return seen & mask_BK[:, None, None, -num_keys:].bool()


class TransfoXLDenoiseForCausalLM(TransfoXLDenoisePreTrainedModel, GenerationMixin):
    """The stack with a vocabulary head that is tied to the words."""

    _tied_weights_keys = {"lm_head.weight": "transformer.word_embeddings.weight"}

    def __init__(self, config: TransfoXLDenoiseConfig) -> None:
        """Build the stack and its head.

        Raises:
            ValueError: The config fits no module.
        """
        super().__init__(config)
        self.transformer = TransfoXLDenoiseModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def lm_logits(self, hidden: Tensor) -> Tensor:
        """Return logits over the vocabulary of states, [..., V]."""
        return self.lm_head(hidden)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int = 0,
    ) -> CausalLMOutputWithPast:
        """Return logits [B, T, V], with labels (-100: none) also the loss of the next tokens.

        The last `logits_to_keep` positions only, if that is not 0; the rest as of the stack.
        """
        output = self.transformer(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits_BTV = self.lm_logits(output.last_hidden_state[:, -logits_to_keep:])
        loss = None
        if labels is not None:
            loss = functional.cross_entropy(
                logits_BTV[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_IGNORED
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits_BTV,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
        )


ARCHITECTURE: Final = Architecture(
    config=TransfoXLDenoiseConfig,
    base=TransfoXLDenoiseModel,
    classes={Family.GENERATE: TransfoXLDenoiseForCausalLM},
    key_map=KeyMap(
        rules=((r"^word_embeddings\.", "transformer.word_embeddings."),),
        dropped=(
            r"transformer\.position_embeddings\.inv_freq",  # a constant
            r"lm_head\.weight",  # the words once more
        ),
    ),
)
