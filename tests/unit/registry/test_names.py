from __future__ import annotations

import pytest

from pyfsb.errors import UnknownNameError
from pyfsb.registry import all_entries
from pyfsb.registry.names import NameParts, parse_name
from pyfsb.registry.taxonomy import Series


def test_a_name_by_the_rule() -> None:
    assert parse_name("IDEA-CCNL/Erlangshen-DeBERTa-v2-97M-CWS-Chinese") == NameParts(
        series=Series.ERLANGSHEN,
        model="DeBERTa-v2",
        num_parameters=97_000_000,
        extra=("CWS", "Chinese"),
        deviations=(),
    )


@pytest.mark.parametrize("entry", all_entries(), ids=lambda entry: entry.name)
def test_every_entry_has_the_size_and_series_of_its_name(entry) -> None:
    parts = parse_name(entry.name)
    assert parts.num_parameters == entry.num_parameters
    assert parts.series is entry.series
    assert parts.model


def test_the_names_that_break_the_rule() -> None:
    found = {e.name: parse_name(e.name).deviations for e in all_entries()}
    assert found["Wenzhong2.0-GPT2-3.5B-chinese"] == (
        "the series carries '2.0'",
        "chinese is elsewhere spelled Chinese",
    )
    assert found["YuyuanQA-GPT2-3.5B"] == ("the series carries 'QA'",)
    assert sum(bool(deviations) for deviations in found.values()) == 19


@pytest.mark.parametrize(
    ("name", "series", "millions", "deviation"),
    [
        ("Randeng_Pegasus_523M_Summary", Series.RANDENG, 523, "underscores"),
        ("Bigan-Transformer-XL-denoise-1.1B", Series.RANDENG, 1100, "an old series"),
        ("二郎神-1.3B", Series.ERLANGSHEN, 1300, "no model between"),
        ("Erlangshen-Roberta-110m-NLI", Series.ERLANGSHEN, 110, "lower case"),
        ("Taiyi-Diffusion-XL", Series.TAIYI, 0, "no number of parameters"),
    ],
)
def test_old_and_odd_names(name: str, series: Series, millions: int, deviation: str) -> None:
    parts = parse_name(name)
    assert parts.series is series
    assert parts.num_parameters == millions * 10**6
    assert any(deviation in text for text in parts.deviations)


def test_a_name_without_a_series_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'Taiyi'"):
        parse_name("Taiy-vit-87M-D")
