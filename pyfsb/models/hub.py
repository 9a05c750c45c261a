# SPDX-License-Identifier: Apache-2.0
"""Weights of model hubs: `hf://org/name[@revision]` and `modelscope://org/name[@revision]`.

Called by `loading`. What lies in a local cache is taken without a word to the network; with
`HF_HUB_OFFLINE` nothing else is tried, for either hub. What is fetched is compared with the sizes
and sha256 that the hub states, and a folder is used only when it is whole. Never opens a pickle.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pyfsb.errors import CheckpointError, ConfigError, StorageError
from pyfsb.storage.workspace import cache_folder

WEIGHTS_NAME: Final = "model.safetensors"
INDEX_NAME: Final = "model.safetensors.index.json"
WANTED: Final = (
    "config.json",
    "generation_config.json",
    WEIGHTS_NAME,
    INDEX_NAME,
    "model-*-of-*.safetensors",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "ngram.txt",
    "preprocessor_config.json",
)
"""Files of a repository that are fetched, at its top level: weights once, config, tokenizer with
lexicon, preprocessor."""
TIMEOUT_SECONDS: Final = 30.0
"""Of a single answer."""

_HUB_URI: Final = re.compile(
    r"(hf|modelscope)://([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?"
)
_DEFAULT_REVISIONS: Final = {"hf": "main", "modelscope": "master"}
_BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class HubUri:
    """A repository of a model hub at a revision."""

    hub: str
    """`hf` or `modelscope`."""
    name: str
    """Organisation and name."""
    revision: str
    """Branch, tag, commit or pull request (`refs/pr/1`)."""

    def __str__(self) -> str:
        """Return it as it is written in a spec."""
        return f"{self.hub}://{self.name}@{self.revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A repository's files on this machine."""

    folder: Path
    """Where they lie."""
    uri: str
    """The repository at the commit they are of, where the cache tells it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """What a hub says about one file."""

    path: str
    """Relative to the repository."""
    num_bytes: int | None
    """Its size; None when the hub does not say."""
    sha256: str | None = None
    """Hexadecimal, of the content; None when the hub does not say."""


def is_hub_uri(text: str) -> bool:
    """Say whether a text is meant as a hub's repository."""
    return text.startswith(("hf://", "modelscope://"))


def parse_hub_uri(text: str) -> HubUri:
    """Take a hub URI apart.

    Raises:
        ConfigError: It is none.
    """
    found = _HUB_URI.fullmatch(text.rstrip("/"))
    if found is None or ".." in text:
        raise ConfigError(
            f"{text!r}: expected hf://ORG/NAME or modelscope://ORG/NAME, with @REVISION or without"
        )
    hub, name, revision = found.groups()
    return HubUri(hub=hub, name=name, revision=revision or _DEFAULT_REVISIONS[hub])


def bring(uri: HubUri) -> Snapshot:
    """Return the files of a repository: from a local cache, else from the hub.

    Raises:
        CheckpointError: They are neither here nor to be had, are not safetensors, or are not what
            the hub says they are.
        StorageError: The hub failed, or the disk is full; another try may succeed.
    """
    places = _hf_places(uri) if uri.hub == "hf" else _modelscope_places(uri)
    for folder, revision in places:
        if find_gap(folder) is None:
            pinned = HubUri(hub=uri.hub, name=uri.name, revision=revision)
            return Snapshot(folder=folder, uri=str(pinned))
    if is_offline():
        raise CheckpointError(_explain_absence(uri, [folder for folder, _ in places]))
    if uri.hub == "hf":
        return _fetch_hf(uri)
    from pyfsb.models.modelscope import fetch

    return fetch(uri, modelscope_folder(uri))


def is_offline() -> bool:
    """Say whether the user has ruled the network out (`HF_HUB_OFFLINE`), for both hubs."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def find_gap(folder: Path) -> str | None:
    """Return what a Hugging Face folder lacks to be loaded, or None when it is whole."""
    if not (folder / "config.json").is_file():
        return "config.json"
    if (folder / WEIGHTS_NAME).is_file():
        return None
    if not (folder / INDEX_NAME).is_file():
        return WEIGHTS_NAME
    missing = [name for name in shard_names(folder) if not (folder / name).is_file()]
    return missing[0] if missing else None


def shard_names(folder: Path) -> list[str]:
    """Return the names of the files that an index of sharded weights lists.

    Raises:
        CheckpointError: The index is broken, or names a file outside of its folder.
    """
    path = folder / INDEX_NAME
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise CheckpointError(f"{path} is not an index of weights: {exc!r}") from None
    for name in names:
        if not isinstance(name, str) or name != Path(name).name:
            raise CheckpointError(f"{path} names {name!r}; expected a file beside it")
        if not name.endswith(".safetensors"):
            raise CheckpointError(f"{path} names {name}; only safetensors are opened")
    return names


def choose_files(uri: HubUri, files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """Return the files to fetch of those a repository has.

    Raises:
        CheckpointError: There are no weights in safetensors, or no config.json.
    """
    known = {file.path: file for file in files}
    chosen = [
        file
        for path, file in sorted(known.items())
        if path == Path(path).name and any(fnmatch.fnmatchcase(path, w) for w in WANTED)
    ]
    names = {file.path for file in chosen}
    if not names & {WEIGHTS_NAME, INDEX_NAME}:
        raise CheckpointError(_explain_refusal(uri, list(known)))
    if "config.json" not in names:
        raise CheckpointError(f"{uri} has no config.json; expected a model of transformers")
    if WEIGHTS_NAME in names:  # the same weights once more, in shards
        chosen = [file for file in chosen if file.path != INDEX_NAME and "-of-" not in file.path]
    return chosen


def check_file(path: Path, file: RemoteFile, uri: HubUri) -> None:
    """Compare a fetched file with what the hub says about it.

    Raises:
        CheckpointError: Size or content differ.
    """
    size = path.stat().st_size
    if file.num_bytes is not None and size != file.num_bytes:
        raise CheckpointError(f"{uri}: {file.path} has {size} bytes here, {file.num_bytes} there")
    if file.sha256 is None:
        return
    found = hash_sha256(path)
    if found != file.sha256:
        raise CheckpointError(
            f"{uri}: {file.path} has sha256 {found[:12]}… here, {file.sha256[:12]}… there"
        )


def hash_sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file."""
    state = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            state.update(block)
    return state.hexdigest()


def modelscope_folder(uri: HubUri) -> Path:
    """Return where we keep a ModelScope repository: `refs/REVISION` and `snapshots/COMMIT/`."""
    return cache_folder() / "modelscope" / uri.name


def _hf_places(uri: HubUri) -> list[tuple[Path, str]]:
    """Return where huggingface_hub would keep a repository, with the commit.

    Source: huggingface_hub's cache layout (models--ORG--NAME/{refs,snapshots}).
    """
    from huggingface_hub import constants

    base = Path(constants.HF_HUB_CACHE) / f"models--{uri.name.replace('/', '--')}"
    commits = [uri.revision]
    reference = base / "refs" / uri.revision
    if reference.is_file():
        commits.insert(0, reference.read_text(encoding="utf-8").strip())
    return [(base / "snapshots" / commit, commit) for commit in commits]


def _modelscope_places(uri: HubUri) -> list[tuple[Path, str]]:
    """Return where we, or ModelScope's own tools, would keep a repository.

    Source: modelscope.hub (file_download, utils.caching): `models/ORG/NAME` or, before 1.20,
    `ORG/NAME` below `MODELSCOPE_CACHE`, dots of the name as `___`; one revision at a time, named in
    `.mv`. Their index of files is a pickle and is left alone.
    """
    base = modelscope_folder(uri)
    reference = base / "refs" / uri.revision.replace("/", "%2F")
    commits = [uri.revision]
    if reference.is_file():
        commits.insert(0, reference.read_text(encoding="utf-8").strip())
    places = [(base / "snapshots" / commit.replace("/", "%2F"), commit) for commit in commits]
    root = Path(os.environ.get("MODELSCOPE_CACHE") or Path("~/.cache/modelscope/hub").expanduser())
    organisation, _, name = uri.name.partition("/")
    for parent in (root / "models", root / "hub" / "models", root):
        for spelling in dict.fromkeys((name.replace(".", "___"), name)):
            folder = parent / organisation / spelling
            if (folder / ".mv").is_file() and _stored_revision(folder) != uri.revision:
                continue
            places.append((folder, uri.revision))
    return places


def _stored_revision(folder: Path) -> str:
    """Return the revision that ModelScope's tools noted: `Revision:master,CreatedAt:…`."""
    text = (folder / ".mv").read_text(encoding="utf-8", errors="replace")
    return text.removeprefix("Revision:").partition(",")[0].strip()


def _fetch_hf(uri: HubUri) -> Snapshot:
    """Bring a repository into huggingface_hub's own cache."""
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        info: Any = HfApi().model_info(
            uri.name, revision=uri.revision, files_metadata=True, timeout=TIMEOUT_SECONDS
        )
        chosen = choose_files(uri, [_describe(sibling) for sibling in info.siblings or ()])
        folder = Path(
            snapshot_download(
                uri.name,
                revision=uri.revision,
                cache_dir=constants.HF_HUB_CACHE,
                allow_patterns=[file.path for file in chosen],
                etag_timeout=TIMEOUT_SECONDS,
            )
        )
    except HfHubHTTPError as exc:
        status = getattr(getattr(exc, "response", None), "status_code", None)
        text = _explain_failure(uri, f"the hub answered {status}")
        raise (StorageError if status is None or status >= 500 else CheckpointError)(text) from None
    except (OSError, ValueError) as exc:
        raise CheckpointError(_explain_failure(uri, type(exc).__name__)) from None
    except Exception as exc:
        # The hub's HTTP library changes with its versions, and so do the classes of its errors.
        if "Connect" not in type(exc).__name__ and "Timeout" not in type(exc).__name__:
            raise
        raise CheckpointError(_explain_failure(uri, type(exc).__name__)) from None
    if folder.name != info.sha:
        raise StorageError(f"{uri} changed while it was fetched; run the same command again")
    _check_snapshot(uri, folder, {file.path: file for file in chosen})
    return Snapshot(folder=folder, uri=str(HubUri(hub="hf", name=uri.name, revision=info.sha)))


def _describe(sibling: Any) -> RemoteFile:
    lfs = sibling.lfs
    return RemoteFile(
        path=sibling.rfilename, num_bytes=sibling.size, sha256=lfs.sha256 if lfs else None
    )


def _check_snapshot(uri: HubUri, folder: Path, files: Mapping[str, RemoteFile]) -> None:
    """Compare all files; a wrong one is deleted, so that the next try fetches it again."""
    for name, file in files.items():
        path = folder / name
        try:
            check_file(path, file, uri)
        except CheckpointError:
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise
    gap = find_gap(folder)
    if gap:
        raise CheckpointError(f"{uri} lacks {gap}, which its index names")


def _explain_absence(uri: HubUri, folders: Iterable[Path]) -> str:
    """Return the text for a repository that no cache has whole, while the network is ruled out."""
    for folder in folders:
        if folder.is_dir():
            others = sorted(path.name for path in folder.glob("*.bin"))
            if others and not list(folder.glob("*.safetensors")):
                return _explain_refusal(uri, others)
            gap = f"{folder} lacks {find_gap(folder)}"
            return f"{uri}: {gap}, and HF_HUB_OFFLINE is set; {how_to_get(uri)}"
    return f"{uri} is in no local cache, and HF_HUB_OFFLINE is set; {how_to_get(uri)}"


def _explain_failure(uri: HubUri, reason: str) -> str:
    return f"{uri} is in no local cache and cannot be fetched ({reason}); {how_to_get(uri)}"


def how_to_get(uri: HubUri) -> str:
    """Return how to get a repository here."""
    cache = "HF_HOME" if uri.hub == "hf" else "FSB_CACHE"
    return (
        f"where there is a network run `fsb models fetch {uri}` and copy {cache} here, or give a "
        "folder with config.json and model.safetensors"
    )


def _explain_refusal(uri: HubUri, paths: Iterable[str]) -> str:
    others = [path for path in paths if path.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    found = f" (it has {', '.join(sorted(others)[:2])})" if others else ""
    text = (
        f"{uri} publishes no safetensors{found}; only those are opened, for a .bin file can run "
        "code"
    )
    if uri.hub != "hf":
        return f"{text}. Convert it on a machine you can lose and give the folder"
    return (
        f"{text}. A revision with model.safetensors will do, such as the hub's own conversion "
        f"(hf://{uri.name}@refs/pr/N, see the repository's pull requests)"
    )
