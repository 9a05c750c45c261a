# SPDX-License-Identifier: Apache-2.0
"""What a pretraining on rows reads: their samples and order, in the form of a corpus.

Called by `run`; the data stage made the rows.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from pyfsb.config import ObjectiveName, RunSpec
from pyfsb.data.caption_rows import IMAGES_NAME
from pyfsb.data.image_sets import IMAGE_OBJECTIVES
from pyfsb.data.row_sets import ROWS_NAME, WRITING_OBJECTIVES, load_row_set
from pyfsb.errors import ConfigError
from pyfsb.models.building import max_positions
from pyfsb.models.image_objectives import (
    build_contrastive_objective,
    build_label_objective,
    open_table,
)
from pyfsb.models.loading import load_tokenizer
from pyfsb.models.row_objectives import (
    build_chat_objective,
    build_choice_objective,
    build_extraction_objective,
    build_rewriting_objective,
    find_spelling,
    make_tokenize,
    no_tokens,
)
from pyfsb.objectives.image_crops import RandomCrop
from pyfsb.objectives.row_objective import PLACE, RowObjective
from pyfsb.objectives.sft import ChatSample, Sft
from pyfsb.storage.workspace import Workspace
from pyfsb.training.order import Part, build_order, held_out_ids
from pyfsb.training.row_source import RowSource
from pyfsb.training.sources import Corpus
from pyfsb.training.starting import Plan, Start, find_decoder_start

_log: Final = logging.getLogger("pyfsb.training")


def open_rows(spec: RunSpec, plan: Plan, start: Start, uri: str) -> Corpus:
    """Open the rows that a data stage made.

    Args:
        spec: Seed, lengths and held-out samples.
        plan: The objective.
        start: Model and tokenizer.
        uri: The rows' folder.

    Raises:
        ConfigError: Too few rows beside those held out, or the model does not fit the objective.
        DataError: A row does not fit the model.
    """
    workspace = Workspace(uri)
    workspace.pull_file(ROWS_NAME)
    rows = load_row_set(workspace.path / ROWS_NAME, plan.name)
    has_text = plan.entry.tokenizer != "none"
    tokenizer = load_tokenizer(start.tokenizer_folder) if has_text else None
    if plan.name in IMAGE_OBJECTIVES:
        workspace.pull_file(IMAGES_NAME)
        objective = _build_image_objective(spec, plan, start, tokenizer, rows, workspace.path)
    else:
        objective = _build_objective(spec, plan, start, tokenizer)
    samples = _samples(plan.name, rows, tokenizer)
    if isinstance(objective, Sft):
        _warn_of_prompt_words(objective.turn, samples)
    source = RowSource(
        samples,
        objective,
        make_tokenize(tokenizer) if tokenizer else no_tokens,
        seed=spec.seed,
        name_of="row {}".format,
    )
    num_held_out = spec.training.validation_samples
    if num_held_out >= len(rows):
        raise ConfigError(
            f"training.validation_samples = {num_held_out}: there are {len(rows)} rows in all"
        )
    order = build_order(
        [Part(name="rows", shard_samples=np.array([len(rows)]))],
        seed=spec.seed,
        held_out_samples=num_held_out,
    )
    num_tokens = int(source.lengths.sum())
    tail = int(source.lengths[len(rows) - num_held_out :].sum()) if num_held_out else 0
    return Corpus(
        source=source,
        order=order,
        held_out_ids=held_out_ids([len(rows)], num_held_out),
        num_tokens=num_tokens,
        part_tokens=(num_tokens - tail,),
        indexes=(),
    )


def _samples(name: ObjectiveName, rows: list[Any], tokenizer: Any) -> list[Any]:
    """Return what the objective encodes, in the spelling that prediction reads."""
    if name not in WRITING_OBJECTIVES:
        return [row.to_sample() for row in rows]
    spell = find_spelling(tokenizer)
    return [row.to_sample(spell) for row in rows]


def _warn_of_prompt_words(turn: str, samples: Sequence[ChatSample]) -> None:
    """Tell how many dialogues hold words that the model knows as the edge of a turn.

    Special tokens in a text are text; a prompt that is ordinary text cannot be told from it.
    """
    words = [part.strip() for part in turn.split(PLACE) if part.strip()]
    num_found = sum(
        any(word in text for turn in sample.turns for text in (turn.question, turn.answer)
            for word in words)
        for sample in samples
    )  # fmt: skip
    if num_found:
        _log.warning(
            "%d of %d dialogues hold words of the prompt (%s) in a question or answer: the model "
            "cannot tell them from the prompt's own",
            num_found, len(samples), ", ".join(words),
        )  # fmt: skip


def _build_image_objective(
    spec: RunSpec, plan: Plan, start: Start, tokenizer: Any, rows: list[Any], folder: Path
) -> RowObjective[Any, Any]:
    """Map the images; a frozen tower computes all of them here."""
    images = open_table(start.model, folder, start.tokenizer_folder)
    if plan.name is ObjectiveName.IMAGE_LABELS:
        labels = [row.label for row in rows]
        return build_label_objective(start.model, images, labels, seed=spec.seed)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    return build_contrastive_objective(
        start.model, tokenizer, images,
        max_tokens=min(spec.data.max_tokens, max_positions(start.model.config)),
        freezes_vision=plan.objective.freezes_vision, device=device,
        crop=_find_crop(spec, plan, len(rows)),
    )  # fmt: skip


def _find_crop(spec: RunSpec, plan: Plan, num_rows: int) -> RandomCrop | None:
    """Return how images are cut in training; held-out rows, the last ones, are not."""
    ratio = plan.objective.min_crop_ratio
    if ratio == 1.0:
        return None
    return RandomCrop(min_ratio=ratio, num_samples=num_rows - spec.training.validation_samples)


def _build_objective(
    spec: RunSpec, plan: Plan, start: Start, tokenizer: Any
) -> RowObjective[Any, Any]:
    config = start.model.config
    longest = min(spec.data.max_tokens, max_positions(config))
    if plan.name is ObjectiveName.MULTIPLE_CHOICE:
        return build_choice_objective(config, tokenizer, max_tokens=longest)
    if plan.name is ObjectiveName.EXTRACTION:
        return build_extraction_objective(config, tokenizer, max_tokens=longest)
    if plan.name is ObjectiveName.REWRITING:
        begin = find_decoder_start(plan, start)
        if begin is None:
            raise ConfigError(
                f"objective.name = rewriting: {plan.entry.name} has no decoder; expected an "
                "encoder-decoder such as BART, T5 or Pegasus"
            )
        return build_rewriting_objective(
            config,
            tokenizer,
            decoder_start=begin,
            max_tokens=longest,
            max_target_tokens=min(longest, plan.objective.rewriting.max_target_tokens or longest),
        )
    return build_chat_objective(config, tokenizer, max_tokens=longest)
