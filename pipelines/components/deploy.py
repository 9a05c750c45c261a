# SPDX-License-Identifier: Apache-2.0
"""Component: a model that passed its gate to an answered question."""

from kfp import dsl

from pipelines.images import image


@dsl.component(base_image=image("serving"), install_kfp_package=False)
def deploy(spec: str, report: str) -> str:
    """Run the serving stage: gate, server, one question.

    Args:
        spec: Resolved run spec, YAML text.
        report: Output of `evaluate`; orders the tasks.

    Returns:
        Folder or s3:// prefix of the stage.
    """
    from pyfsb.config import Stage, resolve_spec
    from pyfsb.engines.local import run_stage

    resolved = resolve_spec(spec)
    run_stage(resolved, Stage.SERVING)
    return resolved.output_of(Stage.SERVING)
