# SPDX-License-Identifier: Apache-2.0
"""Kubernetes' quantities as numbers, and shares of them; pure.

Source: Kubernetes, "Resource Quantity"; the forms that `pyfsb.resources.kinds.Quantity` allows.
"""

from __future__ import annotations

import contextlib
import re
from decimal import Decimal, InvalidOperation
from typing import Final

from pyfsb.errors import ConfigError

_FACTORS: Final = {
    "": Decimal(1), "m": Decimal("0.001"),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
}  # fmt: skip
_FORM: Final = re.compile(r"([0-9.]+)([A-Za-z]*)")


def to_number(quantity: str) -> Decimal:
    """Return a quantity as a number of cores or bytes.

    Raises:
        ConfigError: It is no quantity.
    """
    found = _FORM.fullmatch(quantity)
    if found:
        with contextlib.suppress(KeyError, InvalidOperation):
            return Decimal(found[1]) * _FACTORS[found[2]]
    raise ConfigError(f"{quantity!r} is no quantity; expected a number such as 2, 500m or 16Gi")


def share_cores(cpu: str, parts: int) -> str:
    """Return an equal share of CPU cores, in whole thousandths."""
    return cpu if parts <= 1 else f"{int(to_number(cpu) * 1000 / parts)}m"


def share_memory(memory: str, parts: int) -> str:
    """Return an equal share of memory, in whole MiB."""
    return memory if parts <= 1 else f"{int(to_number(memory) / parts / 2**20)}Mi"
