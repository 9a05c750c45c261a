# SPDX-License-Identifier: Apache-2.0
"""Hidden states of documents laid end to end: no padding, and no document sees another.

Called by `pyfsb.models.heads`. The forwards call the submodules of Hugging Face models (never
their weights), so hooks on them, adapters inside them and their dropout work as they do there.
Never computes a head or a loss.

Shapes: N tokens of all documents end to end, P chosen ones, M tokens of their decoder documents,
B documents, H hidden.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

from torch import Tensor, nn
from transformers import PreTrainedModel

from pyfsb.errors import ConfigError
from pyfsb.models.unpadded import (
    bart,
    bert,
    clip,
    deberta,
    gpt2,
    llama,
    longformer,
    t5,
    zhouwenwang,
)
from pyfsb.models.unpadded.documents import Documents
from pyfsb.models.unpadded.layers import SingleForward, StackForward

__all__ = [
    "Documents",
    "encode",
    "encode_pair",
    "pool_text",
    "supports",
    "supports_pairs",
    "unwrap",
]

_Forward = TypeVar("_Forward")

_SINGLE: Final[dict[str, SingleForward]] = {
    "bert": bert.forward,
    "megatron-bert": bert.forward_megatron,
    "chinese_clip_text_model": bert.forward,
    "deberta-v2": deberta.forward,
    "roberta": bert.forward,
    "rope-longformer": longformer.forward,
    "zhouwenwang": zhouwenwang.forward,
    "gpt2": gpt2.forward,
    "llama": llama.forward,
    "clip_text_model": clip.forward,
}
_PAIRS: Final[dict[str, StackForward]] = {
    "t5": t5.run_stack,
    "mt5": t5.run_stack,
    "bart": bart.run_stack,
    "pegasus": bart.run_stack,
}


def supports(model_type: str) -> bool:
    """Return whether models of this `config.model_type` have an unpadded forward."""
    return model_type in _SINGLE or model_type in _PAIRS


def supports_pairs(model_type: str) -> bool:
    """Return whether it is an encoder-decoder with one: `encode_pair` rather than `encode`."""
    return model_type in _PAIRS


def unwrap(model: nn.Module) -> PreTrainedModel:
    """Return the Hugging Face model inside of adapters (peft), or the model itself."""
    inner: Any = model
    if hasattr(inner, "get_base_model"):
        inner = inner.get_base_model()
    assert isinstance(inner, PreTrainedModel)
    return inner


def encode(
    model: nn.Module,
    input_ids_N: Tensor,
    lengths_B: Tensor,
    *,
    token_type_ids_N: Tensor | None = None,
    positions_P: Tensor | None = None,
    checkpoints_activations: bool = False,
) -> Tensor:
    """Return the last hidden states of an encoder or a decoder.

    Args:
        model: With or without a head; a peft model is looked into.
        input_ids_N: Documents end to end.
        lengths_B: Tokens of each document. On an accelerator it may stay in the host's memory,
            which spares waiting for the device.
        token_type_ids_N: 0 or 1 for each token; None is all 0, or the default of the model.
        positions_P: Indices into N of the tokens whose states are wanted; None: all. The last
            layer then computes its feed-forward part for them alone.
        checkpoints_activations: Keep only the inputs of layers for the backward pass.

    Returns:
        Hidden states [N, H], or [P, H], equal to those of each document alone.

    Raises:
        ConfigError: The architecture has no unpadded forward.
    """
    inner = unwrap(model)
    forward = _find(_SINGLE, inner)
    (documents,) = Documents.side_by_side([lengths_B], input_ids_N.device)
    types_N = None if token_type_ids_N is None else documents.sort(token_type_ids_N)
    places_P = None if positions_P is None else documents.places(positions_P)
    hidden_NH = forward(
        inner.base_model,
        documents.sort(input_ids_N),
        types_N,
        documents,
        places_P,
        checkpoints_activations,
    )
    return documents.restore(hidden_NH) if positions_P is None else hidden_NH


def encode_pair(
    model: nn.Module,
    input_ids_N: Tensor,
    lengths_B: Tensor,
    decoder_ids_M: Tensor,
    decoder_lengths_B: Tensor,
    *,
    checkpoints_activations: bool = False,
) -> Tensor:
    """Return the decoder's last hidden states of an encoder-decoder.

    Args:
        model: T5, mT5, BART or Pegasus.
        input_ids_N: The encoder's documents end to end.
        lengths_B: Tokens of each of them.
        decoder_ids_M: The decoder's inputs end to end; document b attends to encoder document b.
        decoder_lengths_B: Tokens of each of them.
        checkpoints_activations: Keep only the inputs of layers for the backward pass.

    Returns:
        Hidden states [M, H].

    Raises:
        ConfigError: The architecture has no unpadded forward for pairs.
    """
    inner = unwrap(model)
    run_stack, model_with_stacks = _find(_PAIRS, inner), inner.base_model
    source, target = Documents.side_by_side([lengths_B, decoder_lengths_B], input_ids_N.device)
    encoded_NH = run_stack(
        model_with_stacks.encoder, source.sort(input_ids_N), source, None, None,
        checkpoints_activations,
    )  # fmt: skip
    hidden_MH = run_stack(
        model_with_stacks.decoder, target.sort(decoder_ids_M), target, encoded_NH, source,
        checkpoints_activations,
    )  # fmt: skip
    return target.restore(hidden_MH)


def pool_text(
    model: nn.Module, hidden_NH: Tensor, input_ids_N: Tensor, lengths_B: Tensor
) -> Tensor:
    """Return one vector for each text: CLIP's at its end token, BERT's at its first token.

    Args:
        model: A text tower, with or without its projection (which is not applied).
        hidden_NH: What `encode` returned.
        input_ids_N: Its input.
        lengths_B: Its lengths.

    Returns:
        Pooled states [B, H].
    """
    inner = unwrap(model)
    ends_B = lengths_B.to(hidden_NH.device).cumsum(0)
    starts_B = ends_B - lengths_B.to(hidden_NH.device)
    if inner.config.model_type != "clip_text_model":
        return hidden_NH.index_select(0, starts_B)
    places_B = clip.find_ends(inner.config.eos_token_id, input_ids_N, starts_B, ends_B)
    return hidden_NH.index_select(0, places_B)


def _find(forwards: dict[str, _Forward], model: PreTrainedModel) -> _Forward:
    kind = model.config.model_type
    if kind not in forwards:
        raise ConfigError(
            f"{kind}: no unpadded forward here; expected {', '.join(sorted(forwards))}, or take "
            "batch.layout = buckets"
        )
    return forwards[kind]
