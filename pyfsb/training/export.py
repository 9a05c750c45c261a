# SPDX-License-Identifier: Apache-2.0
"""The end of a training: weights that `from_pretrained` loads, the loss curve, the record.

Called by `run` after pretraining and by `evaluation.finetune`; all processes take part because
sharded weights must be gathered, the first one writes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel

from pyfsb import records
from pyfsb.models.cards import CARD_NAME, write_card_of
from pyfsb.models.pixels import write_preprocessor
from pyfsb.records import MODEL_FOLDER, CheckpointRecord
from pyfsb.storage.workspace import Workspace
from pyfsb.training.checkpoint import explain_write_error
from pyfsb.training.deepspeed import Engine
from pyfsb.training.distributed import ProcessGroup
from pyfsb.training.fragments import named_weights
from pyfsb.training.meters import (
    METER_FILES,
    METRICS_NAME,
    PROMETHEUS_NAME,
    TENSORBOARD_FOLDER,
    StepMetrics,
    read_metrics,
)

CURVE_NAME: Final = "loss.png"
TOKENIZER_FILES: Final = (
    "vocab.txt", "vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer.json",
    "tokenizer_config.json", "added_tokens.json", "spiece.model", "spm.model", "tokenizer.model",
    "sentencepiece.bpe.model", "ngram.txt", "extension.json",
)  # fmt: skip


def gather_weights(engine: Engine, group: ProcessGroup) -> dict[str, Tensor]:
    """Return the full weights of a module on the first process; nothing on the others.

    All processes take part, one parameter after the other, so only the first one needs room.
    """
    return {name: tensor for name, tensor in named_weights(engine) if group.is_first}


def plain_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a loss module's weights by the names of the model within."""
    return {name.removeprefix("model."): tensor for name, tensor in weights.items()}


def export_model(
    model: PreTrainedModel, weights: Mapping[str, Tensor], tokenizer_folder: Path, folder: Path
) -> None:
    """Write a Hugging Face folder: config, safetensors, tokenizer.

    Args:
        model: Gives config and layout; its own weights may be sharded.
        weights: From `gather_weights`.
        tokenizer_folder: Where the tokenizer's files lie.
        folder: Made anew; it appears whole or not at all.

    Raises:
        StorageError: The disk is full or refuses.
    """
    partial = folder.with_name(f".partial-{folder.name}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        model.save_pretrained(partial, state_dict=dict(weights))  # it empties what it is given
        for name in TOKENIZER_FILES:
            if (tokenizer_folder / name).is_file():
                shutil.copyfile(tokenizer_folder / name, partial / name)
        write_preprocessor(model.config, tokenizer_folder, partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except (OSError, SafetensorError) as exc:
        shutil.rmtree(partial, ignore_errors=True)
        raise explain_write_error(exc, folder, "export to") from exc


def publish(workspace: Workspace, record: CheckpointRecord) -> CheckpointRecord:
    """Draw the curve, list the files in the record, send everything, write the record last."""
    draw_curve(read_metrics(workspace.path / METRICS_NAME), workspace.path / CURVE_NAME, record)
    model = workspace.path / MODEL_FOLDER
    write_card_of(model, record, base=workspace.uri)
    # The card tells times and energy, and is written anew with scores: it is no content.
    paths = [path for path in model.rglob("*") if path.is_file() and path.name != CARD_NAME]
    entries = records.describe_files(workspace.path, paths)
    complete = record.model_copy(update={"files": entries})
    names = (*METER_FILES, PROMETHEUS_NAME, TENSORBOARD_FOLDER, CURVE_NAME)
    workspace.push([model, *(workspace.path / name for name in names)])
    records.write_record(complete, workspace.uri)
    return complete


def draw_curve(steps: list[StepMetrics], path: Path, record: CheckpointRecord) -> None:
    """Draw loss and learning rate over the steps into a PNG; nothing without steps."""
    if not steps:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    numbers = [metrics["step"] for metrics in steps]
    losses = [metrics["loss"] for metrics in steps]
    window = max(1, len(losses) // 50)
    smooth = [
        sum(losses[max(0, end - window) : end]) / min(window, end)
        for end in range(1, len(losses) + 1)
    ]
    axes.plot(numbers, losses, linewidth=0.6, alpha=0.4, color="tab:blue")
    axes.plot(numbers, smooth, linewidth=1.6, color="tab:blue", label=f"loss, mean of {window}")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats per target)")
    axes.grid(alpha=0.3)
    rates = axes.twinx()
    rates.plot(
        numbers, [metrics["learning_rate"] for metrics in steps],
        linewidth=0.8, color="tab:gray", label="learning rate",
    )  # fmt: skip
    rates.set_ylabel("learning rate")
    axes.set_title(f"{record.run}: {record.model}, {record.num_parameters / 1e6:.2f} M parameters")
    axes.legend(loc="upper right")
    figure.savefig(path, dpi=110)
