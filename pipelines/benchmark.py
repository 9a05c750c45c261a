# SPDX-License-Identifier: Apache-2.0
"""The pipeline from a checkpoint to its scores on a suite, and the leaderboard."""

from kfp import dsl

from pipelines.components.compose_benchmark import compose_benchmark
from pipelines.components.evaluate import evaluate
from pipelines.fields import OUTPUT, with_fields
from pipelines.tasks import as_launcher, as_small


@dsl.pipeline(
    name="fsb-benchmark",
    display_name="Fengshenbang: benchmark",
    description="A checkpoint to its scores on a suite of tasks, and the leaderboard.",
)
@with_fields
def benchmark(
    checkpoint: str,
    data_root: str,
    name: str = "benchmark",
    suite: str = "classification",
    model: str = "Erlangshen-MegatronBert-1.3B",
    output: str = OUTPUT,
    learning_rate: float = 2e-5,
    num_epochs: int = 3,
    batch_tokens: int = 2048,
    max_tokens: int = 128,
    seeds: str = "42",
    nodes: int = 1,
    pool: str = "default",
    processes_per_node: int = 0,
    settings: str = "",
    engine: str = "kubernetes",
) -> str:
    """Score a checkpoint on benchmark tasks.

    Returns:
        Folder of the report.
    """
    spec = as_small(
        compose_benchmark(
            checkpoint=checkpoint, data_root=data_root, name=name, suite=suite, model=model,
            output=output, learning_rate=learning_rate, num_epochs=num_epochs,
            batch_tokens=batch_tokens, max_tokens=max_tokens, seeds=seeds, settings=settings,
            engine=engine, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        ),
        "check the form",
    ).output  # fmt: skip
    scored = evaluate(
        spec=spec, model=checkpoint, engine=engine, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        pool=pool, nodes=nodes, processes_per_node=processes_per_node,
    )  # fmt: skip
    return as_launcher(scored, "fine-tune and score").outputs["report"]
