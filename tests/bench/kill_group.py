"""`kill -9` of a whole group, ranks and writers, at random moments; most of them while it saves.

`python -m tests.bench.kill_group --count 500 --seed S`. The ranks (two, gloo, ZeRO-1, dropout) run
the real engine, loop and store; they are forked from this process, which has imported everything,
so a cycle costs a second or two. First the training runs undisturbed and tells each step's loss
and the digests of each saved state. Then it is killed and started again, over and over. After
every kill three things are checked:

- torn: every state that looks complete has exactly the bytes of the undisturbed one, and one that
  was complete before is still there;
- lost: the group that follows goes on from the newest of them;
- loss: every step it takes has the undisturbed loss, to the last bit.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from pyfsb.training import state_folder
from pyfsb.training.state_files import INDEX_NAME, STATE_NAME, step_of
from tests.helpers.groups import fork_rank, load

SIZE = 2
NUM_STEPS = 240
SAVE_EVERY_STEPS = 1
KEEP_LAST = 2
ZERO_STAGE = 1
LONGEST_WAIT_SECONDS = 180.0


@dataclass(frozen=True)
class Run:
    """Where one training keeps its things."""

    folder: Path
    keeps_all: bool = False

    @property
    def states(self) -> Path:
        return self.folder / "run/state"

    @property
    def losses(self) -> Path:
        """One line a step: the step and its loss as hexadecimal digits."""
        return self.folder / "losses.txt"


def work(run: Run, group: Any) -> None:
    """Train on one rank, going on from what is saved."""
    from pyfsb.config import OptimizerSpec, ParallelismSpec, SpikeSpec
    from pyfsb.processes import StopRequest
    from pyfsb.storage.workspace import Workspace
    from pyfsb.training.batching import StepPlanner
    from pyfsb.training.checkpoint import CheckpointStore
    from pyfsb.training.deepspeed import Engine
    from pyfsb.training.loader import Loader
    from pyfsb.training.loop import Company, LoopSettings, TrainingLoop
    from pyfsb.training.order import ShuffledOrder
    from pyfsb.training.restoring import start_engine
    from tests.helpers import loop_runs

    toy = loop_runs.Run(folder=run.folder / "run", dropout=0.1)
    source = loop_runs.Rows(toy.num_samples, {})
    planner = StepPlanner(source.lengths, ShuffledOrder(toy.num_samples, seed=3), tokens=96)
    store = CheckpointStore(
        Workspace(str(toy.folder)), fingerprint={"is": "toy"}, keep_last=KEEP_LAST,
        keep_every_steps=SAVE_EVERY_STEPS if run.keeps_all else None,
    )  # fmt: skip
    settings = LoopSettings(
        title="toy", optimizer=OptimizerSpec(learning_rate=1e-3), seed=11, num_steps=NUM_STEPS,
        save_every_steps=SAVE_EVERY_STEPS, spikes=SpikeSpec(max_norm_ratio=None),
    )  # fmt: skip
    parallelism = ParallelismSpec.model_validate({"zero_stage": ZERO_STAGE})
    state, engine = start_engine(
        lambda: loop_runs.build_module(toy, group), store, group,
        lambda module: Engine(module, settings.optimizer, parallelism),
    )  # fmt: skip
    meters: Any = _Losses(run.losses) if group.is_first else None
    with Loader(
        source, planner, group_rank=group.rank, group_size=group.size, micro_tokens=24,
        layout="flat",
    ) as loader:  # fmt: skip
        company = Company(store=store, stop=StopRequest(), meters=meters)
        TrainingLoop(engine, loader, planner, settings, group, company).run(state)
    store.wait(group)
    store.close()


class _Losses:
    """Stands for meters: writes each loss down at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def record(self, outcome: Any) -> None:
        with self._path.open("a") as file:
            file.write(f"{outcome.step} {float(outcome.loss).hex()}\n")


class Group:
    """The ranks of one start, with their writers in one process group."""

    def __init__(self, run: Run, number: int) -> None:
        self._folder = run.folder / f"start-{number}"
        self._folder.mkdir(parents=True)
        self._pids: list[int] = []
        self._log = self._folder / "log"
        for rank in range(SIZE):
            started = functools.partial(self._begin, run)
            self._pids.append(fork_rank(rank, SIZE, self._folder / "store", started, self._enter))

    def _enter(self) -> None:
        """In the child, before anything else: one process group, and a log of its own."""
        os.setpgid(0, self._pids[0] if self._pids else 0)
        handle = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)

    def _begin(self, run: Run, group: Any) -> None:
        work(run, group)

    def has_ended(self) -> bool:
        """Say whether a rank has ended by itself; fails when it ended with an error."""
        for pid in list(self._pids):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                code = os.waitstatus_to_exitcode(status)
                assert code == 0, f"rank ended with {code}:\n{self._log.read_text()[-3000:]}"
                self._pids.remove(pid)
        return len(self._pids) < SIZE

    def wait(self, look: Callable[[], None] = lambda: None) -> None:
        """Wait for the end of all ranks, looking at something all the while."""
        while self._pids:
            self.has_ended()
            look()
            time.sleep(0.001)
        shutil.rmtree(self._folder)

    def kill(self) -> None:
        """Kill ranks and writers at once, and wait until none is left."""
        leader = self._pids[0]
        os.killpg(leader, signal.SIGKILL)
        for pid in self._pids:
            os.waitpid(pid, 0)
        while _is_any_left(leader):
            time.sleep(0.002)
        shutil.rmtree(self._folder)


def _is_any_left(leader: int) -> bool:
    """Say whether a process of a group lives (writers are not our children, zombies do not count)."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[2]) == leader and fields[0] != "Z":
                return True
    return False


@dataclass
class Reference:
    """The undisturbed training."""

    losses: dict[int, str]
    digests: dict[str, dict[str, str]]
    """For each state, the hash of each of its files."""
    save_seconds: float
    """How long a save is seen in flight, median."""


def run_undisturbed(folder: Path) -> Reference:
    run = Run(folder, keeps_all=True)
    seen: dict[str, tuple[float, float]] = {}

    def look() -> None:
        now = time.monotonic()
        for path in run.states.glob(".partial-*"):
            seen[path.name] = (seen.get(path.name, (now, now))[0], now)

    Group(run, 0).wait(look)
    digests = {name: read_digests(run.states / name) for name in _states(run)}
    losses = dict(read_losses(run.losses))
    assert sorted(losses) == list(range(1, NUM_STEPS + 1))
    assert len(digests) == NUM_STEPS // SAVE_EVERY_STEPS
    shutil.rmtree(folder)
    lengths = [last - first for first, last in seen.values()]
    return Reference(losses=losses, digests=digests, save_seconds=statistics.median(lengths))


def read_digests(state: Path) -> dict[str, str]:
    """Hash the files of a state and check them against what its state.json says."""
    saved = json.loads((state / STATE_NAME).read_bytes())
    found = {}
    for entry in saved["files"]:
        data = (state / entry["path"]).read_bytes()
        found[entry["path"]] = xxhash.xxh3_128_hexdigest(data)
        assert found[entry["path"]] == entry["xxh3"], f"torn: {state / entry['path']}"
    assert INDEX_NAME in found and len(found) == SIZE + 1
    return found


def read_losses(path: Path) -> Iterator[tuple[int, str]]:
    """Yield steps and losses; a line that a kill cut off is left out."""
    text = path.read_text() if path.exists() else ""
    for line in text.splitlines(keepends=True):
        if line.endswith("\n"):
            step, loss = line.split()
            yield int(step), loss


def _states(run: Run) -> list[str]:
    return state_folder.local_states(run.states)


@dataclass
class Tally:
    """What was seen."""

    counts: Counter[str] = field(default_factory=Counter)
    cycles: list[float] = field(default_factory=list)


class Killer:
    """Kills one training again and again, and looks at what is left."""

    def __init__(self, folder: Path, reference: Reference, rng: random.Random) -> None:
        self._folder, self._reference, self._rng = folder, reference, rng
        self._number = 0
        self._newest = 0
        self._num_lines = 0
        self.tally = Tally()

    def cycle(self) -> None:
        """Start the group and kill it."""
        run = Run(self._folder)
        started = time.monotonic()
        self._number += 1
        group = Group(run, self._number)
        if not self._wait_for_moment(run, group):
            group.wait()
            self._check(run, is_over=True)
            self.tally.counts["ended by itself, begun anew"] += 1
            shutil.rmtree(self._folder)
            self._newest = self._num_lines = 0
            return
        group.kill()
        self.tally.counts["kills"] += 1
        self._check(run, is_over=False)
        self.tally.cycles.append(time.monotonic() - started)

    def _wait_for_moment(self, run: Run, group: Group) -> bool:
        """Wait for the drawn moment; returns False when the training ended before it.

        A fifth of the moments is any time at all, start-up included; the others are drawn from
        the time that a save takes, from its beginning when too few kills have met one so far.
        """
        counts = self.tally.counts
        has_enough = 5 * counts["a save in flight"] >= 3 * counts["kills"]
        num_steps = self._rng.randrange(1, 7)
        share = self._rng.random() * (1.0 if has_enough else 0.3)
        delay = share * self._reference.save_seconds
        if self._rng.random() < 0.2 and has_enough:
            limit = time.monotonic() + self._rng.random() * 3.0
            while time.monotonic() < limit:
                if group.has_ended():
                    return False
                time.sleep(0.002)
            return True
        first, deadline = self._num_lines, time.monotonic() + LONGEST_WAIT_SECONDS
        while sum(1 for _ in read_losses(run.losses)) < first + num_steps:
            if group.has_ended():
                return False
            assert time.monotonic() < deadline, "no step within minutes"
            time.sleep(0.002)
        while not any(run.states.glob(".partial-*")):
            if group.has_ended():
                return False
        time.sleep(delay)
        return not group.has_ended()

    def _check(self, run: Run, *, is_over: bool) -> None:
        counts, names = self.tally.counts, _states(run)
        counts["a save in flight"] += any(run.states.glob(".partial-*")) and not is_over
        for name in names:
            try:
                is_same = read_digests(run.states / name) == self._reference.digests[name]
            except (AssertionError, OSError, ValueError) as exc:
                print(f"kill {counts['kills']}: {exc}", flush=True)
                is_same = False
            counts["states checked"] += 1
            counts["torn"] += not is_same
        newest = max((step_of(name) or 0 for name in names), default=0)
        counts["torn"] += newest < self._newest  # one that was complete is gone
        lines = list(read_losses(run.losses))
        fresh = lines[self._num_lines :]
        if fresh and fresh[0][0] != self._newest + 1:
            counts["lost"] += 1
            print(f"went on with step {fresh[0][0]} after state {self._newest}", flush=True)
        for step, loss in fresh:
            counts["steps compared"] += 1
            counts["losses that differ"] += loss != self._reference.losses[step]
        counts["next losses compared"] += bool(fresh)
        self._newest = newest
        text = run.losses.read_text() if run.losses.exists() else ""
        if text and not text.endswith("\n"):
            run.losses.write_text(text[: text.rfind("\n") + 1])
        self._num_lines = len(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.kill_group")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    print(f"seed {seed}: {options.count} times kill -9 of {SIZE} ranks and {SIZE} writers")
    load()
    import tests.helpers.loop_runs  # noqa: F401 - once, before the ranks are forked

    with tempfile.TemporaryDirectory() as name:
        started = time.monotonic()
        reference = run_undisturbed(Path(name, "whole"))
        seconds = time.monotonic() - started
        print(f"undisturbed: {NUM_STEPS} steps, {len(reference.digests)} states, {seconds:.0f} s")
        print(f"a save is in flight for {1e3 * reference.save_seconds:.0f} ms", flush=True)
        killer = Killer(Path(name, "killed"), reference, random.Random(seed))
        counts = killer.tally.counts
        while counts["kills"] < options.count:
            killer.cycle()
            if counts["kills"] % 10 == 0:
                print(f"  {dict(counts)}", flush=True)
    _print(killer.tally)


def _print(tally: Tally) -> None:
    counts = tally.counts
    for key in (
        "kills", "a save in flight", "ended by itself, begun anew", "states checked", "torn", "lost",
        "next losses compared", "steps compared", "losses that differ",
    ):  # fmt: skip
        print(f"{key:<30} {counts[key]:>7}")
    cycles = sorted(tally.cycles)
    if cycles:
        print(f"{'seconds a cycle (median)':<30} {cycles[len(cycles) // 2]:>7.2f}")
    assert not counts["torn"] + counts["lost"] + counts["losses that differ"]
    assert 2 * counts["a save in flight"] >= counts["kills"], "too few kills hit a save"


if __name__ == "__main__":
    main(sys.argv[1:])
