# SPDX-License-Identifier: Apache-2.0
"""Names of the stage images, in one place; the compiler writes them into the pipelines."""

from __future__ import annotations

import os

import pyfsb


def image(stage: str) -> str:
    """Return the image of a stage.

    Args:
        stage: data, train, eval or serving.

    Returns:
        `PREFIX/STAGE:VERSION`; `FSB_IMAGE_PREFIX` replaces the prefix for mirrors and air gaps.
    """
    prefix = os.environ.get("FSB_IMAGE_PREFIX", "fengshenbang")
    return f"{prefix}/{stage}:{pyfsb.__version__}"
