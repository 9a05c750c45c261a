# SPDX-License-Identifier: Apache-2.0
"""Pretraining samples: token shards through an objective into flat batches.

One corpus or a blend of several, each a shard folder on a disk or on S3; samples are numbered
through all parts. Called by `run`; knows neither processes nor steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyfsb import storage
from pyfsb.config import DataSpec
from pyfsb.data.shard_cache import ShardCache
from pyfsb.data.shards import NUM_SPECIAL_TOKENS, ShardIndex, Shards
from pyfsb.data.streaming import Prefetcher, StreamedPart, check_room, open_cache, open_part
from pyfsb.objectives import Objective
from pyfsb.objectives.protocol import Samples
from pyfsb.training.order import (
    FollowedOrder,
    Needs,
    Part,
    SampleOrder,
    build_order,
    held_out_ids,
)
from pyfsb.training.protocol import Batch, SampleSource

Ints = NDArray[np.int64]


class CorpusSource:
    """The samples of one or several shard folders, masked anew in every pass."""

    def __init__(self, parts: Sequence[Shards], objective: Objective, *, seed: int) -> None:
        """Keep shards and objective.

        Args:
            parts: Token shards of each part.
            objective: Makes inputs and targets.
            seed: Of the objective's random choices.

        Raises:
            DataError: A part lacks a column that the objective needs.
        """
        for part in parts:
            part.require(objective.columns)
        self._parts = tuple(parts)
        self._firsts = np.concatenate(([0], np.cumsum([len(part) for part in parts])))
        self._objective = objective
        self._seed = seed
        self.lengths = CorpusLengths(self._parts, self._firsts)

    def collate(self, sample_ids: Ints, passes: Ints) -> Batch:
        """Return the batch of these samples, each in its pass; the same every time."""
        inputs = self._objective.build(self._read(sample_ids, passes), seed=self._seed)
        return Batch(
            inputs={name: torch.from_numpy(values) for name, values in inputs.arguments.items()},
            num_targets=inputs.num_targets,
            num_tokens=inputs.num_tokens,
        )

    def _read(self, sample_ids: Ints, passes: Ints) -> Samples:
        """Read samples; those of one part lie together, in the order given otherwise."""
        parts = np.searchsorted(self._firsts, sample_ids, side="right") - 1
        order = np.argsort(parts, kind="stable")
        sample_ids, passes, parts = sample_ids[order], passes[order], parts[order]
        read = [
            self._parts[part].read_many(sample_ids[parts == part] - self._firsts[part])
            for part in np.unique(parts).tolist()
        ]
        ids, words, lengths = (np.concatenate(columns) for columns in zip(*read, strict=True))
        return Samples(
            ids_N=ids.astype(np.int64),
            words_N=words,
            lengths_B=lengths,
            sample_ids_B=sample_ids,
            passes_B=passes,
            **self._read_columns(sample_ids, parts),
        )

    def _read_columns(self, sample_ids: Ints, parts: Ints) -> dict[str, NDArray[Any]]:
        """Read what the objective asks for beside ids and words, samples grouped by part."""
        names = self._objective.columns
        if not names:
            return {}
        read = [
            self._parts[part].read_columns(sample_ids[parts == part] - self._firsts[part], names)
            for part in np.unique(parts).tolist()
        ]
        return {f"{name}_N": np.concatenate([own[name] for own in read]) for name in names}


class CorpusLengths:
    """Tokens of each sample, special tokens included, looked up in the shards."""

    def __init__(self, parts: Sequence[Shards], firsts: Ints) -> None:
        """Keep the parts and the number of the first sample of each."""
        self._parts = parts
        self._firsts = firsts

    def __getitem__(self, sample_ids: Ints, /) -> Ints:
        """Return the tokens of samples."""
        if len(self._parts) == 1:
            return self._parts[0].lengths_of(sample_ids) + NUM_SPECIAL_TOKENS
        numbers = np.searchsorted(self._firsts, sample_ids, side="right") - 1
        lengths = np.empty_like(sample_ids)
        for number in np.unique(numbers).tolist():
            mine = numbers == number
            found = self._parts[number].lengths_of(sample_ids[mine] - self._firsts[number])
            lengths[mine] = found + NUM_SPECIAL_TOKENS
        return lengths


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusPlace:
    """Where the shards of one part lie."""

    name: str
    """Its name, for errors."""
    uri: str
    """Its shard folder, local or s3://."""
    weight: float | None = None
    """Its share of the samples. None takes its size, tempered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Everything a pretraining reads."""

    source: SampleSource
    """The samples."""
    order: SampleOrder
    """Their sequence; brings shards from S3 ahead of time."""
    held_out_ids: Ints
    """Samples that are in no order, for validation."""
    num_tokens: int
    """Tokens of all samples, special tokens included."""
    indexes: tuple[ShardIndex, ...]
    """The index of each part: all must be of the model's vocabulary."""
    part_tokens: tuple[int, ...]
    """Tokens of one pass over each part, special tokens included, held-out samples not."""
    prefetcher: Prefetcher | None = field(default=None, repr=False)
    """Of the parts on S3."""

    def least_tokens(self, num_epochs: int) -> int:
        """Return how many tokens so many epochs have at least: those of whole passes over parts.

        Exact for one corpus; nothing is looked up. With it a limit of steps is known to be met
        without counting steps.
        """
        passes = self.order.whole_passes(num_epochs)
        return sum(tokens * own for tokens, own in zip(self.part_tokens, passes, strict=True))

    def close(self) -> None:
        """End prefetching."""
        if self.prefetcher:
            self.prefetcher.close()


def open_corpus(
    places: Sequence[CorpusPlace],
    objective: Objective,
    *,
    data: DataSpec,
    seed: int,
    held_out_samples: int,
    step_tokens: int = 0,
) -> Corpus:
    """Open the shard folders of a training.

    Those on S3 are read as the order comes to them, never brought as a whole.

    Args:
        places: The corpora, in the order in which their samples are numbered.
        objective: Makes inputs and targets.
        data: Window, cache and temperature of the blend.
        seed: Of the order and of the objective's random choices.
        held_out_samples: The last samples of each part, kept out of the order.
        step_tokens: Tokens of a step: windows in a bounded cache must hold some.

    Raises:
        ConfigError: The cache cannot hold two windows, or a part has too few samples.
        DataError: A folder holds no usable shards.
    """
    cache = open_cache(data.cache_bytes) if any(storage.is_s3(p.uri) for p in places) else None
    streamed = [_open_streamed(place, cache, objective) for place in places]
    shards = [
        part.shards if part else Shards.open(Path(place.uri))
        for part, place in zip(streamed, places, strict=True)
    ]
    check_room(
        [part for part in streamed if part], max_bytes=data.cache_bytes,
        window_shards=data.shuffle_shards, held_out_samples=held_out_samples,
        step_tokens=step_tokens,
    )  # fmt: skip
    prefetcher = Prefetcher(streamed, cache) if cache else None
    parts = [
        Part(name=place.name, shard_samples=part.shard_samples, weight=place.weight)
        for place, part in zip(places, shards, strict=True)
    ]
    order = build_order(
        parts, seed=seed, held_out_samples=held_out_samples, window_shards=data.shuffle_shards,
        temperature=data.blend_temperature,
    )  # fmt: skip
    source = CorpusSource(shards, objective, seed=seed)
    held_out = held_out_ids([len(part) for part in shards], held_out_samples)
    tails = source.lengths[held_out].reshape(len(shards), held_out_samples).sum(axis=1)
    totals = [part.num_tokens + NUM_SPECIAL_TOKENS * len(part) for part in shards]
    return Corpus(
        source=source,
        order=_followed(order, prefetcher) if prefetcher else order,
        held_out_ids=held_out,
        num_tokens=sum(totals),
        part_tokens=tuple((np.array(totals) - tails).tolist()),
        indexes=tuple(part.index for part in shards),
        prefetcher=prefetcher,
    )


def _open_streamed(
    place: CorpusPlace, cache: ShardCache | None, objective: Objective
) -> StreamedPart | None:
    """Open a folder on S3; None for one on this machine."""
    if cache is None or not storage.is_s3(place.uri):
        return None
    return open_part(place.uri, cache, columns=objective.columns)


def _followed(order: SampleOrder, prefetcher: Prefetcher) -> FollowedOrder:
    def tell(needs: tuple[Needs, ...]) -> None:
        prefetcher.tell(
            [part.now for part in needs],
            [part.coming for part in needs],
            [part.later for part in needs],
        )

    return FollowedOrder(order, tell)
