# SPDX-License-Identifier: Apache-2.0
"""Names of the stage images, in one place; the compiler writes them into the pipelines."""

from __future__ import annotations

import os

import pyfsb


def image(stage: str) -> str:
    """Return the image of a stage.

    Args:
        stage: data, train, eval, serving or operator.

    Returns:
        `FSB_IMAGE_STAGE` (in capitals, such as `FSB_IMAGE_DATA`) where it is set: a whole name
        with its tag or digest. Else `PREFIX/STAGE:TAG`, with `FSB_IMAGE_PREFIX` (mirrors, air
        gaps) and `FSB_IMAGE_TAG` for the prefix and the version of this package.
    """
    whole = os.environ.get(f"FSB_IMAGE_{stage.upper()}")
    if whole:
        return whole
    prefix = os.environ.get("FSB_IMAGE_PREFIX") or "fengshenbang"
    return f"{prefix}/{stage}:{os.environ.get('FSB_IMAGE_TAG') or pyfsb.__version__}"
