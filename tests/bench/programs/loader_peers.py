"""Peers of tests/bench/loader.py: shuffled batches of equal samples, as each one's documents say.

Started with a peer's name and a folder with `tokens.npy` [S, T] and `words.npy` (packed bits);
writes them in the peer's format, then answers one JSON line for each line on stdin: `round` reads
some batches, `resume N` begins at sample N of the shuffled epoch. Runs in the peer's environment
and imports nothing of ours. A batch is tokens [64, T] as uint16 and word bits [64, T] as bool.
"""

from __future__ import annotations

import importlib.machinery
import io
import itertools
import json
import logging
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROWS = 64


def stack(tokens: list[Any], words: list[Any], width: int) -> tuple[Any, Any]:
    """Make a batch of single samples: one unpacking for all of them."""
    bits = np.unpackbits(np.stack(words), axis=1)[:, :width].view(np.bool_)
    return np.stack(tokens), bits


def without_images() -> None:
    """Let streaming be imported beside a CPU build of torch, which its torchvision is not for."""
    names = ("torchvision", "torchvision.datasets", "torchvision.transforms.functional")
    for name in (*names, "torchvision.transforms"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
    sys.modules["torchvision.datasets"].VisionDataset = type("VisionDataset", (), {})  # type: ignore[attr-defined]
    sys.modules["torchvision.transforms.functional"].to_tensor = None  # type: ignore[attr-defined]


class Mosaic:
    """mosaicml-streaming: MDS shards of arrays of a fixed shape."""

    def __init__(self, folder: Path, tokens: Any, words: Any) -> None:
        without_images()
        from streaming import MDSWriter

        self.folder, self.width = folder / "mds", tokens.shape[1]
        columns = {
            "tokens": f"ndarray:uint16:{self.width}",
            "words": f"ndarray:uint8:{words.shape[1]}",
        }
        with MDSWriter(out=str(self.folder), columns=columns) as writer:
            for own, bits in zip(tokens, words, strict=True):
                writer.write({"tokens": own, "words": bits})

    def batches(self, start: int) -> Iterator[tuple[Any, Any]]:
        import streaming

        streaming.base.util.clean_stale_shared_memory()
        data = streaming.StreamingDataset(local=str(self.folder), shuffle=True, batch_size=ROWS)
        if start:
            data.load_state_dict(data.state_dict(start, from_beginning=True))
        rows = iter(data)
        while chunk := list(itertools.islice(rows, ROWS)):
            yield stack(
                [row["tokens"] for row in chunk], [row["words"] for row in chunk], self.width
            )


class WebDataset:
    """webdataset: tar shards, a shuffle buffer; it cannot seek, so resuming reads and drops."""

    def __init__(self, folder: Path, tokens: Any, words: Any) -> None:
        import webdataset

        (folder / "wds").mkdir()
        self.width = tokens.shape[1]
        pattern = str(folder / "wds/%05d.tar")
        with webdataset.ShardWriter(pattern, maxcount=8192, verbose=0) as writer:
            for number, (own, bits) in enumerate(zip(tokens, words, strict=True)):
                writer.write({"__key__": f"{number:08d}", "t": own.tobytes(), "w": bits.tobytes()})
        self.urls = sorted(map(str, (folder / "wds").glob("*.tar")))

    def batches(self, start: int) -> Iterator[tuple[Any, Any]]:
        import webdataset

        data = webdataset.WebDataset(self.urls, shardshuffle=100, seed=1).shuffle(1000)
        rows = itertools.islice(data, start, None)
        while chunk := list(itertools.islice(rows, ROWS)):
            yield stack(
                [np.frombuffer(row["t"], dtype=np.uint16) for row in chunk],
                [np.frombuffer(row["w"], dtype=np.uint8) for row in chunk],
                self.width,
            )


class HuggingFace:
    """HF datasets: an Arrow table of lists of a fixed length, shuffled by an index."""

    def __init__(self, folder: Path, tokens: Any, words: Any) -> None:
        import datasets

        self.width = tokens.shape[1]
        features = datasets.Features(
            {
                "tokens": datasets.Sequence(datasets.Value("uint16"), length=self.width),
                "words": datasets.Sequence(datasets.Value("uint8"), length=words.shape[1]),
            }
        )
        made = datasets.Dataset.from_dict(
            {"tokens": list(tokens), "words": list(words)}, features=features
        )
        made.save_to_disk(str(folder / "hf"))
        self.data = datasets.load_from_disk(str(folder / "hf")).with_format(
            "numpy", dtype=np.uint16
        )

    def batches(self, start: int) -> Iterator[tuple[Any, Any]]:
        data = self.data.shuffle(seed=1)
        if start:
            data = data.select(range(start, len(data)))
        for batch in data.iter(batch_size=ROWS):
            bits = np.unpackbits(np.asarray(batch["words"]).astype(np.uint8), axis=1)[
                :, : self.width
            ]
            yield np.asarray(batch["tokens"]), bits.view(np.bool_)


PEERS = {"mds": Mosaic, "webdataset": WebDataset, "datasets": HuggingFace}


def answer(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


def main() -> None:
    logging.disable(logging.WARNING)
    name, folder = sys.argv[1], Path(sys.argv[2])
    tokens, words = np.load(folder / "tokens.npy"), np.load(folder / "words.npy")
    started = time.process_time()
    peer = PEERS[name](folder, tokens, words)
    answer({"write_seconds": time.process_time() - started})
    batches: Iterator[tuple[Any, Any]] = iter(())
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "epoch":  # untimed: everything once, to compare content
            total, num_samples = np.zeros(2, dtype=np.int64), 0
            for own, bits in peer.batches(0):
                assert own.dtype == np.uint16
                total += [int(own.sum(dtype=np.int64)), int(bits.sum(dtype=np.int64))]
                num_samples += len(own)
            answer({"tokens": int(total[0]), "words": int(total[1]), "samples": num_samples})
        elif command == "round":
            batches = peer.batches(0)
            next(batches)
            started = time.process_time()
            num_samples = sum(len(own) for own, _ in itertools.islice(batches, int(arguments[0])))
            answer({"seconds": time.process_time() - started, "samples": num_samples})
        elif command == "resume":
            started = time.perf_counter()
            next(peer.batches(int(arguments[0])))
            answer({"seconds": time.perf_counter() - started})


if __name__ == "__main__":
    # The writers of some peers print: only answers go to stdout.
    real, sys.stdout = sys.stdout, io.TextIOWrapper(sys.stderr.buffer, line_buffering=True)

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=real, flush=True)

    main()
