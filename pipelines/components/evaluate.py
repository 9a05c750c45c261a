# SPDX-License-Identifier: Apache-2.0
"""Component: weights to scores, gate and leaderboard."""

from kfp import dsl

from pipelines.images import image


@dsl.component(base_image=image("eval"), install_kfp_package=False)
def evaluate(
    spec: str,
    model: str,
    metrics: dsl.Output[dsl.Metrics],
    leaderboard: dsl.Output[dsl.HTML],
) -> str:
    """Run the evaluation stage and build the leaderboard.

    Args:
        spec: Resolved run spec, YAML text.
        model: Output of `train`; orders the tasks.
        metrics: Score of each task and runner for the UI.
        leaderboard: The board as a page for the UI.

    Returns:
        Folder or s3:// prefix of the stage.
    """
    from pathlib import Path

    from pyfsb import storage
    from pyfsb.config import Stage, resolve_spec
    from pyfsb.engines.local import run_stage

    resolved = resolve_spec(spec)
    report = run_stage(resolved, Stage.EVALUATION).records[0]
    for score in getattr(report, "scores", ()):
        metrics.log_metric(f"{score.task} {score.runner}", score.value)
    pages = run_stage(resolved, Stage.LEADERBOARD).places[0]
    page = storage.read_text(storage.join(pages, "leaderboard.html"))
    Path(leaderboard.path).write_text(page, encoding="utf-8")
    return resolved.output_of(Stage.EVALUATION)
