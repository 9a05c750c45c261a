# SPDX-License-Identifier: Apache-2.0
"""Zhouwenwang-Unified with its heads, `zhouwenwang` to the Auto classes.

One head over the vocabulary fills masks and continues texts. Found by this package. Never computes
attention: that is `zhouwenwang_model`'s.

Shapes: B rows, T tokens of a row, P chosen tokens, H hidden, V vocabulary, L labels.

Source: heads of IDEA-CCNL/Fengshenbang-LM's roformer at c8fb7b8. Types in its use are those of the
published model's notes: all 0 to understand, all 1 to write.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast, MaskedLMOutput, ModelOutput

from pyfsb.config import Family
from pyfsb.models.architectures.bert_heads import (
    LanguageHead,
    LanguageModel,
    TextClassifier,
    TokenClassifier,
    mean_loss,
)
from pyfsb.models.architectures.protocol import Architecture
from pyfsb.models.architectures.zhouwenwang_model import (
    ZhouwenwangConfig,
    ZhouwenwangModel,
    ZhouwenwangPreTrainedModel,
)
from pyfsb.models.key_maps import KeyMap


class ZhouwenwangLanguageModel(ZhouwenwangPreTrainedModel, LanguageModel):
    """What filling masks and continuing texts share; the subclasses differ in types and losses."""

    def __init__(self, config: ZhouwenwangConfig, **base: Any) -> None:
        super().__init__(config)
        self.bert = ZhouwenwangModel(config, add_pooling_layer=False, **base)
        self.cls = LanguageHead(config)
        self.post_init()


class ZhouwenwangForMaskedLM(ZhouwenwangLanguageModel):
    """Zhouwenwang that predicts masked tokens; tokens without types see the whole text."""

    def forward(
        self, input_ids: Tensor, *, labels: Tensor | None = None, **inputs: Any
    ) -> MaskedLMOutput:
        """Return logits at all tokens; with labels (-100: no target) also the mean loss."""
        states = self.bert(input_ids, **inputs)
        logits_BTV = self.lm_logits(states[0])
        return MaskedLMOutput(
            loss=mean_loss(logits_BTV, labels),
            logits=logits_BTV,
            hidden_states=states.hidden_states,
        )


class ZhouwenwangForCausalLM(ZhouwenwangLanguageModel, GenerationMixin):
    """Zhouwenwang that continues texts; tokens without types see only what stands before."""

    def __init__(self, config: ZhouwenwangConfig) -> None:
        super().__init__(config, default_token_type=1)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **inputs: Any,
    ) -> CausalLMOutputWithPast:
        """Return logits of the next token at each token.

        Args:
            input_ids: Ids, [B, T].
            attention_mask: 1 on tokens, 0 on padding, cached ones included.
            token_type_ids: 0 on a prefix that is read both ways, then 1; None: all 1.
            past_key_values: Keys and values of the tokens before these.
            use_cache: Whether to keep keys and values.
            labels: Ids, -100 where nothing is predicted, [B, T]; each is predicted by the token
                before it. With them the mean loss is returned too.
            logits_to_keep: Last tokens that logits are wanted of, or their indices; 0: all.
            **inputs: Further arguments of the model.
        """
        states = self.bert(
            input_ids, attention_mask, token_type_ids,
            past_key_values=past_key_values, use_cache=use_cache, **inputs,
        )  # fmt: skip
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits_BTV = self.lm_logits(states[0][:, kept])
        loss = None if labels is None else mean_loss(logits_BTV[:, :-1], labels[:, 1:])
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits_BTV,
            past_key_values=states.past_key_values,
            hidden_states=states.hidden_states,
        )

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """Continue prompts, as `transformers` does; new tokens have type 1.

        Args:
            inputs: Ids of the prompts, [B, T], padded at the left.
            *args: Further arguments of `transformers`.
            **kwargs: Among them `token_type_ids`; without, all are the config's
                `prompt_token_type`.
        """
        prompts = kwargs.get("input_ids") if inputs is None else inputs
        if prompts is not None and kwargs.get("token_type_ids") is None:
            kwargs["token_type_ids"] = torch.full_like(prompts, self.config.prompt_token_type)
        if self.config.legacy_additive_mask:
            kwargs.setdefault("use_cache", False)
        return super().generate(inputs, *args, **kwargs)

    def _update_model_kwargs_for_generation(
        self,
        outputs: ModelOutput,
        model_kwargs: dict[str, Any],
        is_encoder_decoder: bool = False,
        num_new_tokens: int = 1,
    ) -> dict[str, Any]:
        types_BT = model_kwargs["token_type_ids"]
        model_kwargs = super()._update_model_kwargs_for_generation(
            outputs, model_kwargs, is_encoder_decoder, num_new_tokens
        )
        new_BT = types_BT.new_ones(types_BT.shape[0], num_new_tokens)
        return model_kwargs | {"token_type_ids": torch.cat([types_BT, new_BT], dim=-1)}


class ZhouwenwangForSequenceClassification(ZhouwenwangPreTrainedModel, TextClassifier):
    """Zhouwenwang with a class for each text or pair; token types have no effect."""

    def __init__(self, config: ZhouwenwangConfig) -> None:
        super().__init__(config)
        self.bert = ZhouwenwangModel(config, ignores_token_types=True)
        self.add_classes()


class ZhouwenwangForTokenClassification(ZhouwenwangPreTrainedModel, TokenClassifier):
    """Zhouwenwang with a class for each token; token types have no effect."""

    def __init__(self, config: ZhouwenwangConfig) -> None:
        super().__init__(config)
        self.bert = ZhouwenwangModel(config, add_pooling_layer=False, ignores_token_types=True)
        self.add_classes()


ARCHITECTURE = Architecture(
    config=ZhouwenwangConfig,
    base=ZhouwenwangModel,
    classes={
        Family.FILL_MASK: ZhouwenwangForMaskedLM,
        Family.GENERATE: ZhouwenwangForCausalLM,
        Family.CLASSIFY: ZhouwenwangForSequenceClassification,
        Family.PAIR: ZhouwenwangForSequenceClassification,
        Family.TAG: ZhouwenwangForTokenClassification,
    },
    key_map=KeyMap(
        dropped=(
            r".*embeddings\.position_ids",
            r".*attention\.self\.rope_emb\.div_term",
        )
    ),
)
