# SPDX-License-Identifier: Apache-2.0
"""`fsb plan`: how long a training takes, what it costs, and which layout to take."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Final

from pyfsb.cli.arguments import (
    Commands,
    add_output,
    print_json,
    print_table,
    print_text,
)
from pyfsb.config import RunSpec, load_spec
from pyfsb.errors import EXIT_OK, ConfigError
from pyfsb.schema import Json, to_yaml
from pyfsb.training.claims import Explained, explain_claims
from pyfsb.training.estimates import Estimate, Rates, Workload
from pyfsb.training.layouts import parse_nodes
from pyfsb.training.planner import (
    Plan,
    build_workload,
    explain_refusal,
    make_plan,
    stated_rates,
    tokens_of_bytes,
)
from pyfsb.training.pools import Pool, find_pool, known_pools

_GB: Final = 1e9
_HEADER: Final = (
    "", "nodes", "layout", "GB a device", "step s", "tokens/s", "MFU", "talking", "days",
    "device-hours", "cost", "kWh",
)  # fmt: skip


def add_commands(commands: Commands) -> None:
    """Add the verb."""
    parser = commands.add_parser("plan", help="memory, time and cost of a training, by layout")
    parser.add_argument(
        "spec", metavar="SPEC", nargs="?", help="run spec, a YAML file or s3:// URI"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="override a setting, e.g. batch.tokens=1048576; the value is YAML; repeatable",
    )  # fmt: skip
    add_output(parser)
    parser.add_argument(
        "--pool", default="a100-80", metavar="POOL",
        help=f"kind of nodes: {', '.join(known_pools())}, or a .yaml file (default: a100-80)",
    )  # fmt: skip
    parser.add_argument(
        "--nodes", default="1", metavar="N", help="8, or 4,8,12, or 4..32 doubling (default: 1)"
    )
    parser.add_argument("--corpus-tokens", type=_amount, metavar="N", help="tokens of one epoch")
    parser.add_argument(
        "--corpus-bytes", type=_amount, metavar="N", help="the same as bytes of Chinese UTF-8 text"
    )
    parser.add_argument(
        "--mean-tokens", type=_amount, metavar="N",
        help="mean tokens of a document (default: data.max_tokens, the longest)",
    )  # fmt: skip
    parser.add_argument(
        "--target-ratio",
        type=_amount,
        metavar="R",
        help="predicted positions over tokens (default: of the objective)",
    )
    parser.add_argument("--price", type=_amount, metavar="P", help="price of a device-hour")
    parser.add_argument("--watts", type=_amount, metavar="W", help="mean power of a device")
    parser.add_argument(
        "--goal", choices=("days", "cost"), default="days",
        help="best is the fastest or the one of fewest device-hours (default: days)",
    )  # fmt: skip
    parser.add_argument(
        "--write", action="store_true", help="print the best layout as lines of a run spec"
    )
    parser.add_argument(
        "--explain-claims", action="store_true",
        help="instead: published compute budgets as MFU and epochs, and what cannot be right",
    )  # fmt: skip
    parser.set_defaults(handler=_plan)


def _amount(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected a number above 0")
    return value


def _plan(arguments: argparse.Namespace) -> int:
    if arguments.explain_claims:
        return _explain(arguments.form)
    if arguments.spec is None:
        raise ConfigError("fsb plan: which SPEC? Give a run spec, or --explain-claims")
    spec = load_spec(arguments.spec, arguments.overrides)
    pool, nodes = find_pool(arguments.pool), parse_nodes(arguments.nodes)
    workload = build_workload(
        spec,
        corpus_tokens=_corpus_tokens(spec, arguments),
        mean_tokens=arguments.mean_tokens,
        target_ratio=arguments.target_ratio,
    )
    stated = stated_rates(spec)
    rates = Rates(
        price_per_device_hour=arguments.price or stated.price_per_device_hour,
        watts_per_device=arguments.watts or stated.watts_per_device,
    )
    plan = make_plan(spec, workload, pool, nodes, rates=rates, goal=arguments.goal)
    if arguments.write:
        print_text(to_yaml(plan.best.layout.to_spec()))
    elif arguments.form == "json":
        print_json(_to_json(spec, workload, pool, plan))
    else:
        _show(spec, workload, pool, plan)
    return EXIT_OK


def _corpus_tokens(spec: RunSpec, arguments: argparse.Namespace) -> float | None:
    if arguments.corpus_tokens and arguments.corpus_bytes:
        raise ConfigError("--corpus-tokens and --corpus-bytes say the same; give one of them")
    if arguments.corpus_bytes:
        return tokens_of_bytes(spec, arguments.corpus_bytes)
    tokens: float | None = arguments.corpus_tokens
    return tokens


def _show(spec: RunSpec, workload: Workload, pool: Pool, plan: Plan) -> None:
    shape = workload.counter.shape
    per_token = workload.counter.per_token(workload.document_tokens, workload.target_ratio)
    print_text(
        f"{spec.model.name}: {shape.num_parameters / 1e9:.3f}B parameters, "
        f"{per_token / 1e9:.2f} GFLOP a token, {workload.num_tokens / 1e9:.4g} G tokens in "
        f"{workload.num_steps:,} steps of {workload.step_tokens:,}"
    )
    rows = [_cells("best" if found is plan.best else "", found) for found in plan.by_nodes]
    if plan.written:
        rows.append(_cells("as written", plan.written))
    print_table(f"{pool.name}, {pool.devices_per_node} devices a node", _HEADER, rows)
    print_text(
        f"{plan.num_tried:,} layouts tried, {plan.num_refused:,} do not fit; add --write for the "
        "best one as lines of the spec"
    )
    if plan.written and not plan.written.fits:
        print_text(f"the spec as written: {explain_refusal(workload, plan.written, pool)}")


def _cells(mark: str, found: Estimate) -> tuple[str, ...]:
    memory = f"{found.memory.device / _GB:.1f}"
    return (
        mark,
        str(found.layout.num_nodes),
        found.layout.title,
        memory if found.fits else f"{memory} (too many)",
        f"{found.step_seconds:.3g}",
        f"{found.tokens_per_second:,.0f}",
        f"{found.mfu:.1%}",
        f"{found.communication_seconds / found.step_seconds:.0%}",
        f"{found.days:.2f}",
        f"{found.device_hours:,.0f}",
        "" if found.cost is None else f"{found.cost:,.0f}",
        "" if found.kwh is None else f"{found.kwh:,.0f}",
    )


def _to_json(spec: RunSpec, workload: Workload, pool: Pool, plan: Plan) -> Json:
    return {
        "model": spec.model.name,
        "pool": pool.to_json(),
        "num_parameters": workload.counter.shape.num_parameters,
        "flops_per_token": workload.counter.per_token(
            workload.document_tokens, workload.target_ratio
        ),
        "num_tokens": workload.num_tokens,
        "num_steps": workload.num_steps,
        "num_tried": plan.num_tried,
        "num_refused": plan.num_refused,
        "best": _estimate_json(plan.best),
        "by_nodes": [_estimate_json(found) for found in plan.by_nodes],
        "written": _estimate_json(plan.written) if plan.written else None,
        "spec": plan.best.layout.to_spec(),
    }


def _estimate_json(found: Estimate) -> Json:
    value: Json = asdict(found)
    value["fits"] = found.fits
    value["memory"]["device"] = found.memory.device
    value["layout"]["num_devices"] = found.layout.num_devices
    return value


def _explain(form: str) -> int:
    found = explain_claims()
    if form == "json":
        print_json([_claim_json(item) for item in found])
        return EXIT_OK
    header = ("model", "statement", "G tokens", "GFLOP/token", "MFU an epoch", "verdict")
    rows = [
        (
            item.claim.model,
            f"{item.claim.num_devices} x {item.claim.pool}, {item.claim.days:.3g} days "
            f"({item.claim.source})",
            f"{item.corpus_tokens / 1e9:.1f}",
            f"{item.flops_per_token / 1e9:.2f}",
            f"{item.mfu_per_epoch:.1%}",
            item.verdict,
        )
        for item in found
    ]
    print_table("published budgets", header, rows)
    return EXIT_OK


def _claim_json(item: Explained) -> Json:
    return {
        "model": item.claim.model,
        "source": item.claim.source,
        "num_devices": item.claim.num_devices,
        "days": item.claim.days,
        "corpus_tokens": item.corpus_tokens,
        "flops_per_token": item.flops_per_token,
        "mfu_per_epoch": item.mfu_per_epoch,
        "epochs": list(item.epochs),
        "is_consistent": item.is_consistent,
        "verdict": item.verdict,
    }
