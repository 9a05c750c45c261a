# SPDX-License-Identifier: Apache-2.0
"""What a piece of work took: devices, time, energy, emissions, money; a part of its record.

Filled in by `pyfsb.training.usage`; never part of a record's digest.
"""

from __future__ import annotations

from pyfsb.schema import Schema


class ResourceUse(Schema):
    """What a training took, over all its attempts; energy and price are stated, not measured."""

    num_devices: int
    """Devices of the last attempt; on CPU one a process."""
    device: str
    """What the driver calls them, or cpu."""
    num_attempts: int
    """Times the training was started."""
    wall_seconds: float
    """From its first start to its end, pauses included."""
    device_seconds: float
    """Devices times the time they were held, over all attempts."""
    goodput: float
    """Time in steps that count (each once, no skipped one) over wall_seconds."""
    tokens_per_second: float
    """Tokens of those steps over their time."""
    mfu: float | None = None
    """Mean over their time of model FLOPs over 16-bit peak. None where the peak is not known."""
    watts_per_device: float | None = None
    """Stated mean power (`training.energy`). None: not stated."""
    kwh: float | None = None
    """That power times device_seconds."""
    kg_co2e_per_kwh: float | None = None
    """Stated for the grid. None: not stated."""
    kg_co2e: float | None = None
    """Emissions by both statements."""
    price_per_device_hour: float | None = None
    """Stated. None: not stated."""
    cost: float | None = None
    """That price times the device hours, in its currency."""
