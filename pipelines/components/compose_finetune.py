# SPDX-License-Identifier: Apache-2.0
"""Component: the form of the pipeline `fsb-finetune` to a checked run spec."""

from kfp import dsl

from pipelines.images import image


@dsl.component(base_image=image("data"), install_kfp_package=False)
def compose_finetune(
    train_file: str,
    checkpoint: str,
    name: str,
    family: str,
    text_column: str,
    text_pair_column: str,
    label_column: str,
    labels: str,
    test_file: str,
    model: str,
    output: str,
    learning_rate: float,
    num_epochs: int,
    batch_tokens: int,
    max_tokens: int,
    seeds: str,
    serve: bool,
    settings: str,
    register_as: str,
    engine: str,
    run_id: str,
) -> str:
    """Write the run spec of the form; a wrong field ends the run here."""
    from pipelines import forms
    from pyfsb.config import Stage

    form = forms.finetuning(
        name=name, output=output, model=model, checkpoint=checkpoint, seeds=seeds,
        learning_rate=learning_rate, num_epochs=num_epochs, batch_tokens=batch_tokens,
        max_tokens=max_tokens,
    )  # fmt: skip
    form["data"] = {
        "train": train_file,
        "test": test_file,
        "task": {
            "name": name, "family": family, "text": text_column, "text_pair": text_pair_column,
            "label": label_column, "labels": forms.split_names(labels),
        },
    }  # fmt: skip
    form["serving"] = {"is_enabled": serve, "runner": "best"}
    return forms.compose(
        form, settings=settings, engine=engine, run_id=run_id, register_as=register_as,
        stages=(Stage.DATA, Stage.EVALUATION, Stage.LEADERBOARD, Stage.SERVING),
    )  # fmt: skip
