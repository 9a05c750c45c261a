# SPDX-License-Identifier: Apache-2.0
"""Taiyi-CLIP: BERT for texts and CLIP's vision transformer for images, in one space.

Shapes: B texts, I images, T tokens of a text, H hidden, D width of the space.

A text's vector is BERT's pooler output (dense layer and tanh on [CLS]) through one linear map, as
in both published trainings: the released towers (`BertForSequenceClassification`, whose classifier
is the map, with a bias) and the later training script (no bias). `get_text_features` and `forward`
are one function here; the published module's `get_text_features` leaves the pooler out, which
`legacy_unpooled_text_features` brings back.

Found by `pyfsb.models.architectures`; `pyfsb.models.contrastive_loss` trains it. Never reads a
file. The state dict has the published names.

Source: fengshen/models/clip and fengshen/examples/pretrain_taiyi_clip of Fengshenbang-LM c8fb7b8.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel, CLIPVisionConfig, CLIPVisionModel
from transformers import initialization as init
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import PreTrainedModel
from transformers.models.clip.modeling_clip import CLIPOutput
from transformers.utils import can_return_tuple

from pyfsb.config import Family
from pyfsb.models.architectures.protocol import Architecture
from pyfsb.models.key_maps import KeyMap

LOGIT_SCALE: Final = 2.6592
"""First logarithm of the factor of similarities: ln(1 / 0.07). Source: Radford et al. 2021."""


class TaiyiClipConfig(PreTrainedConfig):
    """Shape of both towers and of their space."""

    model_type = "taiyi-clip"
    sub_configs_defaults = {"text_config": BertConfig, "vision_config": CLIPVisionConfig}

    text_config: dict[str, Any] | BertConfig | None = None
    """Fields of a BERT; None takes its defaults."""
    vision_config: dict[str, Any] | CLIPVisionConfig | None = None
    """Fields of a CLIP vision tower; None takes its defaults."""
    projection_dim: int = 512
    """Width of the space."""
    logit_scale_init_value: float = LOGIT_SCALE
    """First logarithm of the factor of similarities."""
    initializer_range: float = 0.02
    """Standard deviation of new weights that have no rule of their own."""
    text_projection_bias: bool = False
    """Whether the texts' map has a bias: True in the released towers, whose map is the classifier
    of a `BertForSequenceClassification`."""
    legacy_unpooled_text_features: bool = False
    """`get_text_features` maps [CLS] itself, as the published module does, while `forward` maps the
    pooler's output."""


class TaiyiClipModel(PreTrainedModel):
    """Both towers with their maps into one space."""

    config_class = TaiyiClipConfig
    base_model_prefix = "text_model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["BertEmbeddings", "BertLayer", "CLIPVisionEmbeddings", "CLIPEncoderLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: TaiyiClipConfig) -> None:
        """Build both."""
        super().__init__(config)
        text, vision = config.text_config, config.vision_config
        assert isinstance(text, BertConfig)
        assert isinstance(vision, CLIPVisionConfig)
        self.text_model = BertModel(text)
        self.vision_model = CLIPVisionModel(vision)
        self.visual_projection = nn.Linear(vision.hidden_size, config.projection_dim, bias=False)
        self.text_projection = nn.Linear(
            text.hidden_size, config.projection_dim, bias=config.text_projection_bias
        )
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Draw new weights; the maps as CLIP does."""
        if module is self:
            init.constant_(self.logit_scale, float(self.config.logit_scale_init_value))
        elif module is self.text_projection or module is self.visual_projection:
            assert isinstance(module, nn.Linear)
            init.normal_(module.weight, mean=0.0, std=module.in_features**-0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    def get_input_embeddings(self) -> nn.Module:
        """Return the table of words."""
        words: nn.Module = self.text_model.get_input_embeddings()
        return words

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the table of words."""
        self.text_model.set_input_embeddings(value)

    def get_text_features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Return the vectors of texts, of any length, [B, D]; arguments are [B, T]."""
        states = self._read_texts(input_ids, attention_mask, token_type_ids, position_ids)
        pooled_BH = states.pooler_output
        if self.config.legacy_unpooled_text_features:
            pooled_BH = states.last_hidden_state[:, 0]
        features_BD: Tensor = self.text_projection(pooled_BH)
        return features_BD

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """Return the vectors of images, of any length, [I, D]; pixels are [I, 3, S, S]."""
        states = self.vision_model(pixel_values=pixel_values)
        features_ID: Tensor = self.visual_projection(states.pooler_output)
        return features_ID

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        return_loss: bool | None = None,
    ) -> CLIPOutput:
        """Return the similarity of every text to every image.

        Args:
            input_ids: Texts, [B, T].
            pixel_values: Images, [I, 3, S, S].
            attention_mask: 1 on tokens, [B, T]; None takes all.
            token_type_ids: Types, [B, T]; None is all 0.
            position_ids: Positions, [B, T]; None counts from 0.
            return_loss: Also return the mean of both directions' cross entropies; text i belongs
                to image i.
        """
        texts = self._read_texts(input_ids, attention_mask, token_type_ids, position_ids)
        images = self.vision_model(pixel_values=pixel_values)
        text_BD = functional.normalize(self.text_projection(texts.pooler_output), dim=-1)
        image_ID = functional.normalize(self.visual_projection(images.pooler_output), dim=-1)
        logits_BI = text_BD @ image_ID.T * self.logit_scale.exp()
        loss = None
        if return_loss:
            labels_B = torch.arange(logits_BI.shape[0], device=logits_BI.device)
            both = (functional.cross_entropy(part, labels_B) for part in (logits_BI, logits_BI.T))
            loss = sum(both, start=logits_BI.new_zeros(())) / 2
        return CLIPOutput(
            loss=loss,
            logits_per_image=logits_BI.T,
            logits_per_text=logits_BI,
            text_embeds=text_BD,
            image_embeds=image_ID,
            text_model_output=texts,
            vision_model_output=images,
        )

    def _read_texts(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
    ) -> BaseModelOutputWithPooling:
        states: BaseModelOutputWithPooling = self.text_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
        )
        return states


ARCHITECTURE: Final = Architecture(
    config=TaiyiClipConfig,
    base=TaiyiClipModel,
    classes={Family.IMAGE_TEXT: TaiyiClipModel, Family.EMBED: TaiyiClipModel},
    key_map=KeyMap(dropped=(r"(text|vision)_model\.embeddings\.position_ids",)),
)
