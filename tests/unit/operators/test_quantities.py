from __future__ import annotations

from decimal import Decimal

import pytest

from operators.quantities import share_cores, share_memory, to_number
from pyfsb.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "number"),
    [("2", "2"), ("500m", "0.5"), ("1.5Gi", str(3 * 2**29)), ("3k", "3000"), ("1Ti", str(2**40))],
)
def test_quantities_are_numbers(text: str, number: str) -> None:
    assert to_number(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "x", "1GB", "1.2.3", "-1"])
def test_what_is_no_quantity_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="is no quantity; expected"):
        to_number(text)


def test_shares_are_whole() -> None:
    assert (share_cores("96", 8), share_memory("900Gi", 8)) == ("12000m", "115200Mi")
    assert (share_cores("1", 3), share_memory("1Gi", 3)) == ("333m", "341Mi")
    assert (share_cores("7", 1), share_memory("7Gi", 1)) == ("7", "7Gi")
