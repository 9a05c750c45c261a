# SPDX-License-Identifier: Apache-2.0
"""Build a model of a registry entry, or load one from a Hugging Face folder (safetensors only).

Called by training, evaluation and inference. Never opens a pickle and never runs code from a
checkpoint.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from pyfsb import storage
from pyfsb.config import Family
from pyfsb.errors import CheckpointError, ConfigError, did_you_mean, nearest_names
from pyfsb.registry import ModelEntry, find_entry
from pyfsb.storage.workspace import localise

CLASSES: Final = {
    Family.FILL_MASK: AutoModelForMaskedLM,
    Family.GENERATE: AutoModelForCausalLM,
    Family.CLASSIFY: AutoModelForSequenceClassification,
    Family.PAIR: AutoModelForSequenceClassification,
    Family.TAG: AutoModelForTokenClassification,
}
_POSITIONS: Final = ("max_position_embeddings", "n_positions")
_WEIGHTS: Final = ("model.safetensors", "model.safetensors.index.json")

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


def build_config(
    entry: ModelEntry,
    overrides: Mapping[str, bool | int | float | str],
    *,
    vocabulary: Sequence[str],
) -> PreTrainedConfig:
    """Return the config of an entry with a spec's overrides and a vocabulary's ids.

    Raises:
        ConfigError: An override names no field of this architecture, breaks it, or gives fewer
            embeddings than the vocabulary has pieces.
    """
    # Some architectures read fields that their config class does not declare.
    known = {**AutoConfig.for_model(entry.architecture).to_dict(), **entry.config}
    for key in overrides:
        if key not in known:
            near = did_you_mean(nearest_names(key, known))
            raise ConfigError(f"model.config.{key}: {entry.architecture} has no such field{near}")
    num_pieces = len(vocabulary)
    asked = overrides.get("vocab_size")
    if isinstance(asked, int) and asked < num_pieces:
        raise ConfigError(
            f"model.config.vocab_size = {asked}: the vocabulary has {num_pieces} pieces; leave the "
            "override out, or use a vocabulary that fits"
        )
    ids = {
        "pad_token_id": vocabulary.index("[PAD]"),
        "bos_token_id": vocabulary.index("[CLS]"),
        "eos_token_id": vocabulary.index("[SEP]"),
    }
    values = {**entry.config, "vocab_size": num_pieces, **overrides, **ids}
    return AutoConfig.for_model(entry.architecture, **values)


def build_model(
    config: PreTrainedConfig, family: Family, *, seed: int, labels: Sequence[str] = ()
) -> PreTrainedModel:
    """Return a model with random weights that depend on the seed only.

    Raises:
        ConfigError: The config breaks the architecture, such as heads that do not divide the width.
    """
    if labels:
        _set_labels(config, labels)
    torch.manual_seed(seed)
    try:
        model: PreTrainedModel = CLASSES[family].from_config(config)
    except (ValueError, AssertionError, RuntimeError) as exc:
        raise ConfigError(f"model.config does not fit {config.model_type}: {exc}") from None
    return model


def load_model(
    folder: Path, family: Family, *, seed: int = 0, labels: Sequence[str] | None = None
) -> PreTrainedModel:
    """Load weights from a Hugging Face folder.

    Args:
        folder: Local, with config.json and model.safetensors.
        family: Which head; one that the folder lacks starts from random weights.
        seed: Of such a new head.
        labels: Labels of a new classification or tagging head; None keeps those of the folder.

    Raises:
        CheckpointError: A file is missing or broken, or weights other than a head do not fit.
    """
    _check_folder(folder)
    config = load_config(folder)
    if labels is not None:
        _set_labels(config, labels)
    torch.manual_seed(seed)
    try:
        model, report = CLASSES[family].from_pretrained(
            folder,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            dtype=torch.float32,  # published half-precision weights are trained in full precision
        )
    except (OSError, SafetensorError, RuntimeError, ValueError) as exc:
        raise CheckpointError(f"{folder}: cannot load the weights: {exc}") from None
    prefix = f"{model.base_model_prefix}."
    missing = sorted(key for key in report["missing_keys"] if key.startswith(prefix))
    missing = [key for key in missing if "pooler" not in key]
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} weights of {config.model_type} are missing, "
            f"such as {', '.join(missing[:3])}"
        )
    loaded: PreTrainedModel = model
    return loaded


def load_config(folder: Path) -> PreTrainedConfig:
    """Load the config of a Hugging Face folder.

    Raises:
        CheckpointError: It is not that of an architecture known here.
    """
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as exc:
        raise CheckpointError(f"{folder}: cannot use its config.json: {exc}") from None
    return config


def check_fits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Refuse a tokenizer with more pieces than the model has embeddings.

    Raises:
        CheckpointError: Names both numbers.
    """
    embedding: Any = model.get_input_embeddings()
    if len(tokenizer) > embedding.num_embeddings:
        raise CheckpointError(
            f"{folder}: the tokenizer has {len(tokenizer)} pieces, the model "
            f"{embedding.num_embeddings} embeddings; put the tokenizer it was trained with there"
        )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a Hugging Face folder.

    Raises:
        CheckpointError: There is none, or it needs code of its own.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, KeyError) as exc:
        raise CheckpointError(f"{folder}: cannot load the tokenizer: {exc}") from None
    return tokenizer


def read_pieces(folder: Path) -> list[str]:
    """Return the pieces of a folder's WordPiece vocabulary, ids in order.

    Raises:
        CheckpointError: The tokenizer has no [MASK], [CLS], [SEP] or [PAD].
    """
    vocabulary: dict[str, int] = load_tokenizer(folder).get_vocab()
    for token in ("[PAD]", "[CLS]", "[SEP]", "[MASK]"):
        if token not in vocabulary:
            raise CheckpointError(f"{folder}: the tokenizer has no {token}; WordPiece is needed")
    return sorted(vocabulary, key=lambda piece: vocabulary[piece])


def max_positions(config: PreTrainedConfig) -> int:
    """Return the longest input in tokens that a config allows."""
    return int(next(getattr(config, name) for name in _POSITIONS if hasattr(config, name)))


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_stored_parameters(folder: Path) -> int:
    """Return the number of parameters in a folder's safetensors files, from their headers alone."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total


def find_weights(name_or_uri: str) -> Path:
    """Return the local folder of a place on storage or of a registered name's hub weights.

    Args:
        name_or_uri: A folder, an s3:// prefix, or a name of the registry.

    Raises:
        UnknownNameError: It is neither.
        CheckpointError: The name is registered, but its weights are not at hand as safetensors.
    """
    if storage.is_s3(name_or_uri):
        return localise(name_or_uri)
    if Path(name_or_uri).expanduser().is_dir():
        return Path(name_or_uri).expanduser()
    if os.sep in name_or_uri.strip("/") and name_or_uri.count("/") != 1:
        raise CheckpointError(f"{name_or_uri}: no such folder")
    return _hub_folder(find_entry(name_or_uri))


def _hub_folder(entry: ModelEntry) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["*.safetensors", "*.json", "vocab.txt", "merges.txt", "*.model"]
    try:
        folder = Path(snapshot_download(entry.hub_id, allow_patterns=patterns))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as exc:
        raise CheckpointError(
            f"{entry.name}: its weights ({entry.hub_id}) are not in the hub cache and cannot be "
            f"fetched ({type(exc).__name__}); give a folder with config.json and model.safetensors"
        ) from None
    if not any((folder / name).is_file() for name in _WEIGHTS):
        raise CheckpointError(
            f"{entry.name}: {entry.hub_id} publishes no safetensors; only those are opened"
        )
    return folder


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: no config.json; expected a Hugging Face model folder")
    if not any((folder / name).is_file() for name in _WEIGHTS):
        found = ", ".join(sorted(path.name for path in folder.glob("*.bin"))) or "no weights"
        raise CheckpointError(f"{folder}: no model.safetensors ({found}); only those are opened")
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as exc:
        raise CheckpointError(f"{folder}/config.json is not JSON: {exc}") from None


def _set_labels(config: Any, labels: Sequence[str]) -> None:
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
