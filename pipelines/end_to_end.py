# SPDX-License-Identifier: Apache-2.0
"""The pipeline from raw text to a served model: four coarse tasks, one after another.

Weights never pass through artifacts: tasks hand on folders or s3:// prefixes as strings, and the
records in them say what is complete, so a repeated task finds its work done.
"""

from kfp import dsl

from pipelines.components.deploy import deploy
from pipelines.components.evaluate import evaluate
from pipelines.components.prepare import prepare
from pipelines.components.train import train


@dsl.pipeline(
    name="end-to-end",
    description="Raw Chinese text to a served, CLUE-scored model: prepare, train, score, serve.",
)
def end_to_end(spec: str) -> str:
    """Run every stage of a spec.

    Args:
        spec: Run spec, YAML text; every path in it absolute or s3://.

    Returns:
        Folder or s3:// prefix of the serving record.
    """
    data = prepare(spec=spec).set_display_name("prepare data")
    model = train(spec=spec, data=data.output).set_display_name("pretrain")
    report = evaluate(spec=spec, model=model.outputs["Output"]).set_display_name("evaluate")
    served = deploy(spec=spec, report=report.outputs["Output"]).set_display_name("serve")
    for task in (data, model, report, served):
        # Records decide what is done; KFP's cache would compare spec texts only.
        task.set_caching_options(False)
    return served.output
