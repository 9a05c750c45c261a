# SPDX-License-Identifier: Apache-2.0
"""Component: prepared shards to pretrained weights."""

from kfp import dsl

from pipelines.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def train(spec: str, data: str, metrics: dsl.Output[dsl.Metrics]) -> str:
    """Run the training stage.

    Args:
        spec: Resolved run spec, YAML text.
        data: Output of `prepare`; orders the tasks.
        metrics: Loss, steps, tokens and parameters for the UI.

    Returns:
        Folder or s3:// prefix of the stage.
    """
    from pyfsb.config import Stage, resolve_spec
    from pyfsb.engines.local import run_stage

    resolved = resolve_spec(spec)
    record = run_stage(resolved, Stage.TRAINING).records[0]
    for name in ("loss", "step", "num_tokens", "num_parameters"):
        metrics.log_metric(name, float(getattr(record, name) or 0.0))
    return resolved.output_of(Stage.TRAINING)
