# SPDX-License-Identifier: Apache-2.0
"""Losses of row objectives as modules: padded rows in, the sum over their samples out.

Shapes: B samples, R rows (UBERT: one for each kind of a sample), T tokens of a row, W scored
tokens of a text, L label slots, C kinds of a sample, P predicted positions, S option slots,
V vocabulary, H hidden.

The tensors' names are those of `collate` in `pyfsb.objectives.{multiple_choice,extraction_ubert,
extraction_uniex}`. Made by `pyfsb.models.heads.build_loss` for the families choose and extract;
inference takes `choice_logits` and `scored_tokens` from here. Never moves a tensor to a device.

Source: the formulas of fengshen/models/{unimc,ubert,uniex} of Fengshenbang-LM c8fb7b8. Which cells
count, and that each sample has a mean of its own (so that neither the padding nor the rest of the
batch changes its loss), is our choice; the original's means are behind `legacy_cells`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from pyfsb.errors import ConfigError
from pyfsb.models import unpadded
from pyfsb.models.architectures.uniex import gather_tokens
from pyfsb.models.architectures.unimc import masked_hidden
from pyfsb.models.document_loss import Layout
from pyfsb.models.language_losses import vocabulary_logits

UBERT_SCALE: Final = 10.0
"""Factor of the whole loss. Source: the original, as the two below."""
UBERT_CELL_WEIGHT: Final = 100.0
"""Weight of the cross entropy of cells against the two over sets of cells."""
UNIEX_SCALE: Final = 1e5
"""Factor of the whole loss."""
_FAR: Final = 1e12


class RowLoss(nn.Module):
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
            ConfigError: The layout is one without padding: these rows have masks of their own.
        """
        super().__init__()
        del micro_tokens
        if layout not in ("buckets", "padded"):
            raise ConfigError(
                f"batch.layout = {layout}: rows of choices and of kinds look at squares of tokens; "
                "expected buckets or padded"
            )
        self.model = model
        self.layout = layout
        if checkpoints_activations:
            self._inner.gradient_checkpointing_enable({"use_reentrant": False})

    @property
    def _inner(self) -> Any:
        return unpadded.unwrap(self.model)


class ChoiceLoss(RowLoss):
    """Cross entropy of the right option, and of the tokens at slots and hidden ones."""

    def forward(
        self,
        *,
        input_ids: Tensor,
        token_type_ids: Tensor,
        position_ids: Tensor,
        visible: Tensor,
        slot_positions: Tensor,
        yes_id: Tensor,
        target_positions: Tensor,
        target_ids: Tensor,
        target_weights: Tensor,
        answers: Tensor,
    ) -> Tensor:
        """Return the sum of the samples' losses, in nats.

        Args:
            input_ids: Ids, [B, T].
            token_type_ids: Types, [B, T].
            position_ids: Positions, [B, T].
            visible: Whether the token of a row sees that of a column, [B, T, T].
            slot_positions: Row x T + column of each option's slot, [B, S]; -1 for none.
            yes_id: Token of the right option.
            target_positions: Row x T + column of predicted tokens, [P], ascending; slots are.
            target_ids: What is right there, [P].
            target_weights: What each counts, [P].
            answers: Number of the right option, [B].
        """
        hidden_BTH = masked_hidden(
            self._inner,
            input_ids=input_ids,
            visible=visible,
            position_ids=position_ids,
            token_type_ids=token_type_ids,
        )
        hidden_PH = hidden_BTH.flatten(0, 1).index_select(0, target_positions)
        logits_PV = vocabulary_logits(self.model, hidden_PH).float()
        token_losses_P = functional.cross_entropy(logits_PV, target_ids, reduction="none")
        places_BS = torch.searchsorted(target_positions, slot_positions.clamp(min=0))
        yes_BS = logits_PV.index_select(1, yes_id.view(1))[:, 0][places_BS]
        yes_BS = yes_BS.masked_fill(slot_positions < 0, -torch.inf)
        choice_loss = functional.cross_entropy(yes_BS, answers, reduction="sum")
        return (token_losses_P * target_weights).sum() + choice_loss


def choice_logits(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """Return the logit of each option, [B, S]; minus infinity where a row has fewer.

    Args:
        model: A masked language model.
        batch: From `MultipleChoice.collate_inputs`.
    """
    hidden_BTH = masked_hidden(
        model,
        input_ids=batch["input_ids"],
        visible=batch["visible"],
        position_ids=batch["position_ids"],
        token_type_ids=batch["token_type_ids"],
    )
    slots_BS = batch["slot_positions"]
    hidden_PH = hidden_BTH.flatten(0, 1)[slots_BS.clamp(min=0).flatten()]
    logits_PV = vocabulary_logits(model, hidden_PH).float()
    yes_P = logits_PV.index_select(1, batch["yes_id"].view(1))[:, 0]
    return yes_P.view(slots_BS.shape).masked_fill(slots_BS < 0, -torch.inf)


class ExtractionLoss(RowLoss):
    """The losses of UBERT and UniEX, as the model asks."""

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the sum of the samples' losses; the tensors are those of the objective's batch.

        Raises:
            ConfigError: The model is another one.
        """
        kind, is_legacy = self._inner.config.model_type, "span_mask" in inputs
        if (kind, is_legacy) not in _EXTRACTION_LOSSES:
            raise ConfigError(f"{kind} has no loss for family extract; expected ubert or uniex")
        return _EXTRACTION_LOSSES[kind, is_legacy](self._inner, **inputs)


def scored_tokens(firsts_R: Tensor, counts_R: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positions of the scored tokens, [R, W], and which of them a row has."""
    places_W = torch.arange(int(counts_R.max()), device=firsts_R.device)
    is_scored_RW = places_W < counts_R[:, None]
    return torch.where(is_scored_RW, firsts_R[:, None] + places_W, 0), is_scored_RW


def _ubert_loss(
    model: Any,
    *,
    input_ids: Tensor,
    attention_mask: Tensor,
    token_type_ids: Tensor,
    firsts: Tensor,
    counts: Tensor,
    samples: Tensor,
    gold_rows: Tensor,
    gold_firsts: Tensor,
    gold_lasts: Tensor,
) -> Tensor:
    hidden_RTH = model.encode(input_ids, attention_mask, token_type_ids)
    positions_RW, is_scored_RW = scored_tokens(firsts, counts)
    logits_RWW = model.span_logits(gather_tokens(hidden_RTH, positions_RW)).float()
    allowed_RWW = (is_scored_RW[:, :, None] & is_scored_RW[:, None]).triu()
    labels_RWW = torch.zeros_like(logits_RWW)
    labels_RWW[gold_rows, gold_firsts, gold_lasts] = 1.0
    # [B, C, W, W]: rows of a sample that has fewer kinds have no allowed cell.
    counts_B = torch.bincount(samples)
    places_R = torch.arange(samples.numel(), device=samples.device)
    places_R = places_R - (counts_B.cumsum(0) - counts_B)[samples]
    shape = (counts_B.numel(), int(counts_B.max()), *logits_RWW.shape[1:])
    squares = []
    for values_RWW in (logits_RWW, labels_RWW, allowed_RWW):
        square = values_RWW.new_zeros(shape)
        squares.append(square.index_put((samples, places_R), values_RWW))
    logits, labels, allowed = squares
    of_cells = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    cells_B = (of_cells * allowed).sum((1, 2, 3)) / allowed.sum((1, 2, 3)).clamp(min=1)
    of_rows_BC = _set_loss(logits.flatten(2), labels.flatten(2), allowed.flatten(2), dim=2)
    of_kinds_BWW = _set_loss(logits, labels, allowed, dim=1)
    rows_B = of_rows_BC.sum(1) / counts_B
    kinds_B = of_kinds_BWW.sum((1, 2)) / allowed.any(1).sum((1, 2)).clamp(min=1)
    return UBERT_SCALE * (UBERT_CELL_WEIGHT * cells_B + rows_B + kinds_B).sum()


def _set_loss(logits: Tensor, labels: Tensor, allowed: Tensor, *, dim: int) -> Tensor:
    """Return the cross entropy of which scores of a dimension exceed 0.

    Source: "multilabel categorical cross-entropy", log(1 + sum exp) of the wrong scores and of the
    right ones negated. Scores that are not allowed take no part.
    """
    is_right = labels > 0
    wrong = logits.masked_fill(is_right | ~allowed, -_FAR)
    right = (-logits).masked_fill(~(is_right & allowed), -_FAR)
    zero = torch.zeros_like(logits.narrow(dim, 0, 1))
    return sum(
        (torch.logsumexp(torch.cat([scores, zero], dim), dim) for scores in (wrong, right)),
        start=torch.zeros((), device=logits.device),
    )


def _uniex_loss(
    model: Any,
    *,
    input_ids: Tensor,
    position_ids: Tensor,
    visible: Tensor,
    label_positions: Tensor,
    label_counts: Tensor,
    kind_counts: Tensor,
    firsts: Tensor,
    counts: Tensor,
    gold_rows: Tensor,
    gold_firsts: Tensor,
    gold_lasts: Tensor,
    gold_labels: Tensor,
    **spans: Tensor,
) -> Tensor:
    hidden_BTH = model.encode(input_ids, visible, position_ids)
    positions_BW, is_scored_BW = scored_tokens(firsts, counts)
    logits_BWWL = model.span_logits(
        gather_tokens(hidden_BTH, positions_BW), gather_tokens(hidden_BTH, label_positions)
    ).float()
    labels_BWWL = torch.zeros_like(logits_BWWL)
    labels_BWWL[gold_rows, gold_firsts, gold_lasts, gold_labels] = 1.0
    square_BWW = is_scored_BW[:, :, None] & is_scored_BW[:, None]
    slots_L = torch.arange(label_positions.shape[1], device=input_ids.device)
    is_label_BL = slots_L < label_counts[:, None]
    is_predicate_BL = slots_L > kind_counts[:, None]
    spans_BWW, pairs_BWW = square_BWW.triu(), square_BWW
    if spans:
        spans_BWW, pairs_BWW = _gold_cells(square_BWW, **spans)
    allowed_BWWL = torch.where(
        is_predicate_BL[:, None, None], pairs_BWW[..., None], spans_BWW[..., None]
    )
    allowed_BWWL = allowed_BWWL & is_label_BL[:, None, None]
    allowed_BWWL[..., 0] = square_BWW.triu()
    of_cells = functional.binary_cross_entropy_with_logits(
        logits_BWWL, labels_BWWL, reduction="none"
    )
    of_cells = of_cells * allowed_BWWL
    sums_BL, counts_BL = of_cells.sum((1, 2)), allowed_BWWL.sum((1, 2))
    index_B = sums_BL[:, 0] / counts_BL[:, 0].clamp(min=1)
    kinds_B = sums_BL[:, 1:].sum(1) / counts_BL[:, 1:].sum(1).clamp(min=1)
    return UNIEX_SCALE * (index_B + kinds_B).sum()


def _gold_cells(
    square_BWW: Tensor, *, span_rows: Tensor, span_firsts: Tensor, span_lasts: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the cells of right spans, and those of pairs of their ends, both [B, W, W]."""
    spans_BWW = torch.zeros_like(square_BWW)
    spans_BWW[span_rows, span_firsts, span_lasts] = True
    is_first_BW, is_last_BW = spans_BWW.any(2), spans_BWW.any(1)
    pairs_BWW = is_first_BW[:, :, None] & is_first_BW[:, None]
    return spans_BWW, pairs_BWW | (is_last_BW[:, :, None] & is_last_BW[:, None])


def _legacy_ubert(
    model: Any,
    *,
    input_ids: Tensor,
    attention_mask: Tensor,
    token_type_ids: Tensor,
    span_labels: Tensor,
    span_mask: Tensor,
) -> Tensor:
    """Means over all cells of all rows, [B, C, T, T]."""
    rows = (tensor.flatten(0, 1) for tensor in (input_ids, attention_mask, token_type_ids))
    logits = model.span_logits(model.encode(*rows)).float()
    logits = logits.view(span_mask.shape) + span_mask
    allowed = torch.ones_like(logits, dtype=torch.bool)
    of_cells = functional.binary_cross_entropy_with_logits(logits, span_labels)
    of_rows = _set_loss(logits.flatten(2), span_labels.flatten(2), allowed.flatten(2), dim=2)
    of_kinds = _set_loss(logits, span_labels, allowed, dim=1)
    loss = UBERT_CELL_WEIGHT * of_cells + of_rows.mean() + of_kinds.mean()
    return UBERT_SCALE * loss * input_ids.shape[0]


def _legacy_uniex(
    model: Any,
    *,
    input_ids: Tensor,
    position_ids: Tensor,
    visible: Tensor,
    label_positions: Tensor,
    text_positions: Tensor,
    span_labels: Tensor,
    span_mask: Tensor,
    **unused: Tensor,
) -> Tensor:
    """Means over all cells: whole rows for the first label, text positions for the others."""
    del unused
    hidden_BTH = model.encode(input_ids, visible, position_ids)
    labels_BLH = gather_tokens(hidden_BTH, label_positions)
    index = model.span_logits(hidden_BTH, labels_BLH[:, :1]).float() + span_mask[..., :1]
    text_BWH = gather_tokens(hidden_BTH, text_positions)
    rows = torch.arange(input_ids.shape[0], device=input_ids.device)[:, None, None]
    at = (rows, text_positions[:, :, None], text_positions[:, None])
    kinds = model.span_logits(text_BWH, labels_BLH[:, 1:]).float() + span_mask[at][..., 1:]
    loss = functional.binary_cross_entropy_with_logits(index, span_labels[..., :1])
    loss = loss + functional.binary_cross_entropy_with_logits(kinds, span_labels[at][..., 1:])
    return UNIEX_SCALE * loss * input_ids.shape[0]


_EXTRACTION_LOSSES: Final[dict[tuple[str, bool], Callable[..., Tensor]]] = {
    ("ubert", False): _ubert_loss,
    ("ubert", True): _legacy_ubert,
    ("uniex", False): _uniex_loss,
    ("uniex", True): _legacy_uniex,
}
