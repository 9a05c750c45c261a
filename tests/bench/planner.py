"""B12: the planner's times against published runs, its memory against torch's tracker, its speed.

Times: 209 bf16 rows of llm-foundry's table, each type of GPU left out of the fit in turn, and plain
leave-one-out; baselines: one constant MFU or HFU. Checks beside: fp8 rows, NeMo's BERT of 4B.
Memory: forward and backward of our flat losses under `torch.distributed._tools.mem_tracker`, with
the model states that DeepSpeed keeps for them. Speed: 1,000 layouts. The limit of the times is the
noise of the table itself: rows that differ in nothing that a model could know.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from pyfsb.training.pools import find_pool
from pyfsb.training.throughput import TERMS, term_seconds
from pyfsb.training.throughput_fit import COEFFICIENTS
from tests.bench import planner_memory
from tests.bench.published import Row, read_rows, read_table

Vector = NDArray[np.float64]
_POOLS = ("a100-40", "a100-80", "h100-80")


def main() -> None:
    rows = read_rows()
    terms, seconds = terms_of(rows), np.array([row.seconds for row in rows])
    report_times(rows, terms, seconds)
    report_baselines(rows, seconds)
    report_others()
    planner_memory.report()
    report_speed()


def terms_of(rows: list[Row]) -> Vector:
    return np.array([term_seconds(row.work, row.pool, "bf16", row.num_devices) for row in rows])


def fit(terms: Vector, seconds: Vector) -> Vector:
    """Return non-negative coefficients of the least relative errors, absolute ones (robust)."""
    relative = terms / seconds[:, None]
    scale = relative.mean(0)
    weights = np.ones(len(seconds))
    solution = np.zeros(terms.shape[1])
    for _ in range(60):
        solution = nnls(relative / scale * weights[:, None], weights)[0]
        errors = np.abs(relative / scale @ solution - 1)
        weights = 1 / np.sqrt(np.maximum(errors, 0.02))
    return solution / scale


def leave_out(rows: list[Row], terms: Vector, seconds: Vector) -> dict[str, Vector]:
    """Return the relative errors of each pool's rows under a fit to the other pools."""
    pools = np.array([row.pool.name for row in rows])
    return {
        name: terms[pools == name] @ fit(terms[pools != name], seconds[pools != name])
        / seconds[pools == name] - 1
        for name in _POOLS
    }  # fmt: skip


def report_times(rows: list[Row], terms: Vector, seconds: Vector) -> None:
    coefficients = fit(terms, seconds)
    print("fitted to all rows; pyfsb/training/throughput_fit.py should say:")
    print(f"  COEFFICIENTS: Final = ({', '.join(f'{value:.4g}' for value in coefficients)})")
    for name, value, kept in zip(TERMS, coefficients, COEFFICIENTS, strict=True):
        print(f"  {name:14} {value:8.4f}  (in the file {kept:.4f})")
    _print("in sample", terms @ coefficients / seconds - 1)
    errors = leave_out(rows, terms, seconds)
    for name, values in errors.items():
        _print(f"without {name}", values)
    _print("each type left out", np.concatenate(list(errors.values())))
    single = []
    for number in range(len(rows)):
        others = np.arange(len(rows)) != number
        single.append(terms[number] @ fit(terms[others], seconds[others]) / seconds[number] - 1)
    _print("each row left out", np.array(single))


def report_baselines(rows: list[Row], seconds: Vector) -> None:
    """One constant share of the peak, fitted to the other types of GPU."""
    pools = np.array([row.pool.name for row in rows])
    for title, flops in (
        ("constant MFU", np.array([row.model_flops for row in rows])),
        ("constant HFU", np.array([row.hardware_flops for row in rows])),
    ):
        shares = flops / seconds / np.array([row.pool.bf16_flops for row in rows])
        errors = [shares[pools == name] / np.median(shares[pools != name]) - 1 for name in _POOLS]
        _print(f"{title}, each type left out", np.concatenate(errors))
        own = [shares[pools == name] / np.median(shares[pools == name]) - 1 for name in _POOLS]
        _print(f"{title}, of each type", np.concatenate(own))
        _print(f"{title}, 50 %", shares / 0.5 - 1)


def report_others() -> None:
    """Rows that the fit never sees: fp8, and another framework's encoder."""
    rows = read_rows("fp8")
    found = terms_of(rows) @ np.array(COEFFICIENTS)
    _print("fp8 rows with bf16's figures", found / np.array([row.seconds for row in rows]) - 1)
    for num_nodes, published, predicted in nemo_rows():
        print(
            f"NeMo BERT 4B, {num_nodes:2} nodes: {published:9,.0f} tokens/s published, "
            f"{predicted:9,.0f} predicted ({predicted / published - 1:+.1%})"
        )


def nemo_rows() -> list[tuple[int, float, float]]:
    """Return nodes, published and predicted tokens a second of NeMo's BERT."""
    from pyfsb.training.estimates import Rates, Workload, estimate
    from pyfsb.training.flops import FlopCounter
    from pyfsb.training.layouts import Layout

    counter = FlopCounter.of(
        "megatron-bert",
        {
            "vocab_size": 30592, "hidden_size": 2560, "num_hidden_layers": 48,
            "num_attention_heads": 32, "intermediate_size": 10240,
        },
    )  # fmt: skip
    workload = Workload(
        counter=counter, document_tokens=512.0, max_tokens=512, target_ratio=1.0,
        step_tokens=2048 * 512, num_tokens=1e9, checkpoint_every_steps=10**9,
    )  # fmt: skip
    found = []
    for row in read_table("nemo_bert_4b.tsv"):
        layout = Layout(
            zero_stage=1, offload_optimizer=False, offload_parameters=False, micro_tokens=8 * 512,
            activation_checkpointing=False, precision="bf16", num_nodes=int(row["num_nodes"]),
            devices_per_node=8,
        )  # fmt: skip
        predicted = estimate(workload, layout, find_pool("a100-80"), Rates()).tokens_per_second
        found.append((layout.num_nodes, float(row["tokens_per_second"]), predicted))
    return found


def report_speed() -> None:
    from pyfsb.training.estimates import Rates, Workload, estimate
    from pyfsb.training.flops import FlopCounter
    from pyfsb.training.layouts import enumerate_layouts

    pool = find_pool("a100-80")
    workload = Workload(
        counter=FlopCounter.of("gpt2", {"n_embd": 5120, "n_layer": 40, "n_head": 40}),
        document_tokens=512.0, max_tokens=512, target_ratio=1.0, step_tokens=1 << 22,
        num_tokens=1e11, checkpoint_every_steps=500,
    )  # fmt: skip
    layouts = list(
        enumerate_layouts(
            pool, nodes=range(1, 33), precision="bf16", max_tokens=512, step_tokens=1 << 22
        )
    )[:1000]
    spent = []
    for _ in range(5):
        start = time.process_time()
        for layout in layouts:
            estimate(workload, layout, pool, Rates())
        spent.append(time.process_time() - start)
    print(f"{len(layouts):,} layouts: {min(spent):.3f} s CPU (target 1 s)")


def _print(title: str, errors: Vector) -> None:
    absolute = np.abs(errors)
    print(
        f"{title:34} n={len(errors):3}  MAPE {absolute.mean():6.2%}  p90 "
        f"{np.quantile(absolute, 0.9):6.2%}  bias {errors.mean():+6.2%}"
    )
