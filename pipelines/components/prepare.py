# SPDX-License-Identifier: Apache-2.0
"""Component: corpus and labelled rows to shards and records."""

from kfp import dsl

from pipelines.images import image


@dsl.component(base_image=image("data"), install_kfp_package=False)
def prepare(spec: str) -> str:
    """Run the data stage.

    Args:
        spec: Resolved run spec, YAML text.

    Returns:
        Folder or s3:// prefix of the stage.
    """
    from pyfsb.config import Stage, resolve_spec
    from pyfsb.engines.local import run_stage

    resolved = resolve_spec(spec)
    run_stage(resolved, Stage.DATA)
    return resolved.output_of(Stage.DATA)
