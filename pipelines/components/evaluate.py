# SPDX-License-Identifier: Apache-2.0
"""Component: weights to scores, gate and leaderboard."""

from typing import NamedTuple

from kfp import dsl

from pipelines.images import image
from pipelines.tasks import PASSTHROUGHS


@dsl.component(
    base_image=image("data"), install_kfp_package=False, task_config_passthroughs=PASSTHROUGHS
)
def evaluate(
    spec: str,
    model: str,
    metrics: dsl.Output[dsl.Metrics],
    scores: dsl.Output[dsl.Markdown],
    leaderboard: dsl.Output[dsl.HTML],
    task_config: dsl.TaskConfig,
    engine: str = "kubernetes",
    run_id: str = "",
    pool: str = "default",
    nodes: int = 1,
    processes_per_node: int = 0,
) -> NamedTuple("Outputs", report=str, checkpoint=str):  # type: ignore[valid-type]
    """Run the evaluation stage; on a cluster as an Evaluation.

    The artifacts are for the UI: figures, the table of scores with the gate's decision, the
    leaderboard. `model`, the output of an earlier task, orders the tasks; the rest is as there.

    Returns:
        Folder or s3:// prefix of the report, and of the checkpoint that its gate is about.
    """
    from pathlib import Path

    from pipelines import pages
    from pipelines.launching import Launch, read_board, run_stage
    from pyfsb.config import Stage, resolve_spec
    from pyfsb.records import EvalReport

    resolved = resolve_spec(spec)
    launch = Launch(
        engine=engine, run_id=run_id, pool=pool, nodes=nodes,
        processes_per_node=processes_per_node, task_config=task_config,
    )  # fmt: skip
    report = pages.only(run_stage(resolved, Stage.EVALUATION, launch).records, EvalReport)
    for score in report.scores:
        metrics.log_metric(f"{score.task} {score.runner}", score.value)
    Path(scores.path).write_text(pages.score_table(report), encoding="utf-8")
    Path(leaderboard.path).write_text(read_board(resolved, launch), encoding="utf-8")
    place = resolved.output_of(Stage.EVALUATION)
    return place, pages.served_checkpoint(report, place)
