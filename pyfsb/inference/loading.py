# SPDX-License-Identifier: Apache-2.0
"""From a name or a place to a predictor: the door behind `pyfsb.load`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final

import torch

from pyfsb import records, versions
from pyfsb.config import Family
from pyfsb.errors import CheckpointError, UnknownNameError
from pyfsb.inference.protocol import Predictor
from pyfsb.models.building import max_positions
from pyfsb.models.hub import is_hub_uri, parse_hub_uri
from pyfsb.models.loading import (
    check_fits,
    find_weights,
    imported_name,
    load_config,
    load_model,
    load_tokenizer,
)
from pyfsb.records import MODEL_FOLDER, CheckpointRecord
from pyfsb.registry import find_model

NGRAM_ARCHITECTURE: Final = "ngram"
"""`architecture` in the records of character n-gram models."""
_PREDICTORS: Final = {
    Family.CLASSIFY: "classify:Classifier",
    Family.PAIR: "pair:PairClassifier",
    Family.TAG: "tag:Tagger",
    Family.FILL_MASK: "fill_mask:MaskFiller",
    Family.GENERATE: "generate:Generator",
    Family.REWRITE: "rewrite:Rewriter",
    Family.CHOOSE: "choose:Chooser",
    Family.EXTRACT: "extract:Extractor",
    Family.ANSWER: "answer:Answerer",
    Family.EMBED: "embed:Embedder",
    Family.IMAGE_TEXT: "image_text:ImageTextMatcher",
    Family.CLASSIFY_IMAGE: "classify_image:ImageClassifier",
}
"""Module and class of each family's predictor; a module is imported when it is needed."""
_HEADS: Final = {
    "ForSequenceClassification": Family.CLASSIFY,
    "ForTokenClassification": Family.TAG,
    "ForQuestionAnswering": Family.ANSWER,
    "ForImageClassification": Family.CLASSIFY_IMAGE,
    "ForConditionalGeneration": Family.REWRITE,
    "ForExtraction": Family.EXTRACT,
    "LMHeadModel": Family.GENERATE,
    "ForCausalLM": Family.GENERATE,
    "ForMaskedLM": Family.FILL_MASK,
    "ForPreTraining": Family.FILL_MASK,
    "CLIPModel": Family.IMAGE_TEXT,
    "ClipModel": Family.IMAGE_TEXT,
    "Model": Family.EMBED,
}
"""Family of a Hugging Face folder without a record, by the end of its architecture's name."""


def load_predictor(name_or_uri: str, *, family: Family | None = None) -> Predictor:
    """Load a model for prediction.

    Args:
        name_or_uri: A checkpoint folder or s3:// prefix with a record, a Hugging Face folder, or
            a registered name, or `name@alias` of the model store.
        family: What to ask it for. None takes what it was trained for: what the record says, else
            the registry's word on a registered name, else the head that the folder holds.

    Raises:
        CheckpointError: Files are missing, changed or of a kind that is not opened.
        UnknownNameError: It is neither a place nor a registered name.
    """
    name_or_uri = versions.locate(name_or_uri)
    folder = find_weights(name_or_uri)
    record = records.find_record(str(folder))
    if record is None:
        return _load_bare(folder, name_or_uri, family or _registered_family(name_or_uri))
    if not isinstance(record, CheckpointRecord):
        raise CheckpointError(
            f"{name_or_uri} holds a {record.kind}; a model is a CheckpointRecord (the training "
            "folder, or evaluation/TASK/finetune-SEED)"
        )
    records.verify_files(record.files, folder)
    if record.architecture == NGRAM_ARCHITECTURE:
        from pyfsb.inference.ngram import load_ngram  # costs scikit-learn

        return load_ngram(folder / MODEL_FOLDER, record)
    name = record.task or record.model
    return load_folder(
        folder / MODEL_FOLDER,
        family or Family(record.family),
        name=name,
        max_tokens=record.max_tokens,
    )


def _registered_family(name: str) -> Family | None:
    """Return the family of a registered model, by its name or its repository's."""
    uri = parse_hub_uri(name).name if is_hub_uri(name) else name
    try:
        return Family(find_model(uri).family)
    except UnknownNameError:
        return None


def _load_bare(folder: Path, name: str, family: Family | None) -> Predictor:
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{name}: neither a record.json nor a config.json in {folder}; expected a finished "
            "checkpoint or a Hugging Face folder"
        )
    config, imported = load_config(folder), imported_name(folder)
    if family is None and imported:  # classes serve several families, such as fill_mask and choose
        family = Family(find_model(imported).family)
    if family:
        return load_folder(folder, family, name=name, max_tokens=max_positions(config))
    architecture = (config.architectures or [""])[0]
    for ending, family in _HEADS.items():
        if architecture.endswith(ending):
            return load_folder(folder, family, name=name, max_tokens=max_positions(config))
    raise CheckpointError(f"{folder}: architecture {architecture!r} has no task family here")


def load_folder(folder: Path, family: Family, *, name: str, max_tokens: int) -> Predictor:
    """Load a Hugging Face folder as a predictor of a family.

    Raises:
        CheckpointError: Files are missing or do not fit.
        ConfigError: The architecture has no head for the family.
    """
    has_text = family is not Family.CLASSIFY_IMAGE
    place = _PREDICTORS[family]
    if family is Family.EMBED and hasattr(load_config(folder), "image_size"):
        has_text, place = False, "classify_image:ImageEmbedder"
    module, _, kind = place.partition(":")
    predictor_class: Any = getattr(importlib.import_module(f"pyfsb.inference.{module}"), kind)
    model = load_model(folder, family, is_whole=True).to(_device())
    tokenizer = load_tokenizer(folder) if has_text else None
    if tokenizer is not None:
        check_fits(model, tokenizer, folder)
    predictor: Predictor = predictor_class(model, tokenizer, name=name, max_tokens=max_tokens)
    return predictor


def _device() -> torch.device:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")
