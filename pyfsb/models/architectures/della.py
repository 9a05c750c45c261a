# SPDX-License-Identifier: Apache-2.0
"""DELLA: a variational autoencoder on two GPT-2s with one latent vector a layer.

Found by `pyfsb.models.architectures`. The encoder's states of a layer are pooled to a posterior,
the latents of the layers below give a prior, and each decoder layer adds its own latent to all
positions. Never reads a file.

Shapes: B rows, T tokens of a row, C of them in the condition, H hidden, L layers, D latent width,
V vocabulary.

Source: IDEA-CCNL/Fengshenbang-LM c8fb7b8, fengshen/models/deepVAE (facts and formats); DELLA (Hu et
al. 2022), section 3. The original knows no padding; ours leaves it out where a mask is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationMixin
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.models.gpt2.modeling_gpt2 import GPT2Block, GPT2Model, GPT2PreTrainedModel
from transformers.utils import ModelOutput, can_return_tuple

from pyfsb.config import Family
from pyfsb.models.architectures.della_latents import (
    AttentionPool,
    DellaConfig,
    Latents,
    LatentStep,
    draw,
)
from pyfsb.models.architectures.protocol import Architecture
from pyfsb.models.key_maps import KeyMap

_IGNORED: Final = -100
"""Label without a loss."""


@dataclass
class DellaOutput(ModelOutput):
    """Logits and losses; which are there depends on what was asked."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Cache | None = None
    reconstruction_loss: Tensor | None = None
    kl_loss: Tensor | None = None
    layer_kl_loss: tuple[Tensor, ...] | None = None
    latents: Latents | None = None


class DellaBlock(GPT2Block):
    """A layer of GPT-2 that adds its latent to all positions first."""

    def __init__(self, config: DellaConfig, layer_idx: int) -> None:
        """Build one layer."""
        super().__init__(config, layer_idx=layer_idx)
        self.latent = nn.Linear(config.latent_dim, config.hidden_size, bias=False)
        self._layer = layer_idx

    def forward(self, hidden_states: Tensor, *inputs: Any, latents: Tensor, **more: Any) -> Tensor:
        """Return the states after this layer; latents are [B, L, D], the rest is GPT-2's."""
        hidden_states = hidden_states + self.latent(latents[:, self._layer])[:, None]
        return super().forward(hidden_states, *inputs, **more)


class DellaDecoder(GPT2Model):
    """GPT-2 with latents: its forward also takes `latents`, [B, L, D]."""

    def __init__(self, config: DellaConfig) -> None:
        """Build the layers."""
        super().__init__(config)
        self.h = nn.ModuleList(
            DellaBlock(config, layer_idx=number) for number in range(config.num_hidden_layers)
        )
        self.post_init()


class DellaPreTrainedModel(GPT2PreTrainedModel):
    """What the classes share."""

    config_class = DellaConfig
    base_model_prefix = "model"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, AttentionPool):
            init.normal_(module.attention_weights, std=self.config.initializer_range)


class DellaModel(DellaPreTrainedModel):
    """Encoder, latents and decoder, without a head."""

    def __init__(self, config: DellaConfig) -> None:
        """Build all parts."""
        super().__init__(config)
        width, latent, num_layers = config.hidden_size, config.latent_dim, config.num_hidden_layers
        condition = width if config.is_conditional else 0
        self.encoder = GPT2Model(config)
        self.decoder = DellaDecoder(config)
        self.latent_nets = nn.ModuleList(LatentStep(latent) for _ in range(num_layers - 1))
        self.posterior_nets = nn.ModuleList(
            nn.Linear(condition + width + latent, 2 * latent, bias=False) for _ in range(num_layers)
        )
        self.prior_nets = nn.ModuleList(
            nn.Linear(condition + latent, 2 * latent, bias=False) for _ in range(num_layers)
        )
        self.pooling = nn.ModuleList(AttentionPool(width) for _ in range(num_layers))
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the decoder's table of words; the encoder has one of its own."""
        return self.decoder.wte

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the decoder's table of words."""
        self.decoder.wte = value

    def encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        condition_length: int = 0,
        samples: bool = False,
    ) -> Latents:
        """Return the latents of a text.

        Args:
            input_ids: Condition, if any, and text, [B, T].
            attention_mask: 1 on tokens; None: all are.
            condition_length: Tokens of the condition, C; conditional models only.
            samples: True draws the latents, False takes their means.

        Raises:
            ValueError: The model needs a condition, or knows none.
        """
        if bool(condition_length) != self.config.is_conditional:
            raise ValueError(
                f"is_conditional = {self.config.is_conditional}, but the condition has "
                f"{condition_length} tokens"
            )
        states = self.encoder(
            input_ids, attention_mask=attention_mask, output_hidden_states=True, use_cache=False
        ).hidden_states
        below_BD = states[0].new_zeros(len(input_ids), self.config.latent_dim)
        drawn: tuple[list[Tensor], list[Tensor]] = ([], [])
        numbers: tuple[list[Tensor], list[Tensor]] = ([], [])
        for layer, states_BTH in enumerate(states[1:]):
            known = [below_BD]
            if condition_length:
                known.insert(0, self._pool(layer, states_BTH, attention_mask, end=condition_length))
            text_BH = self._pool(layer, states_BTH, attention_mask, start=condition_length)
            posterior = self.posterior_nets[layer](torch.cat([*known[:-1], text_BH, below_BD], -1))
            prior = self.prior_nets[layer](torch.cat(known, -1))
            for place, distribution in enumerate((posterior, prior)):
                numbers[place].append(distribution)
                drawn[place].append(draw(distribution, samples))
            if layer < len(self.latent_nets):
                below_BD = self.latent_nets[layer](below_BD, drawn[0][-1])
        return Latents(
            posterior_BLD=torch.stack(drawn[0], 1),
            prior_BLD=torch.stack(drawn[1], 1),
            posterior=tuple(numbers[0]),
            prior=tuple(numbers[1]),
            hidden_states=states,
        )

    def foresee(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, samples: bool = False
    ) -> Tensor:
        """Return the latents of a text that is yet to be written, [B, L, D].

        Args:
            input_ids: The condition, [B, C]; of other models only its number of rows counts.
            attention_mask: 1 on its tokens; None: all are.
            samples: True draws the latents, False takes their means.
        """
        config = self.config
        states: tuple[Tensor, ...] = ()
        if config.is_conditional:
            states = self.encoder(
                input_ids, attention_mask=attention_mask, output_hidden_states=True, use_cache=False
            ).hidden_states
        below_BD = self.decoder.wte.weight.new_zeros(len(input_ids), config.latent_dim)
        latents = []
        for layer in range(config.num_hidden_layers):
            known = [below_BD]
            if states:
                known.insert(0, self._pool(layer, states[layer + 1], attention_mask))
            latents.append(draw(self.prior_nets[layer](torch.cat(known, -1)), samples))
            if layer < len(self.latent_nets):
                below_BD = self.latent_nets[layer](below_BD, latents[-1])
        return torch.stack(latents, 1)

    def _pool(
        self,
        layer: int,
        states_BTH: Tensor,
        mask: Tensor | None,
        start: int = 0,
        end: int | None = None,
    ) -> Tensor:
        part_BT = None if mask is None else mask[:, start:end]
        return self.pooling[layer](states_BTH[:, start:end], part_BT)

    def forward(self, input_ids: Tensor, latents: Tensor | None = None, **inputs: Any) -> Any:
        """Return the decoder's states and cache; no latents: those that `foresee` expects."""
        if latents is None:
            latents = self.foresee(input_ids, inputs.get("attention_mask"))
        return self.decoder(input_ids, latents=latents, **inputs)


class DellaForCausalLM(DellaPreTrainedModel, GenerationMixin):
    """DELLA with a vocabulary head; trained as an autoencoder, it continues texts from latents."""

    _tied_weights_keys = {"lm_head.weight": "model.decoder.wte.weight"}

    def __init__(self, config: DellaConfig) -> None:
        """Build the model and its head."""
        super().__init__(config)
        self.model = DellaModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def lm_logits(self, hidden: Tensor) -> Tensor:
        """Return logits over the vocabulary of decoder states, [..., V]."""
        return self.lm_head(hidden)

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """Continue prompts (conditions), as `transformers` does; `latents` [B, L, D] may be given.

        `model.encode(text).posterior_BLD` with prompts of the begin token alone writes the text
        again; without latents those that `foresee` expects are taken.
        """
        prompts = kwargs.get("input_ids") if inputs is None else inputs
        if kwargs.get("latents") is None and prompts is not None:
            kwargs["latents"] = self.model.foresee(prompts, kwargs.get("attention_mask"))
        return super().generate(inputs, *args, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        latents: Tensor | None = None,
        labels: Tensor | None = None,
        condition_length: int = 0,
        kl_weight: float = 1.0,
        samples: bool | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
    ) -> DellaOutput:
        """Return logits [B, T, V]; with labels also the losses of the autoencoder.

        Args:
            input_ids: Condition, if any, and text, [B, T].
            attention_mask: 1 on tokens; None: all are.
            latents: [B, L, D]; None: with labels those of the text, else those foreseen.
            labels: The ids again, -100 on padding and condition, [B, T]. The loss of a row is the
                sum over its labels but the first token of the row, divided by their number.
            condition_length: Tokens of the condition, C.
            kl_weight: Of the divergence in the loss.
            samples: Draw latents instead of taking their means; None: in training.
            position_ids: As GPT-2 takes them.
            past_key_values: Keys and values of earlier calls.
            use_cache: Keep them.
        """
        known = None
        if labels is not None and latents is None:
            known = self.model.encode(
                input_ids,
                attention_mask,
                condition_length=condition_length,
                samples=self.training if samples is None else samples,
            )
            latents = known.posterior_BLD
        decoded = self.model(
            input_ids,
            latents=latents,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache if labels is None else False,
        )
        logits_BTV = self.lm_logits(decoded.last_hidden_state)
        losses: dict[str, Any] = {}
        if labels is not None:
            reconstruction = self._reconstruction_loss(logits_BTV, labels, condition_length)
            losses = {"loss": reconstruction, "reconstruction_loss": reconstruction}
            if known is not None:
                losses["layer_kl_loss"] = known.divergences()
                losses["kl_loss"] = torch.stack(losses["layer_kl_loss"]).sum(0).mean()
                losses["loss"] = reconstruction + kl_weight * losses["kl_loss"]
        return DellaOutput(
            logits=logits_BTV, past_key_values=decoded.past_key_values, latents=known, **losses
        )

    def _reconstruction_loss(
        self, logits_BTV: Tensor, labels_BT: Tensor, condition_length: int
    ) -> Tensor:
        losses_BT = functional.cross_entropy(
            logits_BTV[:, :-1].transpose(1, 2), labels_BT[:, 1:], ignore_index=_IGNORED,
            reduction="none",
        )  # fmt: skip
        if self.config.legacy_skips_first_token and condition_length:
            losses_BT = losses_BT[:, condition_length:]
        return (losses_BT.sum(1) / (labels_BT != _IGNORED).sum(1)).mean()


ARCHITECTURE: Final = Architecture(
    config=DellaConfig,
    base=DellaModel,
    classes={Family.GENERATE: DellaForCausalLM},
    key_map=KeyMap(
        rules=(
            (r"^model\.(encoder|decoder)\.transformer\.", r"model.\1."),
            (r"\.linear_emb_layers\.(\d+)\.", r".h.\1.latent."),
        ),
        dropped=(
            r".*\.attn\.(bias|masked_bias)",  # constants
            r"model\.decoder\.lm_head\.weight",  # the words once more
        ),
    ),
)
