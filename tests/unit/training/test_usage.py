"""Goodput and resource use, reckoned by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyfsb import records
from pyfsb.config import EnergySpec
from pyfsb.consumption import ResourceUse
from pyfsb.records import CheckpointRecord
from pyfsb.training.metrics import METRICS_NAME, to_line
from pyfsb.training.usage import (
    Attempt,
    Attempts,
    Totals,
    measure_usage,
    read_usage,
    write_attempts,
)

STATED = EnergySpec(watts_per_device=700.0, kg_co2e_per_kwh=0.4, price_per_device_hour=3.0)


def step(number: int, **changes: Any) -> Any:
    return {
        "step": number, "loss": 1.0, "gradient_norm": 1.0, "seconds": 10.0,
        "tokens_per_second": 100.0, "mfu": 0.5, "is_skipped": False, **changes,
    }  # fmt: skip


def attempts() -> Attempts:
    """Two hours on 8 devices, ten minutes of nothing, one hour on 4."""
    first = Attempt(started_at=1000.0, seen_at=8200.0, first_step=0, last_step=500, num_devices=8)
    second = Attempt(
        started_at=8800.0, seen_at=12400.0, first_step=400, last_step=720, num_devices=4,
        has_ended=True,
    )  # fmt: skip
    return Attempts(name="run", num_steps=720, device="NVIDIA H100", attempts=(first, second))


def test_steps_that_count_over_the_time_since_the_first_start() -> None:
    totals = Totals(step(number) for number in range(720))
    used = measure_usage(attempts(), totals, STATED)
    assert used.wall_seconds == 11400.0
    assert used.goodput == pytest.approx(7200 / 11400, abs=1e-4)
    assert used.device_seconds == 2 * 3600 * 8 + 3600 * 4
    assert used.kwh == pytest.approx(0.7 * 20)
    assert used.kg_co2e == pytest.approx(0.7 * 20 * 0.4)
    assert used.cost == pytest.approx(20 * 3)
    assert (used.num_devices, used.num_attempts, used.device) == (4, 2, "NVIDIA H100")
    assert (used.watts_per_device, used.kg_co2e_per_kwh, used.price_per_device_hour) == (
        700.0, 0.4, 3.0,
    )  # fmt: skip


def test_nothing_is_made_up() -> None:
    used = measure_usage(attempts(), Totals([step(1, mfu=None)]), EnergySpec())
    assert (used.kwh, used.kg_co2e, used.cost, used.mfu) == (None, None, None, None)
    only_power = measure_usage(attempts(), Totals(), EnergySpec(watts_per_device=1.0))
    assert only_power.kwh is not None
    assert only_power.kg_co2e is None
    assert only_power.goodput == 0.0


def test_skipped_steps_are_no_good_and_means_are_over_time() -> None:
    totals = Totals(
        [
            step(1, seconds=1.0, mfu=0.1, tokens_per_second=10.0),
            step(2, seconds=3.0, mfu=0.5, tokens_per_second=50.0),
            step(3, seconds=100.0, is_skipped=True),
        ]
    )
    assert totals.seconds == 4.0
    assert totals.mfu == pytest.approx((0.1 + 1.5) / 4)
    assert totals.tokens_per_second == pytest.approx((10 + 150) / 4)


def test_a_folder_tells_what_its_training_took(tmp_path: Path) -> None:
    assert read_usage(tmp_path, STATED) is None
    write_attempts(attempts(), tmp_path)
    used = read_usage(tmp_path, STATED)
    assert used
    assert used.goodput == 0.0
    (tmp_path / METRICS_NAME).write_text("".join(to_line(step(n)) for n in (1, 2)) + '{"cut')
    used = read_usage(tmp_path, STATED)
    assert used
    assert used.goodput == pytest.approx(20 / 11400, abs=1e-4)
    assert used.mfu == 0.5


def test_the_record_carries_it_and_its_digest_does_not(tmp_path: Path) -> None:
    record = CheckpointRecord(
        run="r", created_at=records.now(), seconds=1.0, config_hash="h", seeds=(1,), model="m",
        architecture="bert", family="fill_mask", objective="o", num_parameters=1, step=1,
        num_samples=1, num_tokens=1, loss=1.0, max_tokens=8, vocabulary_digest="v",
    )  # fmt: skip
    used = measure_usage(attempts(), Totals([step(1)]), STATED)
    complete = record.model_copy(update={"resources": used})
    assert complete.digest == record.digest
    records.write_record(complete, str(tmp_path))
    found = records.read_record(str(tmp_path))
    assert isinstance(found, CheckpointRecord)
    assert isinstance(found.resources, ResourceUse)
    assert found.resources == used
