# SPDX-License-Identifier: Apache-2.0
"""`fsb models export`: a model as a plain Hugging Face folder or as an ONNX graph, with its card.

Called by `pyfsb.cli.models_export`. The graph's answers are compared with the model's before it
is handed out. Never trains; reads safetensors only.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from pyfsb import records, storage
from pyfsb.config import Family
from pyfsb.errors import CheckpointError, ConfigError, DataError, StorageError
from pyfsb.models.building import class_names
from pyfsb.models.cards import CardFacts, find_corpora, find_scores, write_card
from pyfsb.models.hub import is_hub_uri, parse_hub_uri
from pyfsb.models.loading import (
    Weights,
    check_fits,
    imported_name,
    load_config,
    load_model,
    load_tokenizer,
    open_weights,
)
from pyfsb.records import EvalReport
from pyfsb.registry import find_model

FORMS: Final = ("hf", "onnx")
ONNX_NAME: Final = "model.onnx"
ONNX_FAMILIES: Final = (
    Family.FILL_MASK, Family.CLASSIFY, Family.PAIR, Family.TAG, Family.ANSWER, Family.EMBED,
)  # fmt: skip
"""Families whose model is one pass of an encoder over ids and a mask of real tokens."""
_COPIED: Final = (
    "config.json", "generation_config.json", "preprocessor_config.json", "model*.safetensors*",
    "vocab.txt", "vocab.json", "merges.txt", "*.model", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "ngram*", "import.json",
)  # fmt: skip
_WEIGHTS: Final = "model*.safetensors*"
_TOLERANCE: Final = 1e-4
"""Largest difference of a graph's output from the model's, relative to its size above 1."""
_log = logging.getLogger(__name__)


def export_model(
    name_or_uri: str,
    form: str,
    output: Path,
    *,
    family: Family | None = None,
    model: str | None = None,
    reports: Sequence[str] = (),
) -> list[str]:
    """Write a model as a folder that others can load.

    Args:
        name_or_uri: Whatever `open_weights` takes.
        form: One of `FORMS`.
        output: Must not exist, or be empty; it appears whole or not at all.
        family: What the model is for. None takes what its record or the registry says.
        model: Name of the registry entry, where neither record nor name tells it.
        reports: Folders of evaluations whose scores belong on the card; that of the run which
            holds the model is found by itself.

    Returns:
        Names of the files written.

    Raises:
        ConfigError: The form is unknown, cannot hold this family, or its packages are missing.
        CheckpointError: The weights are unusable, or the graph gives other answers.
    """
    if form not in FORMS:
        raise ConfigError(f"--to {form}: expected one of {', '.join(FORMS)}")
    if not output.name:
        raise ConfigError(f"{output}: name a folder to make, not one that you are in")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"{output} is not empty; name a folder that does not exist")
    weights = open_weights(name_or_uri)
    facts = _gather(name_or_uri, weights, family, model, reports)
    _check_kind(name_or_uri, weights, facts)
    partial = output.with_name(f".partial-{output.name}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _copy(weights.model_folder, partial, with_weights=form == "hf")
        load_config(partial)
        if form == "onnx":
            _write_onnx(weights.model_folder, facts.family, partial)
        write_card(partial, facts)
        shutil.rmtree(output, ignore_errors=True)
        partial.rename(output)
    except OSError as exc:
        raise StorageError(f"{output}: cannot be written: {exc.strerror or exc}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sorted(path.name for path in output.iterdir())


def _gather(
    name_or_uri: str,
    weights: Weights,
    family: Family | None,
    model: str | None,
    reports: Sequence[str],
) -> CardFacts:
    record = weights.record
    if record is not None:
        found = [_read_report(uri) for uri in reports] + _own_reports(name_or_uri)
        return CardFacts(
            entry=find_model(model or record.model),
            family=family or Family(record.family),
            record=record,
            corpora=find_corpora(record, weights.uri),
            scores=find_scores(record, found),
        )
    name = model or imported_name(weights.model_folder)
    if name is None:
        name = parse_hub_uri(name_or_uri).name if is_hub_uri(name_or_uri) else name_or_uri
        if Path(name_or_uri).expanduser().is_dir():
            raise ConfigError(
                f"{name_or_uri} does not say which model it is; name it with --model NAME"
            )
    entry = find_model(name)
    return CardFacts(entry=entry, family=family or entry.family, source=weights.uri)


def _check_kind(name_or_uri: str, weights: Weights, facts: CardFacts) -> None:
    """Refuse a card that would say what the folder is not.

    Raises:
        ConfigError: The entry is of another architecture, or the folder has no head for the family.
    """
    config, entry = load_config(weights.model_folder), facts.entry
    if config.model_type != entry.architecture:
        raise ConfigError(
            f"{name_or_uri} is a {config.model_type}, {entry.name} is a {entry.architecture}; name "
            "the model that it is with --model NAME"
        )
    trained_for = weights.record.family if weights.record else None
    held = (config.architectures or [""])[0]
    if facts.family in (trained_for, Family.EMBED) or not held:
        return
    fitting = class_names(config, facts.family)
    known = {name for family in _families_of(config) for name in class_names(config, family)}
    if held in known and held not in fitting:
        raise ConfigError(
            f"{name_or_uri} holds a {held}; family {facts.family.value} is asked of a "
            f"{' or '.join(fitting)}: say what it is for with --family, or fine-tune it first"
        )


def _families_of(config: PreTrainedConfig) -> list[Family]:
    """Return the families that an architecture has a head for."""
    found = []
    for family in Family:
        try:
            class_names(config, family)
        except ConfigError:
            continue
        found.append(family)
    return found


def _read_report(uri: str) -> EvalReport:
    report = records.read_record(uri)
    if not isinstance(report, EvalReport):
        raise DataError(f"{uri} holds a {report.kind}; --report takes the folder of an evaluation")
    return report


def _own_reports(uri: str) -> list[EvalReport]:
    """Return the report of the evaluation that a fine-tuned model lies in."""
    if is_hub_uri(uri) or not (storage.is_s3(uri) or Path(uri).expanduser().is_dir()):
        return []
    above = storage.resolve("../..", uri)
    found = records.find_record(above)
    return [found] if isinstance(found, EvalReport) else []


def _copy(source: Path, target: Path, *, with_weights: bool) -> None:
    for pattern in _COPIED:
        if pattern != _WEIGHTS or with_weights:
            for path in sorted(source.glob(pattern)):
                shutil.copyfile(path, target / path.name)


class _Encoder(nn.Module):
    """A model as a function of three tensors to one or two."""

    def __init__(self, model: PreTrainedModel, family: Family, *, has_types: bool) -> None:
        super().__init__()
        self.model = model
        self.family = family
        self.has_types = has_types

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return logits, those of both ends for answers, last states for embeddings."""
        types = {"token_type_ids": token_type_ids} if self.has_types else {}
        result: Any = self.model(input_ids=input_ids, attention_mask=attention_mask, **types)
        if self.family is Family.ANSWER:
            return result.start_logits, result.end_logits
        return (result[0],) if self.family is Family.EMBED else (result.logits,)


def _write_onnx(source: Path, family: Family, folder: Path) -> None:
    """Write and check the graph of a folder's model."""
    if family not in ONNX_FAMILIES:
        known = ", ".join(known.value for known in ONNX_FAMILIES)
        raise ConfigError(f"--to onnx holds one pass of an encoder ({known}), not {family.value}")
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as exc:
        raise ConfigError(
            f"--to onnx: {exc.name} is missing: pip install fengshenbang[onnx]"
        ) from None
    model = load_model(source, family, is_whole=True).eval()
    if hasattr(model, "match_ngrams"):
        raise ConfigError(
            f"--to onnx: {model.config.model_type} also reads n-grams, which a graph of ids and "
            "mask would leave out; use --to hf"
        )
    tokenizer = load_tokenizer(source)
    check_fits(model, tokenizer, source)
    encoder = _Encoder(model, family, has_types=_has_types(model, tokenizer)).eval()
    names = ("input_ids", "attention_mask", "token_type_ids")[: 3 if encoder.has_types else 2]
    results = ("start_logits", "end_logits") if family is Family.ANSWER else (
        ("last_hidden_state",) if family is Family.EMBED else ("logits",)
    )  # fmt: skip
    dynamic = torch.export.Dim.DYNAMIC
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries below: nothing a user could do about
        torch.onnx.export(
            encoder,
            _sample(model, names, rows=2, tokens=7),
            str(folder / ONNX_NAME),
            input_names=list(names),
            output_names=list(results),
            dynamic_shapes=tuple({0: dynamic, 1: dynamic} for _ in names),
            dynamo=True,
            verbose=False,
            external_data=_is_large(model),
        )
    session = onnxruntime.InferenceSession(
        str(folder / ONNX_NAME), providers=["CPUExecutionProvider"]
    )
    _compare(encoder, session, names)


def _compare(encoder: _Encoder, session: Any, names: tuple[str, ...]) -> None:
    """Refuse a graph that gives other answers, on shapes that it was not traced with."""
    for rows, tokens in ((1, 5), (3, 12)):
        sample = _sample(encoder.model, names, rows=rows, tokens=tokens)
        with torch.inference_mode():
            expected = encoder(*sample)
        feeds = {name: tensor.numpy() for name, tensor in zip(names, sample, strict=True)}
        for ours, theirs in zip(expected, session.run(None, feeds), strict=True):
            gap = (ours - torch.from_numpy(theirs)).abs().max().item()
            if not gap <= _TOLERANCE * max(1.0, ours.abs().max().item()):
                raise CheckpointError(f"the ONNX graph differs from the model by {gap:.2g}")
        _log.info("ONNX graph agrees with the model on %d x %d tokens", rows, tokens)


def _sample(
    model: PreTrainedModel, names: tuple[str, ...], *, rows: int, tokens: int
) -> tuple[Tensor, ...]:
    """Return rows of ids, the last of them shorter than the others."""
    vocabulary_size = int(model.config.vocab_size)
    ids_BT = (torch.arange(rows * tokens).reshape(rows, tokens) * 7 + 3) % vocabulary_size
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[-1, tokens - 2 :] = 0
    return (ids_BT, mask_BT, torch.zeros_like(ids_BT))[: len(names)]


def _has_types(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> bool:
    types = getattr(model.config, "type_vocab_size", 0) or 0
    return "token_type_ids" in tokenizer.model_input_names and types > 0


def _is_large(model: PreTrainedModel) -> bool:
    """Tell whether the weights would not fit into one protobuf message (2 GiB)."""
    return sum(part.numel() * part.element_size() for part in model.parameters()) > 1 << 30
