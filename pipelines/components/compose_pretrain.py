# SPDX-License-Identifier: Apache-2.0
"""Component: the form of the pipeline `fsb-pretrain` to a checked run spec."""

from kfp import dsl

from pipelines.images import image


@dsl.component(base_image=image("data"), install_kfp_package=False)
def compose_pretrain(
    corpus: str,
    name: str,
    model: str,
    checkpoint: str,
    output: str,
    max_steps: int,
    num_epochs: int,
    batch_tokens: int,
    max_tokens: int,
    learning_rate: float,
    seed: int,
    settings: str,
    register_as: str,
    engine: str,
    run_id: str,
) -> str:
    """Write the run spec of the form; a wrong field ends the run here."""
    from pipelines import forms
    from pyfsb.config import Stage

    form = {
        "name": name,
        "output": output,
        "seed": seed,
        "model": {"name": model, "checkpoint": checkpoint},
        "data": {**forms.corpus_section(corpus), "max_tokens": max_tokens},
        "optimizer": {"learning_rate": learning_rate},
        "batch": {"tokens": batch_tokens},
        "training": {"max_steps": max_steps, "num_epochs": num_epochs},
    }
    return forms.compose(
        form, settings=settings, engine=engine, run_id=run_id, register_as=register_as,
        stages=(Stage.DATA, Stage.TRAINING),
    )  # fmt: skip
