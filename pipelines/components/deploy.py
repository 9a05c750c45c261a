# SPDX-License-Identifier: Apache-2.0
"""Component: a model that passed its gate to an answered question."""

from kfp import dsl

from pipelines.images import image
from pipelines.tasks import PASSTHROUGHS


@dsl.component(
    base_image=image("data"), install_kfp_package=False, task_config_passthroughs=PASSTHROUGHS
)
def deploy(
    spec: str,
    report: str,
    service: dsl.Output[dsl.Markdown],
    task_config: dsl.TaskConfig,
    engine: str = "kubernetes",
    run_id: str = "",
    pool: str = "default",
) -> str:
    """Run the serving stage: gate, server, one question; on a cluster as a ServedModel that stays.

    Args:
        spec: Run spec, YAML text.
        report: Output of `evaluate`; orders the tasks.
        service: For the UI: where the model answers, and how to ask it.
        task_config: What the pipeline's author set on this task; its resources go to the server.
        engine: kubernetes, or local: in this task itself, which stops the server again.
        run_id: Id of the pipeline's run.
        pool: Node pool of the chart.

    Returns:
        Folder or s3:// prefix of the stage.
    """
    from pathlib import Path

    from pipelines import pages
    from pipelines.launching import Launch, run_stage
    from pyfsb.config import Stage, resolve_spec
    from pyfsb.records import ServingRecord

    resolved = resolve_spec(spec)
    launch = Launch(engine=engine, run_id=run_id, pool=pool, task_config=task_config)
    result = run_stage(resolved, Stage.SERVING, launch)
    card = pages.service_card(pages.only(result.records, ServingRecord))
    Path(service.path).write_text(card, encoding="utf-8")
    return resolved.output_of(Stage.SERVING)
