# SPDX-License-Identifier: Apache-2.0
"""The pipeline from raw text to pretrained weights: its parameters are the form in the UI."""

from kfp import dsl

from pipelines.components.compose_pretrain import compose_pretrain
from pipelines.components.prepare import prepare
from pipelines.components.register import register
from pipelines.components.train import train
from pipelines.fields import OUTPUT, with_fields
from pipelines.tasks import as_launcher, as_small


@dsl.pipeline(
    name="fsb-pretrain",
    display_name="Fengshenbang: pretrain",
    description="Raw Chinese text to a pretrained model.",
)
@with_fields
def pretrain(
    corpus: str,
    name: str = "pretrain",
    model: str = "Erlangshen-MegatronBert-1.3B",
    checkpoint: str = "",
    output: str = OUTPUT,
    max_steps: int = 10000,
    num_epochs: int = 1,
    batch_tokens: int = 524288,
    max_tokens: int = 512,
    learning_rate: float = 1e-4,
    seed: int = 42,
    nodes: int = 1,
    pool: str = "default",
    processes_per_node: int = 0,
    settings: str = "",
    register_as: str = "",
    engine: str = "kubernetes",
) -> str:
    """Pretrain a model on raw text.

    Returns:
        Folder of the checkpoint.
    """
    spec = as_small(
        compose_pretrain(
            corpus=corpus, name=name, model=model, checkpoint=checkpoint, output=output,
            max_steps=max_steps, num_epochs=num_epochs, batch_tokens=batch_tokens,
            max_tokens=max_tokens, learning_rate=learning_rate, seed=seed, settings=settings,
            register_as=register_as, engine=engine, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        ),
        "check the form",
    ).output  # fmt: skip
    where = {"engine": engine, "run_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER, "pool": pool}
    data = as_launcher(prepare(spec=spec, **where), "prepare data")
    trained = train(
        spec=spec, data=data.output, nodes=nodes, processes_per_node=processes_per_node, **where
    )
    weights = as_launcher(trained, "pretrain").outputs["Output"]
    with dsl.If(register_as != "", name="register"):
        as_small(register(name=register_as, checkpoint=weights), "register the version")
    return weights
