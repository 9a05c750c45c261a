# SPDX-License-Identifier: Apache-2.0
"""The pipeline from a user's own labelled rows to a scored, served model."""

from kfp import dsl

from pipelines.components.compose_finetune import compose_finetune
from pipelines.components.deploy import deploy
from pipelines.components.evaluate import evaluate
from pipelines.components.prepare import prepare
from pipelines.components.register import register
from pipelines.fields import OUTPUT, with_fields
from pipelines.tasks import as_launcher, as_small


@dsl.pipeline(
    name="fsb-finetune",
    display_name="Fengshenbang: fine-tune",
    description="Your own labelled rows to a scored, gated and served model.",
)
@with_fields
def finetune(
    train_file: str,
    checkpoint: str,
    name: str = "finetune",
    family: str = "classify",
    text_column: str = "text",
    text_pair_column: str = "",
    label_column: str = "label",
    labels: str = "",
    test_file: str = "",
    model: str = "Erlangshen-MegatronBert-1.3B",
    output: str = OUTPUT,
    learning_rate: float = 2e-5,
    num_epochs: int = 3,
    batch_tokens: int = 2048,
    max_tokens: int = 128,
    seeds: str = "42",
    serve: bool = True,
    nodes: int = 1,
    pool: str = "default",
    serving_pool: str = "default",
    processes_per_node: int = 0,
    settings: str = "",
    register_as: str = "",
    engine: str = "kubernetes",
) -> str:
    """Fine-tune a checkpoint on your own rows, score it on held-out ones, serve it.

    Returns:
        Folder of the report.
    """
    spec = as_small(
        compose_finetune(
            train_file=train_file, checkpoint=checkpoint, name=name, family=family,
            text_column=text_column, text_pair_column=text_pair_column,
            label_column=label_column, labels=labels, test_file=test_file, model=model,
            output=output, learning_rate=learning_rate, num_epochs=num_epochs,
            batch_tokens=batch_tokens, max_tokens=max_tokens, seeds=seeds, serve=serve,
            settings=settings, register_as=register_as, engine=engine,
            run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        ),
        "check the form",
    ).output  # fmt: skip
    where = {"engine": engine, "run_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
    data = as_launcher(prepare(spec=spec, pool=pool, **where), "prepare data")
    scored = evaluate(
        spec=spec, model=data.output, pool=pool, nodes=nodes,
        processes_per_node=processes_per_node, **where,
    )  # fmt: skip
    report = as_launcher(scored, "fine-tune and score").outputs
    with dsl.If(register_as != "", name="register"):
        version = register(name=register_as, checkpoint=report["checkpoint"])
        as_small(version, "register the version")
    with dsl.If(serve == True, name="serve"):  # noqa: E712 - a condition of the pipeline
        served = deploy(spec=spec, report=report["report"], pool=serving_pool, **where)
        as_launcher(served, "serve")
    return report["report"]
