# SPDX-License-Identifier: Apache-2.0
"""`fsb models recommend`: models for a task that fit a device, ranked, with reasons."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Final

from pyfsb.cli.arguments import Commands, add_output, print_json, print_table, print_text
from pyfsb.cli.models_ranking import Recommendation, Refusal, Wish, rank
from pyfsb.errors import EXIT_OK, ConfigError
from pyfsb.registry import ModelEntry, all_catalogue_rows, all_entries
from pyfsb.registry.catalogue import build_entry
from pyfsb.training.pools import Pool, find_pool, known_pools

_UNITS: Final = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
_GB: Final = 1e9
_MOST: Final = 1_000_000_000
_FIGURE: Final = re.compile(r"\d[\d,]*(?:\.\d+)?")


def add_verb(verbs: Commands) -> None:
    """Add `recommend` to the verbs of `fsb models`."""
    parser = verbs.add_parser(
        "recommend", help="models for a task that fit a device, ranked, and why"
    )
    parser.add_argument(
        "--task", required=True, metavar="TASK",
        help="a family (classify, pair, tag, rewrite, generate, choose, extract, image_text …) or "
        "a public task (tnews, afqmc, ocnli, cluener, lcsts, fewclue …)",
    )  # fmt: skip
    parser.add_argument(
        "--gpu-memory", metavar="GB", help="gigabytes of the device (default: those of --device)"
    )
    parser.add_argument(
        "--latency", metavar="MS", help="milliseconds of one input at most (default: any)"
    )
    parser.add_argument(
        "--device", metavar="POOL",
        help=f"what times are estimated for: {', '.join(known_pools())} or a .yaml file (default: "
        "the smallest one with --gpu-memory, else a100-40)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=("bf16", "fp16", "fp32"),
        help="of the weights when serving (default: bf16 where the device has it, else fp16)",
    )  # fmt: skip
    parser.add_argument(
        "--tokens", default="128", metavar="N", help="tokens of an input (default: 128)"
    )
    parser.add_argument(
        "--output-tokens", default="64", metavar="N",
        help="tokens of an answer, where one is written (default: 64)",
    )  # fmt: skip
    parser.add_argument(
        "--languages", default="zh", metavar="CODES",
        help="comma-separated, all needed; empty for any (default: zh)",
    )  # fmt: skip
    parser.add_argument("--max-parameters", metavar="N", help="such as 400M or 1.5B (default: any)")
    parser.add_argument(
        "--finetune", action="store_true",
        help="fine-tuning on one device has to fit, too (default: only serving)",
    )  # fmt: skip
    parser.add_argument(
        "--ready", action="store_true",
        help="only models that answer without being fine-tuned (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--catalogue", action="store_true",
        help="also models of the catalogue whose class there is (default: the family alone)",
    )  # fmt: skip
    parser.add_argument("--limit", default="10", metavar="N", help="rows at most (default: 10)")
    add_output(parser)
    parser.set_defaults(handler=_recommend)


def _recommend(arguments: argparse.Namespace) -> int:
    wish = _read_wish(arguments)
    limit = parse_count(arguments.limit, "--limit")
    found, refused = rank(_candidates(with_catalogue=arguments.catalogue), wish)
    if arguments.form == "json":
        print_json(
            {
                "recommended": [made.to_json() for made in found[:limit]],
                "left_out": [refusal.to_json() for refusal in refused],
            }
        )
    if not found:
        raise ConfigError(_explain_nothing(wish, refused))
    if arguments.form == "json":
        return EXIT_OK
    print_table(
        f"{min(limit, len(found))} of {len(found)} models for {wish.task} that do, estimated on "
        f"{wish.pool.name} in {wish.precision}, inputs of {wish.input_tokens} tokens",
        ("name", "parameters", "GB serving", "GB fine-tuning", "ms", "score", "why"),
        [_describe(made) for made in found[:limit]],
    )
    if refused:
        print_text(_list_refused(refused))
    return EXIT_OK


def _list_refused(refused: Sequence[Refusal]) -> str:
    """Return what was left out, a line for each reason, so that a long list can be read."""
    by_reason: dict[str, list[str]] = {}
    for refusal in refused:
        by_reason.setdefault(refusal.why, []).append(refusal.name)
    lines = [f"  {why}: {', '.join(names)}" for why, names in by_reason.items()]
    return "\n".join(["left out:", *lines])


def _explain_nothing(wish: Wish, refused: Sequence[Refusal]) -> str:
    """Return why no model does: for each kind of reason the model that comes nearest."""
    if not refused:
        return f"--task {wish.task}: no registered model does; see `fsb models list --catalogue`"
    kinds: dict[str, list[Refusal]] = {}
    for refusal in refused:
        kinds.setdefault(_FIGURE.sub("N", refusal.why), []).append(refusal)
    parts = []
    for kind, group in sorted(kinds.items(), key=lambda item: -len(item[1])):
        choose = max if kind.startswith("reads") else min
        nearest = choose(group, key=lambda refusal: _figure(refusal.why))
        parts.append(f"{nearest.name} {nearest.why} (the nearest of {len(group)})")
    return f"none of {len(refused)} models for {wish.task} does: {'; '.join(parts)}"


def _figure(why: str) -> float:
    found = _FIGURE.search(why)
    return float(found[0].replace(",", "")) if found else 0.0


def _candidates(*, with_catalogue: bool) -> tuple[ModelEntry, ...]:
    if not with_catalogue:
        return all_entries()
    rows = (row for row in all_catalogue_rows() if row.is_supported and not row.entry_name)
    return (*all_entries(), *(build_entry(row) for row in rows))


def _read_wish(arguments: argparse.Namespace) -> Wish:
    """Return what the arguments ask for.

    Raises:
        ConfigError: A number is none, or the device does not compute in the precision.
        UnknownNameError: The device is unknown.
    """
    memory = _optional(arguments.gpu_memory, "--gpu-memory", unit=_GB)
    pool = find_pool(arguments.device) if arguments.device else _smallest_pool(memory)
    precision = arguments.precision or pool.default_precision
    pool.peak_flops(precision)
    latency = _optional(arguments.latency, "--latency", unit=1e-3)
    return Wish(
        task=arguments.task.casefold(),
        pool=pool,
        precision=precision,
        memory_bytes=memory,
        latency_seconds=latency,
        input_tokens=parse_count(arguments.tokens, "--tokens"),
        output_tokens=parse_count(arguments.output_tokens, "--output-tokens"),
        languages=tuple(code.strip() for code in arguments.languages.split(",") if code.strip()),
        max_parameters=_optional(arguments.max_parameters, "--max-parameters", unit=1.0),
        needs_finetuning=arguments.finetune,
        is_ready=arguments.ready,
    )


def _optional(text: str | None, name: str, *, unit: float) -> float | None:
    return None if text is None else parse_amount(text, name) * unit


def parse_amount(text: str, name: str) -> float:
    """Return a positive number with or without K, M, B (G) or T behind it.

    A unit of memory or time that the argument has anyway (GB, ms) may stand there too.

    Raises:
        ConfigError: It is none.
    """
    bare = re.sub(r"(?i)\s*(gib|gb|ms)$", "", text.strip())
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGBT]?)", bare, re.IGNORECASE)
    value = float(found[1]) * _UNITS[found[2].upper()] if found else 0.0
    if value <= 0:
        raise ConfigError(f"{name} {text}: expected a number above 0, such as 24 or 1.5B")
    return value


def parse_count(text: str, name: str) -> int:
    """Return a whole number of 1 or more.

    Raises:
        ConfigError: It is none.
    """
    if not (text.isascii() and text.isdigit() and 0 < int(text) < _MOST):
        raise ConfigError(f"{name} {text}: expected a whole number of 1 or more")
    return int(text)


def _smallest_pool(memory_bytes: float | None) -> Pool:
    """Return the known device with the least memory that is at least this."""
    pools = sorted(known_pools().values(), key=lambda pool: (pool.memory_bytes, pool.name))
    if memory_bytes is None:
        return find_pool("a100-40")
    return next((pool for pool in pools if pool.memory_bytes >= memory_bytes), pools[-1])


def _describe(made: Recommendation) -> tuple[str, ...]:
    return (
        made.name,
        f"{made.parameters / 1e6:,.0f} M",
        f"{made.inference_bytes / _GB:.1f}",
        f"{made.finetune_bytes / _GB:.1f}" + ("" if made.fits_finetuning else " (too much)"),
        f"{made.latency_seconds * 1e3:,.1f}",
        "" if made.score is None else f"{made.score:.3f}",
        "; ".join(made.reasons),
    )
