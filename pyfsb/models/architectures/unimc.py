# SPDX-License-Identifier: Apache-2.0
"""UniMC on stock encoders: rows whose tokens do not all see each other, positions that restart.

Shapes: B rows, T tokens of a row, H hidden.

There is no architecture here: the model is a masked language model of `transformers`. Called by the
losses and by inference; `pyfsb.objectives.multiple_choice` makes the rows.

Source: transformers 5.23. Models that use `create_bidirectional_mask` (BERT, MegatronBert, ALBERT)
take an additive mask of four dimensions as it is. DeBERTa-v2 takes 0 and 1 and hands the same mask
to its embeddings and its convolution, where neither three nor four dimensions fit, so its parts are
called one by one here. Its positions are relative: restarted ones change nothing unless
`position_biased_input` is on, and a convolution (`conv_kernel_size`) looks at the neighbours of a
token, whichever option they are of, as it did when the published weights were trained.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel


def additive_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to the scores of attention: 0, or the least number where it is blind.

    Args:
        visible: Booleans [B, T, T], or [B, T] where every token sees the same.
        dtype: Of the model. Rows that see nothing attend to everything evenly.

    Returns:
        The mask, [B, 1, T, T] or [B, 1, 1, T].
    """
    visible = visible.bool()
    visible = visible[:, None, None] if visible.dim() == 2 else visible[:, None]
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)


def masked_hidden(
    model: PreTrainedModel,
    *,
    input_ids: Tensor,
    visible: Tensor,
    position_ids: Tensor,
    token_type_ids: Tensor | None = None,
) -> Tensor:
    """Return the last hidden states of rows with a mask of their own, [B, T, H].

    Args:
        model: BERT, MegatronBert, ALBERT or DeBERTa-v2, with any head.
        input_ids: Ids, [B, T].
        visible: Whether the token of a row sees that of a column, [B, T, T].
        position_ids: Position of each token, [B, T].
        token_type_ids: Types, [B, T].
    """
    base: Any = model.base_model
    if model.config.model_type == "deberta-v2":
        return _deberta_hidden(base, input_ids, visible, position_ids, token_type_ids)
    hidden_BTH: Tensor = base(
        input_ids=input_ids,
        attention_mask=additive_mask(visible, model.dtype),
        token_type_ids=token_type_ids,
        position_ids=position_ids,
    )[0]
    return hidden_BTH


def _deberta_hidden(
    base: Any,
    input_ids: Tensor,
    visible: Tensor,
    position_ids: Tensor,
    token_type_ids: Tensor | None,
) -> Tensor:
    is_token_BT = visible.any(-1).long()
    embedded_BTH = base.embeddings(
        input_ids=input_ids,
        token_type_ids=token_type_ids,
        position_ids=position_ids,
        mask=is_token_BT,
    )
    encoder, hidden_BTH = base.encoder, embedded_BTH
    relative_pos, rel_embeddings = encoder.get_rel_pos(embedded_BTH), encoder.get_rel_embedding()
    for number, layer in enumerate(encoder.layer):
        hidden_BTH, _ = layer(
            hidden_BTH,
            visible[:, None],
            relative_pos=relative_pos,
            rel_embeddings=rel_embeddings,
        )
        if number == 0 and encoder.conv is not None:
            hidden_BTH = encoder.conv(embedded_BTH, hidden_BTH, is_token_BT)
    return hidden_BTH
