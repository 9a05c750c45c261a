# SPDX-License-Identifier: Apache-2.0
"""Component: corpus and labelled rows to shards and records."""

from kfp import dsl

from pipelines.images import image
from pipelines.tasks import PASSTHROUGHS


@dsl.component(
    base_image=image("data"), install_kfp_package=False, task_config_passthroughs=PASSTHROUGHS
)
def prepare(
    spec: str,
    task_config: dsl.TaskConfig,
    engine: str = "kubernetes",
    run_id: str = "",
    pool: str = "default",
) -> str:
    """Run the data stage; on a cluster as a DataPreparation, close to the store.

    Args:
        spec: Run spec, YAML text.
        task_config: What the pipeline's author set on this task; goes to the pod.
        engine: kubernetes, or local: in this task itself.
        run_id: Id of the pipeline's run; a retried task finds its work again by it.
        pool: Node pool of the chart.

    Returns:
        Folder or s3:// prefix of the stage.
    """
    from pipelines.launching import Launch, run_stage
    from pyfsb.config import Stage, resolve_spec

    resolved = resolve_spec(spec)
    launch = Launch(engine=engine, run_id=run_id, pool=pool, task_config=task_config)
    run_stage(resolved, Stage.DATA, launch)
    return resolved.output_of(Stage.DATA)
