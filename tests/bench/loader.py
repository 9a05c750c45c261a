"""B5: shuffled batches of 512-token samples with word bits, and resuming at sample n.

Peers, each in the form its documents advise: mosaicml-streaming (MDS), webdataset (tar), Hugging
Face datasets (Arrow). One thread, CPU seconds, variants in turn, the same samples (sums compared),
a batch is tokens [64, 512] as uint16 and word bits [64, 512] as bool. Limits: `np.stack` of slices
of the token array, and one copy of as many bytes as a batch has. Ours is the training's own path
up to the objective: plan of the step, order, lengths, sharing out, reading. Last, how long steps
wait for data when everything comes from a cold S3 through a small cache, masks included.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pyfsb.config import DataSpec, ObjectiveName, ObjectiveSpec
from pyfsb.data.shards import Shards, ShardWriter
from pyfsb.objectives import SpecialIds, make_objective
from pyfsb.training.batching import Position, StepPlanner, share_out
from pyfsb.training.loader import Loader
from pyfsb.training.order import Part, build_order
from pyfsb.training.sources import CorpusPlace, open_corpus
from tests.bench.peers import peer_python
from tests.helpers import s3

NUM_SAMPLES, SAMPLE_TOKENS, ROWS = 65_536, 512, 64
_ROUNDS, _BATCHES = 5, 128
_PEERS = {"mds": "loaders", "webdataset": "loaders", "datasets": "hf_datasets"}
"""Their environments: two of them want different versions of numpy and fsspec."""
_SHARD_TOKENS = 1_000_000
_WAIT_STEPS, _STEP_SECONDS = 300, 0.05
_LARGE_SHARDS, _LARGE_SAMPLES = 10_000, 110_000
_PROGRAM = Path(__file__).parent / "programs/loader_peers.py"


class Peer:
    """A peer's process: it stays, so that rounds take turns with ours."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._log = (folder / "log").open("w+")
        self._process = subprocess.Popen(
            [str(peer_python(_PEERS[name])), str(_PROGRAM), name, str(folder)], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self.write_seconds = self._read()["write_seconds"]

    def ask(self, command: str) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)
        self._log.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line: str = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise RuntimeError(f"the peer {self._name} ended:\n{self._log.read()[-3000:]}")
        found: dict[str, Any] = json.loads(line)
        return found


class Ours:
    """Our shards, read as training reads them."""

    def __init__(self, shards: Shards, *, world_size: int = 1) -> None:
        self.shards, self.world_size = shards, world_size
        order = build_order([Part(name="b5", shard_samples=shards.shard_samples)], seed=1)
        self.planner = StepPlanner(Lengths(shards), order, tokens=ROWS * SAMPLE_TOKENS * world_size)

    def batch(self, position: Position) -> tuple[Any, Any, Position]:
        plan = self.planner.plan(position)
        shares = share_out(
            self.planner.lengths_of(plan.sample_ids), num_processes=self.world_size,
            micro_tokens=ROWS * SAMPLE_TOKENS,
        )  # fmt: skip
        (rows,) = shares[0]
        tokens, words, _ = self.shards.read_many(plan.sample_ids[rows])
        return tokens.reshape(ROWS, -1), words.reshape(ROWS, -1), plan.next

    def round(self, num_batches: int) -> float:
        _, _, position = self.batch(Position())
        started = time.process_time()
        for _ in range(num_batches):
            *_, position = self.batch(position)
        return time.process_time() - started


class Lengths:
    """Samples without special tokens: a batch is 64 x 512."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    def __getitem__(self, sample_ids: Any, /) -> Any:
        return self._shards.lengths_of(sample_ids)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokens, words = _write(folder)
        shards = Shards.open(folder / "ours")
        _check_content(shards, tokens, words)
        _check_orders(shards)
        peers = {}
        for peer in _PEERS:
            shutil.copytree(folder / "raw", folder / peer)
            peers[peer] = Peer(peer, folder / peer)
        try:
            _compare_content(peers, tokens, words)
            _measure_rounds(peers, shards, tokens)
            _measure_resume(peers, shards)
        finally:
            for process in peers.values():
                process.close()
        _measure_large(folder / "large")
        _measure_wait(folder)


def _write(folder: Path) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 21_128, (NUM_SAMPLES, SAMPLE_TOKENS)).astype(np.uint16)
    words = rng.random((NUM_SAMPLES, SAMPLE_TOKENS)) < 0.6
    (folder / "raw").mkdir()
    np.save(folder / "raw/tokens.npy", tokens)
    np.save(folder / "raw/words.npy", np.packbits(words, axis=1))
    started = time.process_time()
    writer = ShardWriter(
        folder / "ours",
        vocabulary_size=21_128,
        max_tokens=SAMPLE_TOKENS,
        shard_tokens=_SHARD_TOKENS,
    )
    for start in range(0, NUM_SAMPLES, 16):  # documents of 16 samples
        size = 16 * SAMPLE_TOKENS
        own, bits = tokens[start : start + 16].reshape(-1), words[start : start + 16].reshape(-1)
        writer.add(own, bits, range(0, size, SAMPLE_TOKENS))
    writer.close("sha256:b5")
    print(
        f"written in {time.process_time() - started:.2f} CPU seconds, {tokens.nbytes / 1e6:.0f} MB"
    )
    return tokens, words


def _check_content(shards: Shards, tokens: Any, words: Any) -> None:
    ours, position, seen = Ours(shards), Position(), np.zeros(NUM_SAMPLES, dtype=np.int64)
    while position.epoch == 0:
        plan = ours.planner.plan(position)
        seen[plan.sample_ids] += 1
        position = plan.next
    assert np.all(seen == 1), "an epoch has every sample once"
    chosen = plan.sample_ids
    found, found_words, _ = shards.read_many(chosen)
    assert np.array_equal(found, tokens[chosen].reshape(-1))
    assert np.array_equal(found_words, words[chosen].reshape(-1))


def _check_orders(shards: Shards) -> None:
    """1, 2, 4 and 8 ranks, and a run that changes between them, see the same steps."""
    lengths = Lengths(shards)
    order = build_order([Part(name="b5", shard_samples=shards.shard_samples)], seed=1)
    sequences = []
    for sizes in ([1], [2], [4], [8], [1, 8, 2, 4]):
        position, steps = Position(epoch=0, offset=NUM_SAMPLES - 3000), []
        for step in range(12):  # over the end of an epoch
            planner = StepPlanner(lengths, order, tokens=8 * ROWS * SAMPLE_TOKENS)
            plan = planner.plan(position)
            size = sizes[step % len(sizes)]
            shares = share_out(
                lengths[plan.sample_ids], num_processes=size, micro_tokens=ROWS * SAMPLE_TOKENS
            )
            rows = np.concatenate([rows for own in shares for rows in own])
            steps.append((plan.epoch, sorted(plan.sample_ids[rows].tolist())))
            position = plan.next
        sequences.append(steps)
    assert all(steps == sequences[0] for steps in sequences)
    print("order equal for 1, 2, 4, 8 ranks and a run that changes between them; every sample once")


def _compare_content(peers: dict[str, Peer], tokens: Any, words: Any) -> None:
    expected = {"tokens": int(tokens.sum(dtype=np.int64)), "words": int(words.sum()),
                "samples": NUM_SAMPLES}  # fmt: skip
    for name, peer in peers.items():
        found = peer.ask("epoch")
        note = "" if found == expected else f", NOT the same samples: {found} for {expected}"
        print(f"{name:12} written in {peer.write_seconds:.1f} CPU seconds{note}")


def _measure_rounds(peers: dict[str, Peer], shards: Shards, tokens: Any) -> None:
    ours = Ours(shards)
    flat = tokens.reshape(-1)
    variants: dict[str, Callable[[], float]] = {"ours": lambda: ours.round(_BATCHES)}
    for name, peer in peers.items():
        variants[name] = lambda peer=peer: float(peer.ask(f"round {_BATCHES}")["seconds"])  # type: ignore[misc]
    variants["limit: np.stack of slices, tokens only"] = lambda: _stack(flat)
    variants["limit: copy of a batch's bytes"] = _copy
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(_ROUNDS):
        for name, run in variants.items():
            seconds[name].append(run())
    num_tokens = _BATCHES * ROWS * SAMPLE_TOKENS
    print(f"{_BATCHES} batches of {ROWS} x {SAMPLE_TOKENS} a round, {_ROUNDS} rounds, one thread:")
    for name, values in seconds.items():
        ratios = [other / own for own, other in zip(seconds["ours"], values, strict=True)]
        print(
            f"  {name:40} {num_tokens / statistics.median(values) / 1e6:8.1f} M tokens/s   ours is "
            f"{statistics.median(ratios):6.2f}x ({min(ratios):.2f}–{max(ratios):.2f})"
        )


def _stack(flat: Any) -> float:
    starts = np.random.default_rng(1).permutation(NUM_SAMPLES)[: _BATCHES * ROWS] * SAMPLE_TOKENS
    started = time.process_time()
    for first in range(0, starts.size, ROWS):
        np.stack([flat[start : start + SAMPLE_TOKENS] for start in starts[first : first + ROWS]])
    return time.process_time() - started


def _copy() -> float:
    source = np.zeros((_BATCHES, ROWS * SAMPLE_TOKENS * 3), dtype=np.uint8)  # 2 bytes, and 1 bool
    target = np.empty(source.shape[1], dtype=np.uint8)
    started = time.process_time()
    for row in source:
        np.copyto(target, row)
    return time.process_time() - started


def _measure_resume(peers: dict[str, Peer], shards: Shards) -> None:
    place = NUM_SAMPLES * 3 // 4
    own = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        Ours(shards).batch(Position(offset=place))
        own.append(time.perf_counter() - started)
    print(f"resume at sample {place:,} of {NUM_SAMPLES:,}, to the first batch, wall:")
    print(f"  {'ours':12} {statistics.median(own) * 1e3:10.2f} ms")
    for name, peer in peers.items():
        values = [float(peer.ask(f"resume {place}")["seconds"]) for _ in range(3)]
        print(f"  {name:12} {statistics.median(values) * 1e3:10.2f} ms")


def _measure_large(folder: Path) -> None:
    """10,000 shards of 110,000 samples: links to one file of holes each, so only bounds are read."""
    _write_large(folder)
    opened, first = [], []
    for _ in range(3):
        started = time.perf_counter()
        shards = Shards.open(folder)
        opened.append(time.perf_counter() - started)
        started = time.perf_counter()
        Ours(shards).batch(Position(offset=10**9))
        first.append(time.perf_counter() - started)
    print(
        f"resume at sample 1,000,000,000 of {len(shards):,} in {_LARGE_SHARDS:,} shards: index and "
        f"sizes {statistics.median(opened):.2f} s, then to the first batch "
        f"{statistics.median(first) * 1e3:.1f} ms ({', '.join(f'{1e3 * s:.1f}' for s in first)})"
    )
    print(f"  of it {_fresh_ms(folder):.1f} ms in a process of its own", file=sys.stdout)


def _fresh_ms(folder: Path) -> float:
    """Return the same of a new process, its imports not counted."""
    program = (
        "import sys, time; from pathlib import Path; from tests.bench import loader; "
        "shards = loader.Shards.open(Path(sys.argv[1])); start = time.perf_counter(); "
        "loader.Ours(shards).batch(loader.Position(offset=10**9)); "
        "print(1e3 * (time.perf_counter() - start))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def _write_large(folder: Path) -> None:
    folder.mkdir()
    num_tokens = _LARGE_SAMPLES * SAMPLE_TOKENS
    sizes = {"tokens": 2 * num_tokens, "words": num_tokens // 8, "documents": 8}
    for kind, size in sizes.items():
        with (folder / f"first.{kind}").open("wb") as file:
            file.truncate(size)
    bounds = np.arange(0, num_tokens + 1, SAMPLE_TOKENS, dtype="<u8")
    (folder / "first.samples").write_bytes(bounds.tobytes())
    sizes["samples"] = bounds.nbytes
    shards = []
    for number in range(_LARGE_SHARDS):
        name = f"shard-{number:05d}"
        for kind in sizes:
            os.link(folder / f"first.{kind}", folder / f"{name}.{kind}")
        files = [
            {"path": f"{name}.{kind}", "num_bytes": size, "xxh3": "0" * 32}
            for kind, size in sizes.items()
        ]
        shards.append(
            {"name": name, "num_tokens": num_tokens, "num_documents": 1,
             "num_samples": _LARGE_SAMPLES, "files": files}
        )  # fmt: skip
    index = {"format_version": 1, "token_type": "uint16", "max_tokens": SAMPLE_TOKENS,
             "vocabulary_digest": "sha256:b5", "shards": shards}  # fmt: skip
    (folder / "index.json").write_text(json.dumps(index))


def _measure_wait(folder: Path) -> None:
    """A step of 50 ms on a device (slept), whole-word masks, shards from a cold S3, small cache."""
    (folder / "s3" / s3.BUCKET).parent.mkdir()
    with s3.start_rclone(folder / "s3") as server:
        shutil.copytree(folder / "ours", folder / "s3" / s3.BUCKET / "b5")
        os.environ.update(server.environment(folder))
        pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(21_123))]
        shard_bytes = 1.1 * (2 + 1 / 8) * _SHARD_TOKENS
        data = DataSpec(shuffle_shards=4, cache_bytes=int(8 * shard_bytes))
        started = time.monotonic()
        corpus = open_corpus(
            [CorpusPlace(name="b5", uri=f"s3://{s3.BUCKET}/b5")],
            make_objective(ObjectiveSpec(name=ObjectiveName.WHOLE_WORD), SpecialIds.of(pieces)),
            data=data, seed=1, held_out_samples=0, step_tokens=ROWS * SAMPLE_TOKENS,
        )  # fmt: skip
        planner = StepPlanner(corpus.source.lengths, corpus.order, tokens=ROWS * SAMPLE_TOKENS)
        with Loader(
            corpus.source, planner, group_rank=0, group_size=1, micro_tokens=ROWS * SAMPLE_TOKENS,
            layout="flat",
        ) as loader:  # fmt: skip
            step = loader.load(Position())
            first, waits, begun = time.monotonic() - started, [], time.monotonic()
            cpu_begun = time.process_time()
            for _ in range(_WAIT_STEPS):
                time.sleep(_STEP_SECONDS)
                step = loader.load(step.plan.next)
                waits.append(step.wait_seconds)
            share = sum(waits) / (time.monotonic() - begun)
            cpu_seconds = (time.process_time() - cpu_begun) / _WAIT_STEPS
        corpus.close()
    print(
        f"S3 on loopback, cache of two windows of 4 shards, steps of {1e3 * _STEP_SECONDS:.0f} ms: "
        f"first step after {first:.2f} s, then {_WAIT_STEPS} steps wait {100 * share:.2f} % of "
        f"their time, at most {1e3 * max(waits):.0f} ms; {1e3 * cpu_seconds:.1f} ms of CPU a step"
    )


if __name__ == "__main__":
    main()
