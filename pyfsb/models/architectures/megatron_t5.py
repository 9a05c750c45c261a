# SPDX-License-Identifier: Apache-2.0
"""MegatronT5: an encoder-decoder with learned absolute positions and biases everywhere.

Found by `pyfsb.models.architectures`. Differs from T5: one table of positions for both sides,
LayerNorm with bias and mean, scaled scores, no gating, no rescaling before the vocabulary head.
Never reads a file.

Shapes: B rows, T tokens of a row, V vocabulary.

Source: IDEA-CCNL/Fengshenbang-LM c8fb7b8, fengshen/models/megatron_t5 (facts and formats).
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput, Seq2SeqModelOutput
from transformers.utils import can_return_tuple

from pyfsb.config import Family
from pyfsb.models.architectures.megatron_t5_stacks import (
    MegatronT5Config,
    MegatronT5Decoder,
    MegatronT5Embeddings,
    MegatronT5Encoder,
    check_config,
)
from pyfsb.models.architectures.protocol import Architecture
from pyfsb.models.key_maps import KeyMap

_IGNORED: Final = -100
"""Label without a loss."""


class MegatronT5PreTrainedModel(PreTrainedModel):
    """What the classes share."""

    config_class = MegatronT5Config
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["MegatronT5Layer"]
    _supports_sdpa = True
    _supports_flash_attn = True


class MegatronT5Model(MegatronT5PreTrainedModel):
    """Encoder and decoder without a head."""

    _tied_weights_keys = {
        rf"{side}.embeddings.{table}.weight": f"shared.{table}.weight"
        for side in ("encoder", "decoder")
        for table in ("word_embeddings", "position_embeddings")
    }

    def __init__(self, config: MegatronT5Config) -> None:
        """Build both sides around one table of embeddings.

        Raises:
            ValueError: The config fits no module.
        """
        check_config(config)
        super().__init__(config)
        self.shared = MegatronT5Embeddings(config)
        self.encoder = MegatronT5Encoder(config, self.shared, is_decoder=False)
        self.decoder = MegatronT5Decoder(config, self.shared, is_decoder=True)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the table of words."""
        return self.shared.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the table of words on both sides."""
        self.shared.word_embeddings = value

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor, ...] | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> Seq2SeqModelOutput:
        """Return the states of the answer; arguments as in transformers' encoder-decoders."""
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                output_hidden_states=output_hidden_states,
            )
        answer = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoder_outputs[0],
            encoder_attention_mask=attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=answer.last_hidden_state,
            past_key_values=answer.past_key_values,
            decoder_hidden_states=answer.hidden_states,
            encoder_last_hidden_state=encoder_outputs[0],
            encoder_hidden_states=getattr(encoder_outputs, "hidden_states", None),
        )


class MegatronT5ForConditionalGeneration(MegatronT5PreTrainedModel, GenerationMixin):
    """Encoder and decoder with a vocabulary head that is tied to the words and has a bias."""

    _tied_weights_keys = {"lm_head.weight": "model.shared.word_embeddings.weight"}

    def __init__(self, config: MegatronT5Config) -> None:
        """Build the model and its head.

        Raises:
            ValueError: The config fits no module.
        """
        super().__init__(config)
        self.model = MegatronT5Model(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the table of words."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the table of words on both sides."""
        self.model.set_input_embeddings(value)

    def lm_logits(self, hidden: Tensor) -> Tensor:
        """Return logits over the vocabulary of decoder states, [..., V]."""
        return self.lm_head(hidden)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Return labels moved one to the right behind the start token, [B, T].

        Raises:
            ValueError: The config has no start or pad token.
        """
        start, pad = self.config.decoder_start_token_id, self.config.pad_token_id
        if start is None or pad is None:
            raise ValueError("the config needs decoder_start_token_id and pad_token_id")
        shifted_BT = functional.pad(labels[:, :-1], (1, 0), value=start)
        return shifted_BT.masked_fill(shifted_BT == _IGNORED, pad)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor, ...] | None = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> Seq2SeqLMOutput:
        """Return logits [B, T, V], with labels (-100: none) also their mean cross entropy."""
        if decoder_input_ids is None and labels is not None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits_BTV = self.lm_logits(output.last_hidden_state)
        loss = None
        if labels is not None:
            loss = functional.cross_entropy(
                logits_BTV.flatten(0, 1), labels.flatten(), ignore_index=_IGNORED
            )
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits_BTV,
            past_key_values=output.past_key_values,
            decoder_hidden_states=output.decoder_hidden_states,
            encoder_last_hidden_state=output.encoder_last_hidden_state,
            encoder_hidden_states=output.encoder_hidden_states,
        )


ARCHITECTURE: Final = Architecture(
    config=MegatronT5Config,
    base=MegatronT5Model,
    classes={Family.REWRITE: MegatronT5ForConditionalGeneration},
    key_map=KeyMap(
        rules=(
            (r"^(shared|encoder|decoder)\.", r"model.\1."),
            (r"^lm_head_bias$", "lm_head.bias"),
            (r"\.block\.", ".layers."),
            (r"\.final_layer_norm\.", ".final_norm."),
            (r"\.T5LayerSelfAttention\.SelfAttention\.", ".self_attention."),
            (r"\.T5LayerSelfAttention\.layer_norm\.", ".self_attention_norm."),
            (r"\.T5LayerCrossAttention\.EncDecAttention\.", ".cross_attention."),
            (r"\.T5LayerCrossAttention\.layer_norm\.", ".cross_attention_norm."),
            (r"\.T5LayerFF\.DenseReluDense\.", ".feed_forward."),
            (r"\.T5LayerFF\.layer_norm\.", ".feed_forward_norm."),
        ),
        dropped=(
            r"shared\.position_ids",  # a constant
            r"(encoder|decoder)\.embed_tokens\..*",  # the shared table under other names
            r"lm_head\.weight",  # the words once more
        ),
    ),
)
