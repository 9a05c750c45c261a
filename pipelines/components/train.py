# SPDX-License-Identifier: Apache-2.0
"""Component: prepared shards to pretrained weights."""

from kfp import dsl

from pipelines.images import image
from pipelines.tasks import PASSTHROUGHS


@dsl.component(
    base_image=image("data"), install_kfp_package=False, task_config_passthroughs=PASSTHROUGHS
)
def train(
    spec: str,
    data: str,
    metrics: dsl.Output[dsl.Metrics],
    loss_curve: dsl.Output[dsl.HTML],
    model: dsl.Output[dsl.Model],
    task_config: dsl.TaskConfig,
    engine: str = "kubernetes",
    run_id: str = "",
    pool: str = "default",
    nodes: int = 1,
    processes_per_node: int = 0,
) -> str:
    """Run the training stage; on a cluster as a TrainingRun.

    The artifacts are for the UI: figures, the loss over the steps, and where the weights lie
    (never the weights). `data`, the output of `prepare`, orders the tasks; the rest is as there.

    Returns:
        Folder or s3:// prefix of the checkpoint.
    """
    import json
    from pathlib import Path

    from pipelines import pages
    from pipelines.launching import Launch, run_stage
    from pyfsb.config import Stage, resolve_spec
    from pyfsb.records import CheckpointRecord

    resolved = resolve_spec(spec)
    launch = Launch(
        engine=engine, run_id=run_id, pool=pool, nodes=nodes,
        processes_per_node=processes_per_node, task_config=task_config,
    )  # fmt: skip
    result = run_stage(resolved, Stage.TRAINING, launch)
    record = pages.only(result.records, CheckpointRecord)
    for name in ("loss", "step", "num_tokens", "num_parameters"):
        metrics.log_metric(name, float(getattr(record, name) or 0.0))
    Path(loss_curve.path).write_text(pages.loss_curve(resolved), encoding="utf-8")
    model.metadata.update(pages.model_card(record, resolved.output_of(Stage.TRAINING)))
    Path(model.path).write_text(json.dumps(model.metadata, indent=2), encoding="utf-8")
    return resolved.output_of(Stage.TRAINING)
