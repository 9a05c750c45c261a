"""B0, the whole job: from raw text to a fixed held-out loss, ours beside datasets + Trainer.

Ours is `fsb run` (data and training) as a user calls it, imports and export included; its held-out
loss at the end is the target. The peer is transformers' run_mlm example, in its two forms: one
document a row, padded (dynamically), and all text in rows of equal length. It saves a checkpoint
every few steps; the first one that is at least as good on the held-out documents ends its job. Same
raw files, vocabulary, model, optimizer, tokens a step and cores; the sides take turns. Both losses
are told: tokens hidden one by one, which is what the peer trains on, and whole words, which is what
ours trains on (in Chinese the peer's own whole-word masking takes a sentence for a word). Measuring
is no part of the time. `FSB_BENCH_STEPS` (ours), `FSB_BENCH_ROUNDS` and `FSB_BENCH_LIMIT` (CPU seconds of
a peer) make it longer. Limit: torch's matrix product on the same cores over the model's operations.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pyfsb import records
from pyfsb.config.run_spec import available_cores
from pyfsb.data.vocabulary import train_vocabulary, write_tokenizer
from pyfsb.records import CheckpointRecord
from pyfsb.seeding import hash64
from tests.bench.peers import peer_python, run_peer
from tests.conftest import ROOT, SAMPLES

PROGRAMS = Path(__file__).parent / "programs"
ROUNDS = int(os.environ.get("FSB_BENCH_ROUNDS", "3"))
FILES = ("cluecorpussmall_sample", "poetry_song_yuan_hans")
MAX_TOKENS = 128
STEP_TOKENS = 4096
VOCABULARY_SIZE = 6000
NUM_STEPS = int(os.environ.get("FSB_BENCH_STEPS", "500"))
LIMIT_CPU_SECONDS = float(os.environ.get("FSB_BENCH_LIMIT", "900"))
SAVE_EVERY_STEPS = 50
LEARNING_RATE, WEIGHT_DECAY, WARMUP_STEPS = 1e-3, 0.01, 50
CONFIG: dict[str, Any] = {
    "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 512, "max_position_embeddings": MAX_TOKENS,
}  # fmt: skip
NUM_HELD_OUT = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One side's way to the target."""

    seconds: float
    cpu_seconds: float
    note: str
    is_reached: bool = True


def main() -> None:
    peer_python("whole_job")
    with tempfile.TemporaryDirectory(dir=os.environ.get("FSB_BENCH_FOLDER")) as name:
        folder = Path(name)
        corpus = _write_corpus(folder)
        sides: dict[str, list[Job]] = {}
        for round_number in range(ROUNDS):
            place = folder / str(round_number)
            ours, target = _run_ours(corpus, place / "ours", seed=round_number)
            sides.setdefault("ours: fsb run", []).append(ours)
            print(
                f"round {round_number}: target {target[0]:.4f} tokens, {target[1]:.4f} words",
                flush=True,
            )
            for title, variant in (
                ("Trainer, a document a row, padded", "line_by_line"),
                ("Trainer, rows of equal length", "group_texts"),
            ):
                job = _run_trainer(corpus, place / variant, variant, target, seed=round_number)
                sides.setdefault(title, []).append(job)
        _report(sides)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Raw files of both sides."""

    folder: Path
    tokenizer: Path
    held_out: Path
    rows_per_step: int
    """Documents, cut, that hold `STEP_TOKENS` tokens on average."""


def _write_corpus(folder: Path) -> Corpus:
    """Put the training documents, the held-out ones and a vocabulary where both sides read them."""
    data = os.environ.get("FSB_DATA")
    if data:
        sources = [Path(data, "rawcorpus", f"{name}.jsonl.gz") for name in FILES]
    else:
        print("FSB_DATA is not set: the sample texts, which are few and made from forms")
        sources = [SAMPLES / "rawcorpus/sample.jsonl.gz"]
    texts = []
    for source in sources:
        with gzip.open(source, "rt", encoding="utf-8", newline="\n") as file:
            texts += [json.loads(line)["text"] for line in file]
    # By content, so that a text that occurs twice lies on one side.
    keys = [int(hash64(17, int.from_bytes(text.encode()[:48], "big") % 2**63)) for text in texts]
    order = sorted(range(len(texts)), key=lambda number: (keys[number], number))
    cut = min(NUM_HELD_OUT, len(texts) // 10)
    held_out, train = ([texts[n] for n in part] for part in (order[:cut], order[cut:]))
    for name, part in (("train", train), ("held_out", held_out)):
        path = folder / f"{name}.jsonl"
        path.write_text(
            "".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in part), "utf-8"
        )
    # Learned before the clock runs, as the peer's example takes a finished tokenizer.
    pieces = train_vocabulary(train, size=VOCABULARY_SIZE, lowercase=True)
    write_tokenizer(pieces, folder / "tokenizer", lowercase=True)
    lengths = [min(MAX_TOKENS, len(text) + 2) for text in train]
    print(
        f"{len(train)} documents, {sum(map(len, train)) / 1e6:.2f} M characters, mean "
        f"{statistics.mean(lengths):.0f} tokens of at most {MAX_TOKENS}; {cut} held out"
    )
    rows = max(1, round(STEP_TOKENS / statistics.mean(lengths)))
    return Corpus(
        folder=folder,
        tokenizer=folder / "tokenizer",
        held_out=folder / "held_out.jsonl",
        rows_per_step=rows,
    )


def _run_ours(corpus: Corpus, output: Path, *, seed: int) -> tuple[Job, tuple[float, float]]:
    """Run `fsb run` to its end; returns its cost and its held-out losses."""
    spec = {
        "name": "whole-job", "output": str(output), "seed": seed,
        "model": {"name": "Erlangshen-MegatronBert-1.3B", "config": CONFIG},
        "data": {
            "root": str(corpus.folder), "corpus": ["train.jsonl"], "max_tokens": MAX_TOKENS,
            "vocabulary": {"file": str(corpus.tokenizer / "vocab.txt")},
        },
        "optimizer": {
            "learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "schedule": "constant",
            "warmup_steps": WARMUP_STEPS,
        },
        "batch": {"tokens": STEP_TOKENS, "micro_tokens": STEP_TOKENS},
        "training": {"max_steps": NUM_STEPS, "num_epochs": 50, "checkpoint_every_steps": 200},
        "parallelism": {"num_processes": available_cores()},
    }  # fmt: skip
    output.mkdir(parents=True)
    path = output / "spec.yaml"
    path.write_text(yaml.safe_dump(spec), "utf-8")
    command = [sys.executable, "-m", "pyfsb.cli", "run", str(path)]
    seconds, cpu, _ = _timed(lambda: _call(command))
    record = records.read_record(str(output / "training"))
    assert isinstance(record, CheckpointRecord)
    data = records.read_record(str(output / "data/corpus"))
    losses = _score(corpus, [output / "training/model"])[0]
    note = (
        f"{record.step} steps, {record.num_tokens / 1e6:.2f} M tokens; data {data.seconds:.1f} s, "
        f"training {record.seconds:.1f} s, starts {seconds - data.seconds - record.seconds:.1f} s"
    )
    return Job(seconds=seconds, cpu_seconds=cpu, note=note), losses


def _run_trainer(
    corpus: Corpus, output: Path, variant: str, target: tuple[float, float], *, seed: int
) -> Job:
    """Run the peer; its job ends with the first checkpoint that is as good as ours."""
    settings = {
        "variant": variant, "pads_to_max": False, "files": [str(corpus.folder / "train.jsonl")],
        "cache": str(output / "cache"), "output": str(output / "out"),
        "tokenizer": str(corpus.tokenizer), "max_tokens": MAX_TOKENS,
        "num_workers": available_cores(), "seed": seed, "limit_cpu_seconds": LIMIT_CPU_SECONDS,
        "save_every_steps": SAVE_EVERY_STEPS, "learning_rate": LEARNING_RATE,
        "weight_decay": WEIGHT_DECAY, "warmup_steps": WARMUP_STEPS,
        "batch_rows": corpus.rows_per_step if variant == "line_by_line" else STEP_TOKENS // MAX_TOKENS,
        "config": {"model_type": "megatron-bert", "hidden_act": "gelu_new", "type_vocab_size": 2, **CONFIG},
    }  # fmt: skip
    settings["started"] = time.time()  # before its interpreter and imports
    found = run_peer(
        "whole_job", (PROGRAMS / "whole_job_trainer.py").read_text(), [json.dumps(settings)],
        environment={"TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    folders = [output / "out" / f"checkpoint-{step}" for step, _, _ in found["saved"]]
    losses = _score(corpus, folders, target=target)
    step, seconds, cpu = found["saved"][len(losses) - 1]
    best = losses[-1]
    reached = best[0] <= target[0] and best[1] <= target[1]
    single = next((n for n, loss in enumerate(losses) if loss[0] <= target[0]), None)
    note = (
        f"{step} steps of {settings['batch_rows']} rows; data {found['prepared_seconds']:.1f} s; loss "
        f"{best[0]:.4f} tokens, {best[1]:.4f} words"
    )
    if single is not None:
        note += f"; as good on tokens alone after {found['saved'][single][1]:.1f} s"
    return Job(seconds=seconds, cpu_seconds=cpu, note=note, is_reached=reached)


def _score(
    corpus: Corpus, folders: list[Path], target: tuple[float, float] | None = None
) -> list[tuple[float, float]]:
    settings = {
        "tokenizer": str(corpus.tokenizer), "held_out": str(corpus.held_out), "target": target,
        "max_tokens": MAX_TOKENS, "folders": [str(folder) for folder in folders],
    }  # fmt: skip
    program = (PROGRAMS / "whole_job_score.py").read_text()
    found = run_peer(
        "whole_job", program, [json.dumps(settings)], environment={"HF_HUB_OFFLINE": "1"}
    )
    return [(pair[0], pair[1]) for pair in found["losses"]]


def _call(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stderr[-3000:]}")


def _timed(call: Any) -> tuple[float, float, Any]:
    """Return wall seconds, and CPU seconds of the processes started and ended meanwhile."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    value = call()
    seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, value


def _report(sides: dict[str, list[Job]]) -> None:
    first = next(iter(sides))
    print(f"\n{'':36} {'wall s':>8} {'core s':>8}   ours is, wall (spread), core seconds")
    for name, jobs in sides.items():
        walls = [job.seconds / own.seconds for job, own in zip(jobs, sides[first], strict=True)]
        cores = [
            job.cpu_seconds / own.cpu_seconds for job, own in zip(jobs, sides[first], strict=True)
        ]
        sign = "" if all(job.is_reached for job in jobs) else "> "
        print(
            f"{name:36} {statistics.median(job.seconds for job in jobs):8.1f} "
            f"{statistics.median(job.cpu_seconds for job in jobs):8.1f}   {sign}"
            f"{statistics.median(walls):.2f}x ({min(walls):.2f}–{max(walls):.2f}), {sign}"
            f"{statistics.median(cores):.2f}x"
        )
        print(f"{'':36} {jobs[-1].note}")
    print("> : the peer did not reach the loss in its time; its last checkpoint's time stands")
    print(_limit())


def _limit() -> str:
    """Return how long the operations of our training take at the speed of a matrix product."""
    code = (
        "import time, torch\n"
        "a = torch.randn(2048, 2048); b = torch.randn(2048, 2048); a @ b\n"
        "t = time.monotonic()\nfor _ in range(12): a @ b\n"
        "print(12 * 2 * 2048**3 / (time.monotonic() - t))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    peak = float(done.stdout)
    layers, width, inner = (
        CONFIG["num_hidden_layers"],
        CONFIG["hidden_size"],
        CONFIG["intermediate_size"],
    )
    body = 6 * layers * (4 * width * width + 2 * width * inner)
    head = 6 * 0.15 * width * (VOCABULARY_SIZE + width)
    tokens = NUM_STEPS * STEP_TOKENS
    return (
        f"limit: {tokens * (body + head) / peak:.1f} s for {tokens / 1e6:.2f} M tokens at torch.mm's "
        f"{peak / 1e9:.0f} GFLOP/s on all cores (body {body / 1e6:.1f}, head {head / 1e6:.1f} MFLOP a token)"
    )
