# SPDX-License-Identifier: Apache-2.0
"""Component: the form of the pipeline `fsb-benchmark` to a checked run spec."""

from kfp import dsl

from pipelines.images import image


@dsl.component(base_image=image("data"), install_kfp_package=False)
def compose_benchmark(
    checkpoint: str,
    data_root: str,
    name: str,
    suite: str,
    model: str,
    output: str,
    learning_rate: float,
    num_epochs: int,
    batch_tokens: int,
    max_tokens: int,
    seeds: str,
    settings: str,
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
    form["data"] = {"root": data_root}
    form["evaluation"]["tasks"] = forms.split_names(suite)
    form["serving"] = {"is_enabled": False}
    return forms.compose(
        form, settings=settings, engine=engine, run_id=run_id,
        stages=(Stage.EVALUATION, Stage.LEADERBOARD),
    )  # fmt: skip
