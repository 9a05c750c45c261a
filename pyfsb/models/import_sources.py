# SPDX-License-Identifier: Apache-2.0
"""What lies in a published folder: its weights, its config, its tokenizer.

Called by `importing`. Looks at names and JSON only; never opens a file of weights.
"""

from __future__ import annotations

import fnmatch
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase

from pyfsb import storage
from pyfsb.errors import CheckpointError, ConfigError, DataError
from pyfsb.models import modelscope
from pyfsb.models.architectures import find_architecture
from pyfsb.models.hub import (
    INDEX_NAME,
    WANTED,
    WEIGHTS_NAME,
    HubUri,
    RemoteFile,
    find_gap,
    is_hub_uri,
    is_offline,
    modelscope_folder,
    parse_hub_uri,
    shard_names,
)
from pyfsb.models.ngrams import find_lexicon
from pyfsb.models.overrides import BROKEN, explain
from pyfsb.registry import ModelEntry
from pyfsb.storage.workspace import localise
from pyfsb.tokenizers.choosing import load_tokenizer

BIN_NAME: Final = "pytorch_model.bin"
BIN_INDEX: Final = "pytorch_model.bin.index.json"
_BINARIES: Final = (".bin", ".pt", ".pth", ".ckpt")
_LEXICONS: Final = ("ngram.txt", "ngram*.json", "labels.txt")
_PREPROCESSORS: Final = ("preprocessor_config.json", "processor_config.json")
_FORMS: Final = {
    WEIGHTS_NAME: (WEIGHTS_NAME,),
    INDEX_NAME: (INDEX_NAME, "model-*-of-*.safetensors"),
    BIN_NAME: (BIN_NAME,),
    BIN_INDEX: (BIN_INDEX, "pytorch_model-*-of-*.bin"),
}
"""Files of each form that weights are published in, the best form first."""
_PATTERNS: Final = (*WANTED, *_FORMS[BIN_NAME], *_FORMS[BIN_INDEX], *_LEXICONS, *_PREPROCESSORS)
"""What is fetched of a repository."""
_NOT_FIELDS: Final = frozenset(
    {"model_type", "architectures", "transformers_version", "torch_dtype", "dtype", "auto_map",
     "_name_or_path", "tokenizer_class"}
)  # fmt: skip
_LABELS: Final = ("id2label", "label2id", "num_labels")
_PROBE: Final = "他说：“今天，我们去北京大学ＡＢ！”😀𠮷 hello 3.14"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Published files on this machine."""

    folder: Path
    """Where config and tokenizer lie."""
    weights: tuple[Path, ...]
    """Files of weights, all of one kind."""
    uri: str
    """Where they are from; of a hub with the commit."""


def locate(source: str, *, max_bytes: int | None = None) -> Source:
    """Find the files of a source.

    Args:
        source: A folder, a file of weights in it, s3://, or hf:// or modelscope://ORG/NAME with
            @REVISION or without.
        max_bytes: Larger files are not fetched of ModelScope, which tells sizes beforehand.

    Raises:
        CheckpointError: There are no weights, a shard is missing, there is no config.json, or what
            was fetched is not what the hub says it is.
        StorageError: The hub failed, or the disk is full.
    """
    uri = source
    if is_hub_uri(source):
        folder, uri = _fetch(parse_hub_uri(source), max_bytes)
    elif storage.is_s3(source):
        folder = localise(source)
    else:
        folder = Path(source).expanduser()
    if folder.is_file():
        return _checked(Source(folder=folder.parent, weights=(folder,), uri=uri))
    if not folder.is_dir():
        raise CheckpointError(f"{source}: no such folder or file")
    return _checked(Source(folder=folder, weights=_find_weights(folder), uri=uri))


def build_config(folder: Path, entry: ModelEntry) -> tuple[PreTrainedConfig, dict[str, str]]:
    """Return the config of published weights, and where it differs from the registry's.

    What the published config.json says wins over the entry, under whichever name it says it; what
    the architecture does not know is left out.

    Raises:
        CheckpointError: The file is not JSON, or its values do not go together.
    """
    theirs = {k: v for k, v in _read_json(folder / "config.json").items() if k not in _NOT_FIELDS}
    own = find_architecture(entry.architecture)
    if own is not None and own.config_map is not None:
        theirs = own.config_map(theirs)
    try:
        default = AutoConfig.for_model(entry.architecture).to_dict()
        if own is None:  # transformers keeps whatever it is given
            theirs = {k: v for k, v in theirs.items() if k in default or k in _LABELS}
        read = AutoConfig.for_model(entry.architecture, **theirs).to_dict()
        stated = {key for key in read if key in theirs or read[key] != default.get(key)}
        rest = {key: value for key, value in entry.config.items() if key not in stated}
        config: PreTrainedConfig = AutoConfig.for_model(entry.architecture, **rest, **theirs)
    except (ConfigError, *BROKEN) as exc:
        raise CheckpointError(
            f"{folder}/config.json does not fit {entry.architecture}: {explain(exc)}"
        ) from exc
    config.architectures = _read_json(folder / "config.json").get("architectures")
    ours = _flatten({key: value for key, value in entry.config.items() if key in stated})
    found = _flatten(read)
    differences = {
        key: f"{found[key]!r}, entry: {value!r}"
        for key, value in sorted(ours.items())
        if key in found and found[key] != value
    }
    return config, differences


def write_tokenizer(
    source: Path, folder: Path, entry: ModelEntry, config: PreTrainedConfig
) -> None:
    """Write the tokenizer as AutoTokenizer loads it, and lexicons beside it.

    Raises:
        CheckpointError: The source has none though the model reads text, or what was written does
            not give the same ids.
    """
    for pattern in (*_LEXICONS, *_PREPROCESSORS):
        for path in sorted(source.glob(pattern)):
            shutil.copyfile(path, folder / path.name)
    if entry.tokenizer == "none":
        return
    workplace = folder / "raw" / "tokenizer"
    shutil.rmtree(workplace, ignore_errors=True)
    workplace.mkdir(parents=True)
    for pattern in WANTED:
        if not pattern.startswith("model") and pattern != "config.json":
            for path in source.glob(pattern):
                shutil.copyfile(path, workplace / path.name)
    config.save_pretrained(workplace)
    try:
        tokenizer = load_tokenizer(workplace)
    except CheckpointError as exc:
        raise CheckpointError(
            f"{source}: {exc}; --tokenizer names a folder that has the right one"
        ) from None
    tokenizer.save_pretrained(folder)
    again = load_tokenizer(folder)
    if again(_PROBE)["input_ids"] != tokenizer(_PROBE)["input_ids"]:
        raise CheckpointError(f"{source}: the tokenizer gives other ids once it is written")
    _check_fits(source, config, again)


def _check_fits(source: Path, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse words and n-grams that the model has no rows for."""
    try:
        find_lexicon(config, tokenizer)
    except (ConfigError, DataError) as exc:
        raise CheckpointError(f"{source}: {exc}") from None
    size = getattr(config.get_text_config(), "vocab_size", None)
    if isinstance(size, int) and len(tokenizer) > size:
        raise CheckpointError(
            f"{source}: the tokenizer has {len(tokenizer)} pieces, the model {size} embeddings"
        )


def _find_weights(folder: Path) -> tuple[Path, ...]:
    if (folder / WEIGHTS_NAME).is_file():
        return (folder / WEIGHTS_NAME,)
    if (folder / INDEX_NAME).is_file():
        gap = find_gap(folder)
        if gap not in (None, "config.json"):
            raise CheckpointError(f"{folder}: {gap} is missing; the index of the weights names it")
        return tuple(folder / name for name in shard_names(folder))
    if (folder / BIN_NAME).is_file():
        return (folder / BIN_NAME,)
    if (folder / BIN_INDEX).is_file():
        return _bin_shards(folder)
    others = sorted(path.name for path in folder.iterdir() if path.suffix in _BINARIES)
    hint = f"; name the file itself if it is one of {', '.join(others[:4])}" if others else ""
    raise CheckpointError(f"{folder}: neither {WEIGHTS_NAME} nor {BIN_NAME}{hint}")


def _bin_names(folder: Path) -> list[str]:
    path = folder / BIN_INDEX
    try:
        names: list[str] = sorted(set(_read_json(path)["weight_map"].values()))
        outside = [name for name in names if name != Path(name).name]
    except (KeyError, AttributeError, TypeError) as exc:
        raise CheckpointError(f"{path} is not an index of weights: {exc!r}") from None
    if outside:
        raise CheckpointError(f"{path} names {outside[0]!r}; expected a file beside it")
    return names


def _bin_shards(folder: Path) -> tuple[Path, ...]:
    names = _bin_names(folder)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder}: {missing[0]} is missing; {BIN_INDEX} names it")
    return tuple(folder / name for name in names)


def _checked(source: Source) -> Source:
    if not (source.folder / "config.json").is_file():
        raise CheckpointError(f"{source.folder}: no config.json beside the weights")
    return source


def _fetch(uri: HubUri, max_bytes: int | None) -> tuple[Path, str]:
    """Bring a repository with pickles from the cache or the hub; returns folder and pinned URI."""
    if uri.hub != "hf":
        return _fetch_modelscope(uri, max_bytes)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                uri.name,
                revision=uri.revision,
                allow_patterns=list(_PATTERNS),
                local_files_only=is_offline(),
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as exc:
        raise CheckpointError(f"{uri} cannot be fetched ({type(exc).__name__})") from None
    return folder, str(HubUri(hub="hf", name=uri.name, revision=folder.name))


def _fetch_modelscope(uri: HubUri, max_bytes: int | None) -> tuple[Path, str]:
    """Bring a repository of ModelScope, compared with the sizes and digests that it states."""
    base = modelscope_folder(uri)
    if is_offline():
        found = modelscope.find_fetched(uri, base)
        if found is None:
            raise CheckpointError(
                f"{uri} was not fetched before, and HF_HUB_OFFLINE is set; import it where there "
                "is a network, or name a folder that has its files"
            )
        return found.folder, found.uri

    def choose(uri: HubUri, files: list[RemoteFile]) -> list[RemoteFile]:
        return _choose_files(uri, files, max_bytes)

    found = modelscope.fetch(uri, base, choose=choose, find_gap=_find_gap)
    return found.folder, found.uri


def _choose_files(
    uri: HubUri, files: Sequence[RemoteFile], max_bytes: int | None
) -> list[RemoteFile]:
    """Return what is imported of a repository: weights in one form, config, tokenizer.

    Raises:
        CheckpointError: It has no weights or config, or a file is too large.
    """
    chosen = {
        file.path: file
        for file in sorted(files, key=lambda file: file.path)
        if file.path == Path(file.path).name
        and any(fnmatch.fnmatchcase(file.path, pattern) for pattern in _PATTERNS)
    }
    forms = [name for name in (WEIGHTS_NAME, INDEX_NAME, BIN_NAME, BIN_INDEX) if name in chosen]
    missing = "config.json" if forms else f"{WEIGHTS_NAME} or {BIN_NAME}"
    if missing not in chosen:
        raise CheckpointError(f"{uri} has no {missing}; expected a model of transformers")
    kept = _FORMS[forms[0]]
    others = {pattern for form in _FORMS.values() for pattern in form} - set(kept)
    wanted = [
        file
        for name, file in chosen.items()
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in others)
    ]
    for file in wanted:
        if max_bytes is not None and (file.num_bytes or 0) > max_bytes:
            raise CheckpointError(
                f"{uri}: {file.path} has {file.num_bytes:,} bytes, more than the limit "
                f"{max_bytes:,} (--max-gib raises it)"
            )
    return wanted


def _find_gap(folder: Path) -> str | None:
    """Return what a folder lacks to be imported; None: nothing."""
    if not (folder / "config.json").is_file():
        return "config.json"
    if (folder / BIN_NAME).is_file():
        return None
    if not (folder / BIN_INDEX).is_file():
        return find_gap(folder)
    return next((name for name in _bin_names(folder) if not (folder / name).is_file()), None)


def _flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of parts as `part.field`, beside all others."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            flat[key] = value
    return flat


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as exc:
        raise CheckpointError(f"{path} is not JSON: {exc}") from None
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{path}: expected an object, found {type(value).__name__}")
    return dict(value)
