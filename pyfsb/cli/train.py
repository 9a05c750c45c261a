# SPDX-License-Identifier: Apache-2.0
"""`fsb train watch`: a live panel of a training, or one table of it for scripts.

The verb is added to the noun `train` by `stages`. It only reads files, so it works beside the
training, on another machine, and after its end; torch is never imported.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from pyfsb.cli.arguments import Commands, add_output, make_console, print_json
from pyfsb.errors import EXIT_OK
from pyfsb.storage import is_s3
from pyfsb.training.watch import Follower, View, find_training

_LOCAL_SECONDS: Final = 1.0
_REMOTE_SECONDS: Final = 10.0
_COLUMNS: Final = 60
_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_SILENT_SECONDS: Final = 60.0
"""From here on a training's silence is shown."""


def add_verb(verbs: Commands) -> None:
    """Add `watch` to the noun."""
    parser = verbs.add_parser("watch", help="follow a training: speed, loss, memory, time left")
    parser.add_argument(
        "place", metavar="OUTPUT_OR_SPEC",
        help="output of a run, folder of a training, or run spec; a path or s3:// URI",
    )  # fmt: skip
    parser.add_argument("--once", action="store_true", help="print where it stands and end")
    add_output(parser)
    parser.set_defaults(handler=_watch)


def _watch(arguments: argparse.Namespace) -> int:
    follower = Follower(find_training(arguments.place))
    if arguments.form == "json":
        print_json(_strict(follower.poll()))
    elif arguments.once or not sys.stdout.isatty():
        make_console().print(build_panel(follower.poll(), follower.losses))
    else:
        _follow(follower)
    return EXIT_OK


def _follow(follower: Follower) -> None:
    """Show the panel until the training ends or somebody has seen enough."""
    pause_seconds = _REMOTE_SECONDS if is_s3(follower.uri) else _LOCAL_SECONDS
    view = follower.poll()
    console = make_console()
    with Live(build_panel(view, follower.losses), console=console, auto_refresh=False) as live:
        try:
            while not view.is_complete:
                time.sleep(pause_seconds)
                view = follower.poll()
                live.update(build_panel(view, follower.losses), refresh=True)
        except KeyboardInterrupt:
            return


def build_panel(view: View, losses: Sequence[float]) -> Panel:
    """Return the panel of a training.

    Args:
        view: Where it stands.
        losses: Loss of every step.
    """
    grid = Table.grid(padding=(0, 3))
    for _ in range(4):
        grid.add_column()
    cells = [(label, text) for label, text in _cells(view) if text is not None]
    for start in range(0, len(cells), 2):
        row = [part for label, text in cells[start : start + 2] for part in (label, text or "")]
        grid.add_row(*(Text(part, style="" if n % 2 else "dim") for n, part in enumerate(row)))
    num_done = round(_COLUMNS * min(1.0, view.step / (view.num_steps or 1)))
    bar = Text("━" * num_done, style="cyan").append("━" * (_COLUMNS - num_done), style="dim")
    body = Group(Text(_headline(view)), bar, Text(sparkline(losses), style="cyan"), grid)
    return Panel(body, title=Text(view.name), subtitle=Text(view.uri), expand=False)


def sparkline(values: Sequence[float], *, num_columns: int = _COLUMNS) -> str:
    """Return a line of blocks, each as high as the mean of its share of the values.

    Args:
        values: Those that are no number are left out.
        num_columns: Blocks at most.
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return ""
    num_columns = min(num_columns, len(known))
    edges = [len(known) * column // num_columns for column in range(num_columns + 1)]
    means = [sum(known[begin:end]) / (end - begin) for begin, end in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((mean - low) * scale)] for mean in means)


def _headline(view: View) -> str:
    total = f"/{view.num_steps:,}" if view.num_steps else ""
    if view.is_complete:
        state = "complete"
    elif view.is_over:
        state = "stopped"
    elif view.silent_seconds is not None and view.silent_seconds > _SILENT_SECONDS:
        state = f"no step seen for {_duration(view.silent_seconds)}"
    elif view.eta_seconds is not None:
        state = f"{_duration(view.eta_seconds)} left"
    else:
        state = "no step yet"
    share = f"  {view.step / view.num_steps:.1%}" if view.num_steps else ""
    return f"step {view.step:,}{total}{share}  {state}"


def _cells(view: View) -> list[tuple[str, str | None]]:
    """Return labels and texts; None for what is not known."""
    memory = None if view.memory_bytes is None else f"{view.memory_bytes / 2**30:.2f} GiB"
    if memory and view.device_bytes is not None:
        memory += f", device {view.device_bytes / 2**30:.2f} GiB"
    steps = _show(
        view.step_seconds_p50, lambda p50: f"{p50:.3g} s, p99 {view.step_seconds_p99:.3g} s"
    )
    return [
        ("loss", _show(view.loss, "{:.4f}".format)),
        ("validation", _show(view.validation_loss, "{:.4f}".format)),
        ("tokens/s", f"{view.tokens_per_second:,.0f}" if view.step else None),
        ("samples/s", _show(view.samples_per_second, "{:,.1f}".format)),
        ("step time", steps),
        ("MFU", _show(view.mfu, "{:.1%}".format)),
        ("data wait", _show(view.data_share, "{:.1%}".format)),
        ("communication", _show(view.communication_share, "{:.1%}".format)),
        ("saving", _show(view.checkpoint_share, "{:.1%}".format)),
        ("last saved", _show(view.checkpoint_step, "step {:,}".format)),
        ("goodput", _show(view.goodput, "{:.1%}".format)),
        ("starts", str(view.num_attempts) if view.num_attempts else None),
        ("learning rate", _show(view.learning_rate, "{:.3g}".format)),
        ("gradient norm", _show(view.gradient_norm, "{:.3g}".format)),
        ("memory", memory),
        ("skipped steps", str(view.num_skipped_steps)),
    ]


def _show(value: float | None, form: Callable[[float], str]) -> str | None:
    return None if value is None else form(value)


def _strict(view: View) -> dict[str, object]:
    """Return plain values; a number that is none becomes null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in view.to_json().items()
    }


def _duration(seconds: float) -> str:
    """Return a duration in its two largest units, such as 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"
