# SPDX-License-Identifier: Apache-2.0
"""Fitted coefficients of the throughput model. Data only.

`python -m tests.bench planner` makes them from the published table and prints these lines.
"""

from __future__ import annotations

from typing import Final

COEFFICIENTS: Final = (1.148, 1.148, 0.0724, 1.592, 0.2059, 0.9455, 0.347)
"""Of `throughput.TERMS`: 209 bf16 rows of llm-foundry's table."""
