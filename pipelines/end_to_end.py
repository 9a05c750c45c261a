# SPDX-License-Identifier: Apache-2.0
"""The pipeline from raw text to a served model: four coarse tasks, one after another.

Weights never pass through artifacts: tasks hand on folders or s3:// prefixes as strings, and the
records in them say what is complete, so a repeated task finds its work done.
"""

from typing import Final

from kfp import dsl

from pipelines.components.deploy import deploy
from pipelines.components.evaluate import evaluate
from pipelines.components.prepare import prepare
from pipelines.components.train import train
from pipelines.environment import store_root
from pipelines.fields import with_fields
from pipelines.tasks import as_launcher

EXAMPLE: Final = f"""\
name: first
output: {store_root()}/runs/first
model:
  name: Erlangshen-MegatronBert-1.3B
  config: {{num_hidden_layers: 2, hidden_size: 128, num_attention_heads: 2, intermediate_size: 512}}
data:
  root: {store_root()}/data
  corpus: ["rawcorpus/*.jsonl.gz"]
  vocabulary: {{size: 8000}}
  max_tokens: 128
optimizer: {{learning_rate: 1e-3}}
batch: {{tokens: 4096}}
training: {{num_epochs: 20, max_steps: 1200}}
evaluation:
  tasks: [tnews, eprstmt]
  finetune: {{optimizer: {{learning_rate: 1e-3}}, batch: {{tokens: 1024}}, num_epochs: 5}}
serving: {{task: tnews, question: 中国女排夺得世界杯冠军}}
"""
"""What the form shows: the demo of the documentation, on the object store."""


@dsl.pipeline(
    name="fsb-end-to-end",
    display_name="Fengshenbang: end to end",
    description="Raw Chinese text to a served, CLUE-scored model: prepare, train, score, serve.",
)
@with_fields
def end_to_end(
    spec: str = EXAMPLE,
    nodes: int = 1,
    pool: str = "default",
    serving_pool: str = "default",
    processes_per_node: int = 0,
    engine: str = "kubernetes",
) -> str:
    """Run every stage of a spec.

    Returns:
        Folder or s3:// prefix of the serving record.
    """
    where = {"spec": spec, "engine": engine, "run_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
    gang = {"pool": pool, "nodes": nodes, "processes_per_node": processes_per_node}
    data = as_launcher(prepare(pool=pool, **where), "prepare data")
    model = as_launcher(train(data=data.output, **gang, **where), "pretrain")
    scored = evaluate(model=model.outputs["Output"], **gang, **where)
    report = as_launcher(scored, "evaluate")
    served = deploy(report=report.outputs["report"], pool=serving_pool, **where)
    return as_launcher(served, "serve").outputs["Output"]
