# SPDX-License-Identifier: Apache-2.0
"""Where a URI of a run lies for its pods: on S3 as it is, on a claim as a mounted path; pure.

The operator turns what pods tell back with `to_claim`, so that a status names places that mean the
same to everybody.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pyfsb import storage
from pyfsb.config import DataSpec, MixtureSet, RunSpec
from pyfsb.errors import ConfigError
from pyfsb.schema import Json

PVC_SCHEME: Final = "pvc://"
_CLAIM_FOLDER: Final = "/mnt/claims"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A ReadWriteMany volume that a URI of the run lies on."""

    name: str
    path: str
    """Where it is mounted."""


@dataclass(slots=True)
class Placing:
    """Turns URIs into what pods see, and remembers the claims they need."""

    found: dict[str, Claim] = field(default_factory=dict)

    @property
    def claims(self) -> tuple[Claim, ...]:
        """Every claim that was named so far."""
        return tuple(self.found.values())

    def place(self, uri: str, key: str) -> str:
        """Return the place of a URI inside a pod.

        Args:
            uri: `s3://bucket/folder` or `pvc://claim/folder`.
            key: Which setting it is, for the error text.

        Raises:
            ConfigError: It is neither.
        """
        if uri.startswith("s3://"):
            return uri
        if not uri.startswith(PVC_SCHEME):
            raise ConfigError(
                f"{key} = {uri!r}: pods share no disk; expected s3://bucket/folder or "
                "pvc://claim/folder"
            )
        claim, _, path = uri.removeprefix(PVC_SCHEME).partition("/")
        self.found[claim] = Claim(name=claim, path=f"{_CLAIM_FOLDER}/{claim}")
        return f"{_CLAIM_FOLDER}/{claim}/{path}".rstrip("/")

    def place_run(self, run: RunSpec) -> RunSpec:
        """Return the run with every path as its pods see it.

        Raises:
            ConfigError: A path is neither on S3 nor on a claim.
        """
        checkpoint = run.model.checkpoint
        if checkpoint and not storage.is_hub(checkpoint):
            checkpoint = self.place(to_claim(checkpoint), "run.model.checkpoint")
        return run.model_copy(
            update={
                "output": self.place(run.output, "run.output"),
                "data": self._place_data(run),
                "model": run.model.model_copy(update={"checkpoint": checkpoint}),
            }
        )

    def _place_data(self, run: RunSpec) -> DataSpec:
        data, vocabulary = run.data, run.data.vocabulary
        corpus = tuple(
            self.place(pattern, "run.data.corpus") if "://" in pattern else pattern
            for pattern in data.corpus
        )
        rows = tuple(
            self.place(pattern, "run.data.rows") if "://" in pattern else pattern
            for pattern in data.rows
        )
        paths: Json = {"corpus": corpus, "rows": rows}
        if data.tokenizer and not storage.is_hub(data.tokenizer):
            paths["tokenizer"] = self.place(to_claim(data.tokenizer), "run.data.tokenizer")
        for key in ("train", "test", "task"):
            value = getattr(data, key)
            if isinstance(value, str):
                paths[key] = self.place(value, f"run.data.{key}")
        paths["blend"] = tuple(
            part.model_copy(update={"uri": self.place(part.uri, f"run.data.blend {part.name}")})
            for part in data.blend
        )
        sets = data.mixture.sets if data.mixture else ()
        if data.mixture:
            placed = tuple(self._place_set(part) for part in sets)
            paths["mixture"] = data.mixture.model_copy(update={"sets": placed})
        own = [path for part in sets for path in (part.train, part.test) if path]
        is_remote = all("://" in one for one in (*data.corpus, *data.rows, *own))
        # Nothing is read below the root where every pattern is a URI and no task has files there.
        if data.root != "." or run.evaluation.tasks or not is_remote:
            paths["root"] = self.place(data.root, "run.data.root")
        if vocabulary.file and ("://" in vocabulary.file or vocabulary.file.startswith("/")):
            place = self.place(vocabulary.file, "run.data.vocabulary.file")
            paths["vocabulary"] = vocabulary.model_copy(update={"file": place})
        return data.model_copy(update=paths)

    def _place_set(self, part: MixtureSet) -> MixtureSet:
        """Return a set of a mixture as pods see it; relative paths lie below the root."""
        found = {
            key: self.place(path, f"run.data.mixture {part.name}.{key}")
            for key, path in (("train", part.train), ("test", part.test))
            if path and "://" in path
        }
        return part.model_copy(update=found)


def to_claim(uri: str) -> str:
    """Return what everybody calls a place that a pod named by its mounted path."""
    if not uri.startswith(f"{_CLAIM_FOLDER}/"):
        return uri
    return PVC_SCHEME + uri.removeprefix(f"{_CLAIM_FOLDER}/")
