# SPDX-License-Identifier: Apache-2.0
"""Component: a checkpoint to a version in the model store."""

from kfp import dsl

from pipelines.images import image


@dsl.component(base_image=image("data"), install_kfp_package=False)
def register(name: str, checkpoint: str) -> str:
    """Register a checkpoint with what its run's report says about it.

    Args:
        name: Name in the model store.
        checkpoint: Folder or s3:// prefix of the weights, which stay there.

    Returns:
        The version, such as `sentiment@3`; the same checkpoint keeps its version.
    """
    from pyfsb.versions import register as add_version

    return add_version(name, checkpoint).reference
