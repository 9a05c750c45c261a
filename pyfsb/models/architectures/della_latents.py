# SPDX-License-Identifier: Apache-2.0
"""The latents of DELLA: its config, what pools them, joins them and measures them.

Used by `pyfsb.models.architectures.della`, which joins them to a model. Never reads a file.

Shapes: B rows, T tokens of a row, H hidden, L layers, D latent width.

Source: IDEA-CCNL/Fengshenbang-LM c8fb7b8, fengshen/models/deepVAE (facts and formats).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.models.gpt2.configuration_gpt2 import GPT2Config


class DellaConfig(GPT2Config):
    """Shape of a DELLA; field names are GPT-2's."""

    model_type = "della"
    attribute_map = {**GPT2Config.attribute_map, "CVAE": "is_conditional"}

    pad_token_id: int | None = 0
    bos_token_id: int | None = 21128
    eos_token_id: int | list[int] | None = 21129
    latent_dim: int = 256
    is_conditional: bool = False
    """True: prior and posterior also see a condition, which stands before the text."""
    legacy_skips_first_token: bool = False
    """True: the first token behind a condition has no loss, as in the original."""


@dataclass
class Latents:
    """What the encoder makes of a text."""

    posterior_BLD: Tensor
    """Latents that know the text."""
    prior_BLD: Tensor
    """Latents that know only the condition, if there is one, and the layers below."""
    posterior: tuple[Tensor, ...]
    """Mean and log-variance of the posterior of each layer, [B, 2 D]."""
    prior: tuple[Tensor, ...]
    """The same of the prior."""
    hidden_states: tuple[Tensor, ...]
    """States of the encoder: embeddings, then each layer."""

    def divergences(self) -> tuple[Tensor, ...]:
        """Return the Kullback-Leibler divergence of posterior from prior of each layer, [B].

        Source: the closed form for diagonal Gaussians.
        """
        result = []
        for posterior, prior in zip(self.posterior, self.prior, strict=True):
            (mean, log_var), (prior_mean, prior_log_var) = (
                posterior.chunk(2, -1),
                prior.chunk(2, -1),
            )
            ratio = log_var - prior_log_var
            distance = (mean - prior_mean).square() / prior_log_var.exp()
            result.append(0.5 * (ratio.exp() + distance - 1 - ratio).sum(-1))
        return tuple(result)


class AttentionPool(nn.Module):
    """Mean of states, weighted by a learned direction."""

    def __init__(self, width: int) -> None:
        """Build the direction."""
        super().__init__()
        self.attention_weights = nn.Parameter(torch.zeros(width))

    def forward(self, states_BTH: Tensor, mask_BT: Tensor | None) -> Tensor:
        """Return one state a row, [B, H]; the mask is 1 on tokens."""
        scores_BT = (states_BTH @ self.attention_weights).tanh()
        if mask_BT is not None:
            scores_BT = scores_BT.masked_fill(mask_BT == 0, torch.finfo(scores_BT.dtype).min)
        return torch.einsum("bt,bth->bh", scores_BT.softmax(-1), states_BTH)


class LatentStep(nn.Module):
    """From the latents below a layer to what the next layer knows of them."""

    def __init__(self, width: int) -> None:
        """Build both matrices."""
        super().__init__()
        self.W_hh = nn.Linear(width, width, bias=False)
        self.W_ih = nn.Linear(width, width, bias=False)

    def forward(self, below_BD: Tensor, latent_BD: Tensor) -> Tensor:
        """Return the next summary, [B, D]."""
        return torch.tanh(self.W_hh(below_BD) + self.W_ih(latent_BD))


def draw(distribution: Tensor, samples: bool) -> Tensor:
    """Return the mean of a Gaussian, or a draw from it, [B, D].

    Args:
        distribution: Mean and log-variance, [B, 2 D].
        samples: True draws.
    """
    mean, log_var = distribution.chunk(2, -1)
    return mean + torch.randn_like(mean) * (0.5 * log_var).exp() if samples else mean
