# SPDX-License-Identifier: Apache-2.0
"""`fsb models import`: published weights, mostly pickles, once and for all as safetensors.

The only door for pickles; each is opened by `importing_child` in a process of its own. Names are
brought to our modules' (`pyfsb.models.key_maps`), then `transformers` itself loads the folder on
the meta device and says what is missing, too much or of another shape. Never trains or downloads
more than the files named here. Called by `pyfsb.cli.models_import`.
"""

from __future__ import annotations

import fnmatch
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import safetensors
import torch
import transformers
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedConfig

import pyfsb
from pyfsb import records
from pyfsb.errors import CheckpointError, StorageError
from pyfsb.models import import_sources
from pyfsb.models.architectures import find_architecture
from pyfsb.models.building import find_class
from pyfsb.models.hub import INDEX_NAME, WEIGHTS_NAME, hash_sha256
from pyfsb.models.import_sources import Source
from pyfsb.models.key_maps import KeyMap, check_numbers
from pyfsb.models.loading import IMPORT_RECORD_NAME  # as it loads, it registers and quiets
from pyfsb.records import FileEntry
from pyfsb.registry import ModelEntry, find_model
from pyfsb.schema import Schema

RECORD_NAME: Final = IMPORT_RECORD_NAME
_LEGACY: Final = KeyMap(rules=((r"\.gamma$", ".weight"), (r"\.beta$", ".bias")))
"""Source: names of TensorFlow's layer norms, which early PyTorch checkpoints kept."""
_BUFFERS: Final = KeyMap(
    dropped=(
        r".*embeddings\.position_ids",
        r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",
        r".*rotary_emb\.inv_freq",
    )
)
"""Constants that earlier versions of transformers stored and that present ones compute."""
_GIB: Final = 1 << 30
_MAX_SHARD: Final = "5GB"
_MAX_NAMES: Final = 8
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What opening one file may take."""

    max_bytes: int = 60 * _GIB
    """Size of a file, packed and unpacked; the largest single file of the family has 26 GB."""
    memory_bytes: int | None = None
    """Memory beyond that of a bare process with torch. None: twice the file and 1 GiB."""
    seconds: int = 3600
    """Wall and processor time of one file."""


class SourceFile(Schema):
    """One file that was read."""

    path: str
    """Its name in the source."""
    num_bytes: int
    """Its size."""
    sha256: str
    """Hexadecimal; what the hubs publish of a file."""


class ImportRecord(Schema):
    """How a folder came to be; `import.json` in it. Without times: a repeated import is equal."""

    kind: str = "ImportRecord"
    """Which record this is."""
    model: str
    """Name of the registry entry."""
    source: str
    """Where the files are from."""
    weights_read: tuple[SourceFile, ...]
    """Weights as they were published."""
    weights_written: tuple[FileEntry, ...]
    """Weights as they lie beside this record."""
    network: str
    """How pickles were kept from the network: `namespace`, `sockets`; `none opened`."""
    others: tuple[str, ...] = ()
    """What stood in the pickles beside tensors and was left out."""
    dropped: tuple[str, ...] = ()
    """Tensors that no output depends on."""
    missing: tuple[str, ...] = ()
    """Weights that the files lack, as allowed."""
    extra: tuple[str, ...] = ()
    """Tensors that the model has no place for, left out as allowed."""
    differences: dict[str, str] = {}
    """Config values that are not those of the registry entry: `theirs, entry: ours`."""
    versions: dict[str, str]
    """Of what did the work."""


@dataclass(slots=True)
class _Work:
    """What is known while an import goes on."""

    network: str = "none opened"
    others: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)


def import_model(
    source: str,
    name: str,
    folder: Path,
    *,
    tokenizer_source: Path | None = None,
    allow_missing: tuple[str, ...] = (),
    allow_extra: tuple[str, ...] = (),
    limits: Limits | None = None,
) -> ImportRecord:
    """Convert published weights into a folder that `from_pretrained` loads.

    Args:
        source: A folder, a file of weights with config.json beside it, s3:// or a hub's URI.
        name: The registered model that they are.
        folder: Must not exist, or be empty; it appears whole or not at all.
        tokenizer_source: Folder of the tokenizer where the source has none.
        allow_missing: Patterns (`fnmatch`) of weights that may be missing; they load as random.
        allow_extra: Patterns of tensors that may be left out.
        limits: Of each pickled file.

    Returns:
        What is written to `import.json`.

    Raises:
        UnknownNameError: No such model.
        CheckpointError: The files are broken, too large, not of this model, or want to run code.
    """
    entry = find_model(name)
    if not folder.name:
        raise CheckpointError(f"{folder}: name a folder to make, not one that you are in")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder} is not empty; name a folder that does not exist")
    found = import_sources.locate(source, max_bytes=(limits or Limits()).max_bytes)
    work = _Work()
    partial = folder.with_name(f".partial-{folder.name}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        state = _read_weights(found, partial, limits or Limits(), work)
        config, differences = import_sources.build_config(found.folder, entry)
        state = _rename(state, entry, work)
        _write(state, config, found, partial)
        if _check(partial, config, found, entry, work, allow_missing, allow_extra):
            _write({n: t for n, t in state.items() if n not in work.extra}, config, found, partial)
        import_sources.write_tokenizer(tokenizer_source or found.folder, partial, entry, config)
        record = _describe(entry, source, found, partial, work, differences)
        text = json.dumps(record.to_json(), ensure_ascii=False, indent=2)
        (partial / RECORD_NAME).write_text(text + "\n", encoding="utf-8")
        del state  # its tensors are mapped from files that go now
        shutil.rmtree(partial / "raw", ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except OSError as exc:
        raise StorageError(f"{folder}: cannot be written: {exc.strerror or exc}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return record


def convert_file(source: Path, target: Path, limits: Limits) -> dict[str, Any]:
    """Convert one pickled file in a process of its own; returns that process's answer.

    Raises:
        CheckpointError: The file is too large, broken, wants to run code, or breaks a limit.
    """
    num_bytes = source.stat().st_size
    if num_bytes > limits.max_bytes:
        raise CheckpointError(
            f"{source} has {num_bytes:,} bytes, more than the limit {limits.max_bytes:,} "
            "(--max-gib raises it)"
        )
    job = {
        "source": str(source.resolve()),
        "target": str(target.resolve()),
        "max_bytes": limits.max_bytes,
        "memory_bytes": limits.memory_bytes or 2 * num_bytes + _GIB,
        "cpu_seconds": limits.seconds,
    }
    environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR")
                   if name in os.environ}  # fmt: skip
    environment |= {"PYTHONPATH": str(Path(pyfsb.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pyfsb.models.importing_child"]
    try:
        done = subprocess.run(  # noqa: S603
            command, input=json.dumps(job), capture_output=True, text=True, env=environment,
            timeout=limits.seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        target.unlink(missing_ok=True)
        raise CheckpointError(
            f"{source}: not converted within {limits.seconds} s (--timeout-seconds raises it)"
        ) from None
    return _judge(source, target, done)


def _judge(source: Path, target: Path, done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        answer = {"error": f"the process ended with {done.returncode}: {done.stderr[-500:]}"}
    if "error" not in answer and done.returncode == 0:
        return answer
    target.unlink(missing_ok=True)
    reason = str(answer.get("error", f"exit code {done.returncode}"))
    if "Weights only load failed" in reason or "PermissionError" in reason:
        asked = re.search(r"GLOBAL ([\w.]+)|global ([\w.]+)|asked for ([\w.]+)", reason)
        what = next((part for part in asked.groups() if part), "") if asked else ""
        if what and "magic" not in reason:
            raise CheckpointError(
                f"{source}: refused, for it is not plain weights: it asks for {what}. Nothing of "
                "it was run; get the weights as safetensors from someone you trust"
            )
    # torch's text also says how to open the file all the same, which nobody should.
    reason = reason.rpartition("from a trusted source.")[2].partition("Check the documentation")[0]
    reason = " ".join(re.split(r"Weights\w+ error:", reason)[-1].split())
    raise CheckpointError(
        f"{source}: cannot be read as weights; it may be cut short or no checkpoint of PyTorch: "
        f"{reason[:300]}"
    )


def _read_weights(found: Source, partial: Path, limits: Limits, work: _Work) -> dict[str, Tensor]:
    """Return all tensors under their published names."""
    raw = partial / "raw"
    raw.mkdir()
    state: dict[str, Tensor] = {}
    for number, path in enumerate(found.weights):
        target = path
        if path.suffix != ".safetensors":
            target = raw / f"{number}.safetensors"
            answer = convert_file(path, target, limits)
            work.network = str(answer["network"])
            work.others += answer["others"]
        try:
            tensors = load_file(target)
        except (SafetensorError, OSError) as exc:
            raise CheckpointError(f"{path}: not whole safetensors: {exc}") from None
        if twice := sorted(set(tensors) & set(state)):
            raise CheckpointError(f"{path.name} has {twice[0]!r} again; another file has it too")
        state |= tensors
    return state


def _rename(state: Mapping[str, Tensor], entry: ModelEntry, work: _Work) -> dict[str, Tensor]:
    """Bring published names to those of the module that will load them."""
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    own = find_architecture(entry.architecture)
    maps = [own.key_map] if own else []
    for key_map in (*maps, _LEGACY, _BUFFERS):
        work.dropped += [name for name in state if key_map.rename(name) is None]
        state = key_map.convert(state)
    return dict(state)


def _write(
    state: Mapping[str, Tensor], config: PreTrainedConfig, found: Source, partial: Path
) -> None:
    """Write weights and config as `save_pretrained` does, in shards where they are large."""
    check_numbers(state, source=found.uri)
    for path in partial.glob("model*.safetensors*"):
        path.unlink()
    split = split_torch_state_dict_into_shards(dict(state), max_shard_size=_MAX_SHARD)
    for name, keys in split.filename_to_tensors.items():
        tensors = {key: state[key].contiguous().clone() for key in keys}
        save_file(tensors, partial / name, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (partial / INDEX_NAME).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    config.save_pretrained(partial)
    generation = found.folder / "generation_config.json"
    if generation.is_file():
        shutil.copyfile(generation, partial / generation.name)


def _check(
    partial: Path,
    config: PreTrainedConfig,
    found: Source,
    entry: ModelEntry,
    work: _Work,
    allow_missing: tuple[str, ...],
    allow_extra: tuple[str, ...],
) -> bool:
    """Compare names and shapes with the module, on the meta device; tells whether any are extra."""
    module = _find_module(config, entry)
    try:
        model, report = module.from_pretrained(
            partial,
            config=config,
            device_map="meta",
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as exc:
        raise CheckpointError(f"{found.uri}: weights do not fit {entry.name}: {exc}") from None
    wrong = [
        f"{name} {list(theirs)}, expected {list(ours)}"
        for name, theirs, ours in sorted(report["mismatched_keys"])
    ]
    work.missing = sorted(report["missing_keys"])
    work.extra = sorted(report["unexpected_keys"])
    problems = [
        f"{len(names)} {what}: {', '.join(names[:_MAX_NAMES])}"
        + (" …" if len(names) > _MAX_NAMES else "")
        for what, names in (
            ("missing", _not_allowed(work.missing, allow_missing)),
            ("extra", _not_allowed(work.extra, allow_extra)),
            ("of another shape", wrong),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{found.uri}: weights do not fit {entry.name} ({module.__name__}): "
            f"{'; '.join(problems)}. --allow-missing and --allow-extra take patterns of names"
        )
    config.architectures = [type(model).__name__]  # the published one may be a class of theirs
    config.save_pretrained(partial)
    return bool(work.extra)


def _not_allowed(names: list[str], patterns: tuple[str, ...]) -> list[str]:
    return [n for n in names if not any(fnmatch.fnmatchcase(n, pattern) for pattern in patterns)]


def _find_module(config: PreTrainedConfig, entry: ModelEntry) -> Any:
    """Return the class that the weights are of: the one their config names, else the family's."""
    own = find_architecture(entry.architecture)
    if own is None:
        for name in config.architectures or ():
            named = getattr(transformers, name, None)
            if named is not None:
                return named
    return find_class(entry.architecture, entry.family)


def _describe(
    entry: ModelEntry,
    source: str,
    found: Source,
    partial: Path,
    work: _Work,
    differences: dict[str, str],
) -> ImportRecord:
    for key, text in differences.items():
        _log.warning("%s: config.%s is %s", source, key, text)
    written = [partial / WEIGHTS_NAME] if (partial / WEIGHTS_NAME).is_file() else []
    written += sorted(partial.glob("model-*-of-*.safetensors"))
    return ImportRecord(
        model=entry.name,
        source=found.uri,
        weights_read=tuple(
            SourceFile(path=path.name, num_bytes=path.stat().st_size, sha256=hash_sha256(path))
            for path in found.weights
        ),
        weights_written=records.describe_files(partial, written),
        network=work.network,
        others=tuple(work.others),
        dropped=tuple(sorted(work.dropped)),
        missing=tuple(work.missing),
        extra=tuple(work.extra),
        differences=differences,
        versions={
            "pyfsb": pyfsb.__version__,
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
            "safetensors": safetensors.__version__,
        },
    )
