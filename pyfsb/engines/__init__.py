# SPDX-License-Identifier: Apache-2.0
"""Where a run's stages run: subprocesses here, or whatever registers in `fsb.engines`."""

from __future__ import annotations

from pyfsb.engines.protocol import Engine, StageResult, find_engine

__all__ = ["Engine", "StageResult", "find_engine"]
