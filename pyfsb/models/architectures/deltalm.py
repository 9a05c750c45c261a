# SPDX-License-Identifier: Apache-2.0
"""DeltaLM: BART whose decoder layers have a second feed-forward part behind self-attention.

Found by `pyfsb.models.architectures`. All but that part, and a norm that may end the encoder, is
BART of transformers. Never reads a file.

Shapes: B rows, T tokens of a row, S tokens of the other side, H hidden, V vocabulary.

Source: IDEA-CCNL/Fengshenbang-LM c8fb7b8, fengshen/models/deltalm (facts and formats); DeltaLM (Ma
et al. 2021), section 3.2 for the interleaved decoder. The original's config names a label smoothing
that its forward does not apply; neither does ours.
"""

from __future__ import annotations

from typing import Any, Final

from torch import Tensor, nn
from torch.nn import functional
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.bart.configuration_bart import BartConfig
from transformers.models.bart.modeling_bart import (
    BartDecoder,
    BartDecoderLayer,
    BartEncoder,
    BartForConditionalGeneration,
    BartModel,
)

from pyfsb.config import Family
from pyfsb.models.architectures.protocol import Architecture
from pyfsb.models.key_maps import KeyMap


class DeltaLMConfig(BartConfig):
    """Shape of a DeltaLM; field names are BART's, defaults those of Randeng-DeltaLM-362M.

    A width of 768 is derived from 362 M parameters and 12 heads; the original's default of 1024 is
    not divisible by its 12 heads.
    """

    model_type = "deltalm"

    vocab_size: int = 250001
    d_model: int = 768
    encoder_layers: int = 12
    encoder_ffn_dim: int = 3072
    encoder_attention_heads: int = 12
    decoder_layers: int = 6
    decoder_ffn_dim: int = 3072
    decoder_attention_heads: int = 12
    decoder_start_token_id: int | None = 0
    encoder_normalize_before: bool = False
    """True: a norm stands behind the last layer of the encoder; the layers are post-LN anyway."""

    def __post_init__(self, **kwargs: Any) -> None:
        """Leave out the published field without an effect."""
        kwargs.pop("label_smoothing", None)
        super().__post_init__(**kwargs)


class DeltaLMEncoder(BartEncoder):
    """BART's encoder, with a last norm where the config asks for it."""

    def __init__(self, config: DeltaLMConfig) -> None:
        """Build it."""
        super().__init__(config)
        self.layer_norm = nn.LayerNorm(config.d_model) if config.encoder_normalize_before else None
        self.post_init()

    def forward(self, *inputs: Any, return_dict: bool = True, **more: Any) -> BaseModelOutput:
        """Return the states of a text; arguments are BART's."""
        output = super().forward(*inputs, return_dict=True, **more)
        if self.layer_norm is not None:
            output["last_hidden_state"] = self.layer_norm(output.last_hidden_state)
            if output.hidden_states is not None:
                output["hidden_states"] = (*output.hidden_states[:-1], output.last_hidden_state)
        return output if return_dict else output.to_tuple()


class DeltaLMDecoderLayer(BartDecoderLayer):
    """Self-attention, feed-forward, attention to the encoder, feed-forward; each post-LN."""

    def __init__(self, config: DeltaLMConfig, layer_idx: int) -> None:
        """Build one layer."""
        super().__init__(config, layer_idx=layer_idx)
        self.fc3 = nn.Linear(config.d_model, config.decoder_ffn_dim)
        self.fc4 = nn.Linear(config.decoder_ffn_dim, config.d_model)
        self.ffn_layer_norm = nn.LayerNorm(config.d_model)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = True,
        **kwargs: Any,
    ) -> Tensor:
        """Return the states after this layer, [B, T, H]; arguments are BART's."""
        del use_cache  # the cache that is given is filled
        attended_BTH, _ = self.self_attn(
            hidden_states, past_key_values=past_key_values, attention_mask=attention_mask, **kwargs
        )
        hidden_BTH = self.self_attn_layer_norm(hidden_states + self._drop(attended_BTH))
        fed_BTH = self._feed(hidden_BTH, self.fc3, self.fc4)
        hidden_BTH = self.ffn_layer_norm(hidden_BTH + fed_BTH)
        if encoder_hidden_states is not None:
            attended_BTH, _ = self.encoder_attn(
                hidden_BTH,
                key_value_states=encoder_hidden_states,
                attention_mask=encoder_attention_mask,
                past_key_values=past_key_values,
                **kwargs,
            )
            hidden_BTH = self.encoder_attn_layer_norm(hidden_BTH + self._drop(attended_BTH))
        fed_BTH = self._feed(hidden_BTH, self.fc1, self.fc2)
        return self.final_layer_norm(hidden_BTH + fed_BTH)

    def _feed(self, hidden_BTH: Tensor, up: nn.Linear, down: nn.Linear) -> Tensor:
        inner = self.activation_fn(up(hidden_BTH))
        inner = functional.dropout(inner, self.activation_dropout, self.training)
        return self._drop(down(inner))

    def _drop(self, hidden_BTH: Tensor) -> Tensor:
        return functional.dropout(hidden_BTH, self.dropout, self.training)


class DeltaLMDecoder(BartDecoder):
    """BART's decoder with interleaved layers."""

    def __init__(self, config: DeltaLMConfig) -> None:
        """Build it."""
        super().__init__(config)
        self.layers = nn.ModuleList(
            DeltaLMDecoderLayer(config, layer_idx=number) for number in range(config.decoder_layers)
        )
        self.post_init()


class DeltaLMModel(BartModel):
    """Encoder and decoder without a head."""

    config_class = DeltaLMConfig

    def __init__(self, config: DeltaLMConfig) -> None:
        """Build both sides."""
        super().__init__(config)
        self.encoder = DeltaLMEncoder(config)
        self.decoder = DeltaLMDecoder(config)
        self.post_init()


class DeltaLMForConditionalGeneration(BartForConditionalGeneration):
    """Encoder and decoder with a vocabulary head that is tied to the words."""

    config_class = DeltaLMConfig

    def __init__(self, config: DeltaLMConfig) -> None:
        """Build the model and its head."""
        super().__init__(config)
        self.model = DeltaLMModel(config)
        self.post_init()

    def lm_logits(self, hidden: Tensor) -> Tensor:
        """Return logits over the vocabulary of decoder states, [..., V]."""
        return self.lm_head(hidden) + self.final_logits_bias[0]


ARCHITECTURE: Final = Architecture(
    config=DeltaLMConfig,
    base=DeltaLMModel,
    classes={Family.REWRITE: DeltaLMForConditionalGeneration},
    key_map=KeyMap(
        dropped=(r"model\.(encoder|decoder)\.embed_tokens\.weight", r"lm_head\.weight"),
    ),
)
