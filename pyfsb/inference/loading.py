# SPDX-License-Identifier: Apache-2.0
"""From a name or a place to a predictor: the door behind `pyfsb.load`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch

from pyfsb import records, versions
from pyfsb.config import Family
from pyfsb.errors import CheckpointError
from pyfsb.inference.classify import Classifier
from pyfsb.inference.fill_mask import MaskFiller
from pyfsb.inference.generate import Generator
from pyfsb.inference.pair import PairClassifier
from pyfsb.inference.protocol import Predictor
from pyfsb.inference.tag import Tagger
from pyfsb.models.building import max_positions
from pyfsb.models.loading import check_fits, find_weights, load_config, load_model, load_tokenizer
from pyfsb.records import MODEL_FOLDER, CheckpointRecord

NGRAM_ARCHITECTURE: Final = "ngram"
"""`architecture` in the records of character n-gram models."""
_PREDICTORS: Final[dict[Family, Any]] = {
    Family.CLASSIFY: Classifier,
    Family.PAIR: PairClassifier,
    Family.TAG: Tagger,
    Family.FILL_MASK: MaskFiller,
    Family.GENERATE: Generator,
}
_HEADS: Final = {
    "ForSequenceClassification": Family.CLASSIFY,
    "ForTokenClassification": Family.TAG,
    "LMHeadModel": Family.GENERATE,
    "ForCausalLM": Family.GENERATE,
    "ForMaskedLM": Family.FILL_MASK,
    "ForPreTraining": Family.FILL_MASK,
}
"""Family of a Hugging Face folder without a record, by the end of its architecture's name."""


def load_predictor(name_or_uri: str) -> Predictor:
    """Load a model for prediction.

    Args:
        name_or_uri: A checkpoint folder or s3:// prefix with a record, a Hugging Face folder, or
            a registered name, or `name@alias` of the model store.

    Raises:
        CheckpointError: Files are missing, changed or of a kind that is not opened.
        UnknownNameError: It is neither a place nor a registered name.
    """
    name_or_uri = versions.locate(name_or_uri)
    folder = find_weights(name_or_uri)
    record = records.find_record(str(folder))
    if record is None:
        return _load_bare(folder, name_or_uri)
    if not isinstance(record, CheckpointRecord):
        raise CheckpointError(
            f"{name_or_uri} holds a {record.kind}; a model is a CheckpointRecord (the training "
            "folder, or evaluation/TASK/finetune-SEED)"
        )
    records.verify_files(record.files, folder)
    if record.architecture == NGRAM_ARCHITECTURE:
        from pyfsb.inference.ngram import load_ngram  # costs scikit-learn

        return load_ngram(folder / MODEL_FOLDER, record)
    family = Family(record.family)
    name = record.task or record.model
    return _load_family(folder / MODEL_FOLDER, family, name=name, max_tokens=record.max_tokens)


def _load_bare(folder: Path, name: str) -> Predictor:
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{name}: neither a record.json nor a config.json in {folder}; expected a finished "
            "checkpoint or a Hugging Face folder"
        )
    config = load_config(folder)
    architecture = (config.architectures or [""])[0]
    for ending, family in _HEADS.items():
        if architecture.endswith(ending):
            return _load_family(folder, family, name=name, max_tokens=max_positions(config))
    raise CheckpointError(f"{folder}: architecture {architecture!r} has no task family here")


def _load_family(folder: Path, family: Family, *, name: str, max_tokens: int) -> Predictor:
    model = load_model(folder, family).to(_device())
    tokenizer = load_tokenizer(folder)
    check_fits(model, tokenizer, folder)
    predictor: Predictor = _PREDICTORS[family](model, tokenizer, name=name, max_tokens=max_tokens)
    return predictor


def _device() -> torch.device:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")
