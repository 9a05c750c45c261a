# SPDX-License-Identifier: Apache-2.0
"""Losses of images: captions against images (CLIP), and labels.

Shapes: P pairs of this process, W pairs of the fullest process, A pairs of all processes (W for
each, some of them padding), D width of the space, S pixels of a side, L labels.

The tensors' names are those of `collate` in `pyfsb.objectives.{contrastive,image_labels}`. Made by
`pyfsb.models.heads.build_loss` for the families image_text and classify_image. Never moves a tensor
to a device.

The loss is the same whether the vision tower is frozen or not: both directions count. (With a
frozen tower only the texts' direction could do without gathered texts; it would be another loss.)

Source: fengshen/examples/pretrain_taiyi_clip of Fengshenbang-LM c8fb7b8. Summing over pairs, and
other processes' pairs keeping their gradients, are our choice: the sum over processes is then that
of one process with all pairs.
"""

from __future__ import annotations

import math
from typing import Any, Final, Self

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from transformers import PreTrainedModel

from pyfsb.errors import ConfigError
from pyfsb.models import unpadded
from pyfsb.models.document_loss import Layout

MAX_LOGIT_SCALE: Final = math.log(100)
"""Bound of the logarithm of the factor of similarities; the other one is 0."""
_FAR: Final = -1e9
_VISION_PARTS: Final = ("vision_model", "visual_projection")


class ImageLoss(nn.Module):
    """What both losses share."""

    def __init__(
        self,
        model: nn.Module,
        *,
        layout: Layout = "buckets",
        micro_tokens: int | None = None,
        checkpoints_activations: bool = False,
    ) -> None:
        """Wrap a model; the arguments are those of `build_loss`.

        Raises:
            ConfigError: The layout is one without padding.
        """
        super().__init__()
        del micro_tokens
        if layout not in ("buckets", "padded"):
            raise ConfigError(
                f"batch.layout = {layout}: batches of images are padded; expected buckets or padded"
            )
        self.model = model
        self.layout = layout
        if checkpoints_activations:
            self._inner.gradient_checkpointing_enable({"use_reentrant": False})

    @property
    def _inner(self) -> Any:
        return unpadded.unwrap(self.model)

    def train(self, mode: bool = True) -> Self:
        """Set training mode; a frozen vision tower stays as it is asked later, without dropout."""
        super().train(mode)
        tower = getattr(self._inner, "vision_model", None)
        if tower is not None and not any(part.requires_grad for part in tower.parameters()):
            tower.eval()
        return self


class ContrastiveLoss(ImageLoss):
    """Cross entropy of the right image of each caption, and of the right caption of each image."""

    def __init__(
        self,
        model: nn.Module,
        *,
        layout: Layout = "buckets",
        micro_tokens: int | None = None,
        checkpoints_activations: bool = False,
    ) -> None:
        """Wrap a model of two towers; the arguments are those of `build_loss`.

        Raises:
            ConfigError: The layout is one without padding, or there is no vision tower.
        """
        super().__init__(
            model,
            layout=layout,
            micro_tokens=micro_tokens,
            checkpoints_activations=checkpoints_activations,
        )
        _find_vision(self._inner)
        # The model's own, here too: ZeRO-3 brings the weights of the module whose forward runs.
        self.logit_scale = self._inner.logit_scale

    def forward(
        self,
        *,
        input_ids: Tensor,
        attention_mask: Tensor,
        pair_weights: Tensor,
        pixel_values: Tensor | None = None,
        image_vectors: Tensor | None = None,
    ) -> Tensor:
        """Return the sum of the pairs' losses, in nats: the mean of both directions for each.

        All processes must call it the same number of times, forward and backward.

        Args:
            input_ids: Captions, [P, T].
            attention_mask: 1 on tokens, [P, T].
            pair_weights: 1, or 0 for pairs that take no part, [P].
            pixel_values: Images, [P, 3, S, S].
            image_vectors: What a frozen tower computed of them, [P, D], in their place.
        """
        texts_PD = text_vectors(self._inner, input_ids, attention_mask)
        if image_vectors is None:
            assert pixel_values is not None
            image_vectors = image_vectors_of(self._inner, pixel_values)
        texts_PD = functional.normalize(texts_PD.float(), dim=-1)
        images_PD = functional.normalize(image_vectors.float(), dim=-1)
        texts_AD, images_AD, weights_A, first = gather_pairs(texts_PD, images_PD, pair_weights)
        scale = _bounded(self.logit_scale.float()).exp()
        targets_P = first + torch.arange(texts_PD.shape[0], device=texts_PD.device)
        losses_P = _cross_entropies(scale * texts_PD @ images_AD.T, targets_P, weights_A)
        losses_P = losses_P + _cross_entropies(scale * images_PD @ texts_AD.T, targets_P, weights_A)
        return (losses_P * pair_weights).sum() / 2


class ImageClassificationLoss(ImageLoss):
    """Cross entropy of the right label."""

    def forward(self, *, pixel_values: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of the images' losses, in nats.

        Args:
            pixel_values: Images, [P, 3, S, S].
            labels: Their labels, [P].
        """
        logits_PL = self.model(pixel_values=pixel_values).logits
        return functional.cross_entropy(logits_PL.float(), labels, reduction="sum")


def text_vectors(model: Any, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the vectors of texts, of any length, of Taiyi-CLIP and of CLIPs of Transformers."""
    found = model.get_text_features(input_ids=input_ids, attention_mask=attention_mask)
    vectors: Tensor = getattr(found, "pooler_output", found)
    return vectors


def image_vectors_of(model: Any, pixel_values: Tensor) -> Tensor:
    """Return the vectors of images, of any length; what is frozen builds no graph."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and not is_vision_frozen(model)):
        found = model.get_image_features(pixel_values=pixel_values)
    vectors: Tensor = getattr(found, "pooler_output", found)
    return vectors


def freeze_vision(model: PreTrainedModel) -> None:
    """Keep training from the vision tower and from its map into the space.

    Raises:
        ConfigError: The model has no such tower.
    """
    for part in _find_vision(model):
        part.requires_grad_(False)
        part.eval()


def is_vision_frozen(model: Any) -> bool:
    """Say whether neither the vision tower nor its map is trained."""
    parts = _find_vision(model)
    return not any(weight.requires_grad for part in parts for weight in part.parameters())


def _find_vision(model: Any) -> tuple[nn.Module, nn.Module]:
    tower, projection = (getattr(model, name, None) for name in _VISION_PARTS)
    if not isinstance(tower, nn.Module) or not isinstance(projection, nn.Module):
        raise ConfigError(
            f"{model.config.model_type} has no vision tower beside a text tower; "
            "expected taiyi-clip or chinese_clip"
        )
    return tower, projection


def gather_pairs(
    texts_PD: Tensor, images_PD: Tensor, weights_P: Tensor
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Return the pairs of all processes, and the number of the first one of this process.

    Gradients flow back to the process that a vector is from. Processes may have different numbers
    of pairs: shorter ones are filled up with pairs of weight 0.

    Args:
        texts_PD: Vectors of texts.
        images_PD: Vectors of images.
        weights_P: 1, or 0 for pairs that do not count.

    Returns:
        Texts and images, [A, D], and weights, [A].
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return texts_PD, images_PD, weights_P, 0
    num_pairs, width = texts_PD.shape
    longest = torch.tensor(num_pairs, device=texts_PD.device)
    distributed.all_reduce(longest, distributed.ReduceOp.MAX)
    num_slots = int(longest)
    # One collective for everything: its backward runs once, at the same place on all processes.
    packed_PC = torch.cat([texts_PD, images_PD, weights_P[:, None].to(texts_PD)], dim=1)
    packed_WC = functional.pad(packed_PC, (0, 0, 0, num_slots - num_pairs))
    gathered_AC: Tensor = _Gather.apply(packed_WC)  # type: ignore[no-untyped-call]
    texts_AD, images_AD = gathered_AC[:, :width], gathered_AC[:, width:-1]
    return texts_AD, images_AD, gathered_AC[:, -1].detach(), distributed.get_rank() * num_slots


class _Gather(torch.autograd.Function):
    """All processes' rows; backward sums what all processes say about a row."""

    @staticmethod
    def forward(context: Any, rows_WC: Tensor) -> Tensor:
        """Return the rows of process after process."""
        context.num_rows = rows_WC.shape[0]
        parts = [torch.empty_like(rows_WC) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, rows_WC.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        """Return the gradient of this process's rows."""
        gradient_AC = gradients[0].contiguous()
        distributed.all_reduce(gradient_AC)
        own = distributed.get_rank() * context.num_rows
        return gradient_AC[own : own + context.num_rows]


class _Bounded(torch.autograd.Function):
    """A number between the bounds; beyond them only the way back has a gradient."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        """Return the nearest number within the bounds."""
        context.save_for_backward(value)
        return value.clamp(0.0, MAX_LOGIT_SCALE)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        """Return the gradient, 0 where a step down it would lead further out."""
        (value,), gradient = context.saved_tensors, gradients[0]
        leads_out = ((value >= MAX_LOGIT_SCALE) & (gradient < 0)) | ((value <= 0) & (gradient > 0))
        return gradient.masked_fill(leads_out, 0.0)


def _bounded(value: Tensor) -> Tensor:
    bounded: Tensor = _Bounded.apply(value)  # type: ignore[no-untyped-call]
    return bounded


def _cross_entropies(logits_PA: Tensor, targets_P: Tensor, weights_A: Tensor) -> Tensor:
    """Return the loss of each row; columns of weight 0 are nobody's alternatives."""
    # A finite number: rows of weight 0 have such a target, and 0 times infinity is none.
    logits_PA = logits_PA.masked_fill(weights_A == 0, _FAR)
    return functional.cross_entropy(logits_PA, targets_P, reduction="none")
