# SPDX-License-Identifier: Apache-2.0
"""The vectors of all images of a training, computed once: for vision towers that are frozen.

Shapes: N images, S pixels of a side, D width of the space.

Called before a training on captioned images, by all of its processes; never keeps a file.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed
from transformers import PreTrainedModel

from pyfsb.models.contrastive_loss import image_vectors_of
from pyfsb.objectives.contrastive import ImageTable

BATCH_IMAGES: Final = 64
"""Images of one forward pass."""


def encode_images_once(
    model: PreTrainedModel, images: ImageTable, device: torch.device
) -> ImageTable:
    """Return the images with the vectors that a model's vision tower gives them.

    Processes that have the weights share the work; afterwards each has all vectors.

    Args:
        model: With a vision tower; without weights (on the meta device) on processes that are to
            get them later. It is back where it was afterwards.
        images: All images; the same on all processes.
        device: Where to compute.
    """
    has_weights = all(weight.device.type != "meta" for weight in model.parameters())
    rank, holders = _find_holders(has_weights)
    parts = np.array_split(np.arange(len(images.pixels)), len(holders))
    own = parts[holders.index(rank)] if rank in holders else np.arange(0)
    vectors_ND = torch.zeros((len(images.pixels), model.config.projection_dim))
    if own.size:
        vectors_ND[own[0] : own[-1] + 1] = _encode(model, images, own, device)
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        for holder, part in zip(holders, parts, strict=True):
            if part.size:
                rows = slice(int(part[0]), int(part[-1]) + 1)
                sent = vectors_ND[rows].to(device)
                distributed.broadcast(sent, holder)
                vectors_ND[rows] = sent.cpu()
    return replace(images, vectors=vectors_ND.numpy())


def _find_holders(has_weights: bool) -> tuple[int, list[int]]:
    """Return this process's number, and those of all that have the weights."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return 0, [0]
    answers: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(answers, has_weights)
    return distributed.get_rank(), [number for number, answer in enumerate(answers) if answer]


@torch.no_grad()
def _encode(
    model: PreTrainedModel, images: ImageTable, numbers: NDArray[np.int64], device: torch.device
) -> Tensor:
    """Return the vectors of some images, on the host."""
    home, was_training = model.device, model.training
    model.eval().to(device)
    found = []
    for start in range(0, numbers.size, BATCH_IMAGES):
        taken = replace(images, vectors=None).take(numbers[start : start + BATCH_IMAGES].tolist())
        pixels = torch.from_numpy(taken["pixel_values"]).to(device)
        found.append(image_vectors_of(model, pixels).float().cpu())
    model.train(was_training).to(home)
    return torch.cat(found)
