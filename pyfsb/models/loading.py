# SPDX-License-Identifier: Apache-2.0
"""Load a model from a Hugging Face folder (safetensors only), wherever the folder is.

Called by training, evaluation and inference. Never opens a pickle and never runs code from a
checkpoint.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from tokenizers.models import WordPiece
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from pyfsb import records, storage
from pyfsb.config import Family
from pyfsb.errors import (
    CheckpointError,
    ConfigError,
    UnknownNameError,
    did_you_mean,
    nearest_names,
)
from pyfsb.models.building import find_class, set_labels
from pyfsb.models.hub import HubUri, Snapshot, bring, find_gap, is_hub_uri, parse_hub_uri
from pyfsb.models.overrides import BROKEN, explain
from pyfsb.records import MODEL_FOLDER, WEIGHTS_KIND, CheckpointRecord, Parent
from pyfsb.registry import find_model
from pyfsb.storage.workspace import Workspace, localise
from pyfsb.tokenizers import choosing
from pyfsb.tokenizers import registration as _registration  # noqa: F401  (AutoTokenizer finds ours)

IMPORT_RECORD_NAME: Final = "import.json"
"""What `fsb models import` writes beside the weights."""
_NUM_SHOWN: Final = 3
"""Weights that an error names."""

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


def load_model(
    folder: Path,
    family: Family,
    *,
    seed: int = 0,
    labels: Sequence[str] | None = None,
    has_order_head: bool = False,
    is_whole: bool = False,
) -> PreTrainedModel:
    """Load weights from a Hugging Face folder.

    Args:
        folder: Local, with config.json and model.safetensors.
        family: Which head; one that the folder lacks starts from random weights.
        seed: Of such a new head.
        labels: Labels of a new classification or tagging head; None keeps those of the folder.
        has_order_head: With the head that judges the order of sentences.
        is_whole: Refuse a folder that lacks the head: for answers, which random weights are none.

    Raises:
        CheckpointError: A file is missing or broken, or weights other than a head do not fit.
    """
    _check_folder(folder)
    config = load_config(folder)
    if labels is not None:
        set_labels(config, labels)
    torch.manual_seed(seed)
    try:
        found = find_class(config.model_type, family, has_order_head=has_order_head)
        model, report = found.from_pretrained(
            folder,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # what it would say names neither weights nor shapes
            dtype=torch.float32,  # published half-precision weights are trained in full precision
        )
    except ConfigError:
        raise
    except (OSError, SafetensorError, *BROKEN) as exc:
        raise CheckpointError(f"{folder}: cannot load the weights: {explain(exc)}") from exc
    is_new = (is_whole and family is not Family.EMBED) or family is Family.IMAGE_TEXT
    kind = f"{config.model_type} for family {family.value}"
    _check_report(folder, model, report, kind, is_new=is_new, takes_labels=labels is not None)
    loaded: PreTrainedModel = model
    return loaded


def _check_report(
    folder: Path,
    model: PreTrainedModel,
    report: dict[str, Any],
    kind: str,
    *,
    is_new: bool,
    takes_labels: bool,
) -> None:
    """Refuse weights that are not those of the model.

    Args:
        folder: Where they are from.
        model: Loaded.
        report: What `from_pretrained` says about them.
        kind: The model in words.
        is_new: No weight may start from random numbers, those of the head included.
        takes_labels: The head is of other labels than the folder's may be, and starts anew then.

    Raises:
        CheckpointError: Lists some of them.
    """
    prefix = f"{model.base_model_prefix}."
    wrong = [
        f"{name} is {tuple(stored)}, expected {tuple(expected)}"
        for name, stored, expected in sorted(report["mismatched_keys"])
        if is_new or not takes_labels or name.startswith(prefix)
    ]
    if wrong:
        raise CheckpointError(
            f"{folder}: {len(wrong)} weights do not fit its config.json: {_some(wrong)}"
        )
    # No pooler touches the vectors of EMBED; two towers have no head that could be new.
    missing = [
        key
        for key in sorted(report["missing_keys"])
        if is_new or (key.startswith(prefix) and "pooler" not in key)
    ]
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} weights of {kind} are missing, such as {_some(missing)}"
            + ("; fine-tune it for this family, or ask it for another" if is_new else "")
        )
    # Heads of other families may be there; layers that would be left out change every answer.
    extra = [
        key
        for key in sorted(report["unexpected_keys"])
        if key.startswith(prefix) and "pooler" not in key
    ]
    if extra:
        raise CheckpointError(
            f"{folder}: {len(extra)} weights that its config.json has no place for, such as "
            f"{_some(extra)}; correct it, or leave them out with `fsb models import "
            "--allow-extra PATTERN`"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NUM_SHOWN]) + (" …" if len(names) > _NUM_SHOWN else "")


def load_config(folder: Path) -> PreTrainedConfig:
    """Load the config of a Hugging Face folder.

    Raises:
        CheckpointError: It is not that of an architecture known here.
    """
    kind = _read_config(folder).get("model_type")
    if kind is not None and (not isinstance(kind, str) or kind not in CONFIG_MAPPING):
        near = did_you_mean(nearest_names(str(kind), CONFIG_MAPPING))
        raise CheckpointError(
            f"{folder}/config.json: model_type = {kind!r} is no architecture that is known "
            f"here{near}"
        )
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, *BROKEN) as exc:
        raise CheckpointError(f"{folder}: cannot use its config.json: {explain(exc)}") from exc
    return config


def imported_name(folder: Path) -> str | None:
    """Return which registered model a folder is that `fsb models import` made; None of others.

    Raises:
        CheckpointError: Its `import.json` says no name.
    """
    path = folder / IMPORT_RECORD_NAME
    if not path.is_file():
        return None
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["model"]
    except (ValueError, KeyError, TypeError) as exc:
        raise CheckpointError(f"{path} is not the record of an import: {exc!r}") from None
    return str(name)


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
    tokenizer = choosing.load_tokenizer(folder)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and isinstance(backend.model, WordPiece):
        # Special tokens that the file lacks are added, but WordPiece looks for this one in it.
        unknown, pieces = tokenizer.unk_token, backend.get_vocab(with_added_tokens=False)
        if unknown not in pieces:
            raise CheckpointError(
                f"{folder}: the tokenizer's {len(pieces)} pieces lack {unknown}; put the vocab.txt "
                "it was trained with there"
            )
    return tokenizer


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, tied ones once; ZeRO-3 leaves the size of each on it."""
    return sum(getattr(part, "ds_numel", part.numel()) for part in model.parameters())


def count_stored_parameters(folder: Path) -> int:
    """Return the number of parameters in a folder's safetensors files, from their headers alone."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Weights to start from, on this machine."""

    folder: Path
    """The folder, of a checkpoint the one with its record."""
    uri: str
    """Where they are from; of a hub's repository with the commit."""
    record: CheckpointRecord | None
    """Its record; None of a Hugging Face folder. The files were compared with it."""

    @property
    def model_folder(self) -> Path:
        """The folder that `from_pretrained` loads."""
        return self.folder / MODEL_FOLDER if self.record else self.folder

    def link(self, *, base: str, root: str) -> Parent:
        """Return the lineage link for a record in `base`, of the run in `root`."""
        if self.record:
            return records.link(self.record, self.uri, base=base, root=root)
        if is_hub_uri(self.uri):
            digest = records.describe_weights(self.folder)
            return Parent(kind=WEIGHTS_KIND, uri=self.uri, digest=digest)
        return records.link_weights(self.folder, self.uri, base=base, root=root)


def open_weights(name_or_uri: str) -> Weights:
    """Find weights to start from and check them against their record.

    Args:
        name_or_uri: A folder or s3:// prefix (a checkpoint's or a Hugging Face one), a repository
            hf://ORG/NAME[@REVISION] or modelscope://ORG/NAME[@REVISION], or a registered name.

    Raises:
        UnknownNameError: It is none of these.
        CheckpointError: They are not at hand, not safetensors, or not what their record says.
    """
    snapshot = _bring(name_or_uri)
    record = records.find_record(str(snapshot.folder))
    if record is not None and not isinstance(record, CheckpointRecord):
        raise CheckpointError(
            f"{name_or_uri} holds a {record.kind}; weights are a CheckpointRecord (the training "
            "folder, or evaluation/TASK/finetune-SEED)"
        )
    if record:
        records.verify_files(record.files, snapshot.folder)
    return Weights(folder=snapshot.folder, uri=snapshot.uri, record=record)


def find_weights(name_or_uri: str) -> Path:
    """Return the local folder of what `open_weights` takes, unchecked.

    Raises:
        UnknownNameError: It is no place, repository or name.
        CheckpointError: The weights are not at hand as safetensors.
    """
    return _bring(name_or_uri).folder


def _bring(name_or_uri: str) -> Snapshot:
    if is_hub_uri(name_or_uri):
        return bring(parse_hub_uri(name_or_uri))
    if storage.is_s3(name_or_uri):
        return Snapshot(folder=_pull(name_or_uri), uri=name_or_uri)
    folder = Path(name_or_uri).expanduser()
    if folder.is_dir():
        return Snapshot(folder=folder, uri=name_or_uri)
    if os.sep in name_or_uri.strip("/") and name_or_uri.count("/") != 1:
        raise CheckpointError(f"{name_or_uri}: no such folder")
    try:
        entry = find_model(name_or_uri)
        if not entry.hub_id:
            raise CheckpointError(
                f"{name_or_uri}: nobody names a repository of its weights; give them as a folder"
            )
    except UnknownNameError:
        if name_or_uri.startswith("/"):
            raise CheckpointError(f"{name_or_uri}: no such folder") from None
        raise
    return bring(HubUri(hub="hf", name=entry.hub_id, revision="main"))


def _pull(uri: str) -> Path:
    """Bring weights from S3: of a checkpoint its own files, never the training states beside."""
    if records.find_record(uri) is None:
        return localise(uri)
    workspace = Workspace(uri)
    workspace.pull(MODEL_FOLDER)
    workspace.pull_file(records.RECORD_NAME)
    return workspace.path


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: no config.json; expected a Hugging Face model folder")
    gap = find_gap(folder)
    if gap == "model.safetensors":
        found = ", ".join(sorted(path.name for path in folder.glob("*.bin"))) or "no weights"
        raise CheckpointError(f"{folder}: no {gap} ({found}); only those are opened")
    if gap:
        raise CheckpointError(f"{folder}: {gap} is missing; the index of the weights names it")
    _read_config(folder)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise CheckpointError(f"{path} cannot be read: {exc.strerror or exc}") from None
    except ValueError as exc:
        raise CheckpointError(f"{path} is not JSON: {exc}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a mapping, got {type(value).__name__}")
    return value
