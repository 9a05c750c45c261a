from __future__ import annotations

import pytest
from pydantic import model_validator

from pyfsb.errors import ConfigError
from pyfsb.schema import Schema, canonical_json, digest, parse, parse_yaml, parse_yaml_mapping


class Inner(Schema):
    width: int
    """Width."""


class Outer(Schema):
    name: str = "x"
    """Name."""
    inner: Inner = Inner(width=1)
    """One."""
    many: tuple[Inner, ...] = ()
    """Many."""
    named: dict[str, Inner] = {}
    """By name."""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"nme": "a"}, "unknown key 'nme'; did you mean 'name' or 'named'?"),
        ({"inner": {"widht": 3}}, "unknown key 'inner.widht'; did you mean 'width'?"),
        ({"many": [{"width": 1, "widh": 2}]}, "unknown key 'many.0.widh'; did you mean 'width'?"),
        ({"named": {"a": {"width": 1, "wdth": 2}}}, "unknown key 'named.a.wdth'; did you mean"),
        ({"inner": {"width": "wide"}}, "inner.width = 'wide': Input should be a valid integer"),
        ({"inner": {}}, "missing key 'inner.width'"),
        ({"qqq": 1}, "unknown key 'qqq'; known keys: inner, many, name, named"),
    ],
)
def test_errors_name_the_field_and_what_is_right(value: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Outer, value, source="spec.yaml")
    assert str(caught.value).startswith("spec.yaml: ")
    assert text in str(caught.value)


def test_a_rule_about_several_fields_speaks_for_itself() -> None:
    class Pair(Schema):
        low: int
        high: int

        @model_validator(mode="after")
        def _rises(self) -> Pair:
            if self.low > self.high:
                raise ValueError(f"low {self.low} is above high {self.high}")
            return self

    with pytest.raises(ConfigError, match="^x: low 2 is above high 1$"):
        parse(Pair, {"low": 2, "high": 1}, source="x")


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"'nme'.*; unknown key 'inr'"):
        parse(Outer, {"nme": 1, "inr": 2}, source="s")


def test_long_values_are_shortened() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Outer, {"inner": {"width": "w" * 500}}, source="s")
    assert len(str(caught.value)) < 250


def test_schemas_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer().name = "y"  # type: ignore[misc]


def test_field_docstrings_reach_the_json_schema() -> None:
    properties = Outer.model_json_schema()["properties"]
    assert properties["name"]["description"] == "Name."


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1E5", 1e5), ("2.5e-4", 2.5e-4), ("-1e2", -100.0), ("1.0", 1.0), ("12", 12)],
)
def test_numbers_are_read_as_yaml_1_2_does(text: str, value: float) -> None:
    assert parse_yaml(text, source="s") == value


def test_a_key_that_stands_twice_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"s: line 2: key 'a' stands twice"):
        parse_yaml("a: 1\na: 2\n", source="s")


def test_broken_yaml_names_the_line() -> None:
    with pytest.raises(ConfigError, match="line 2"):
        parse_yaml("a: [1\nb: 2", source="s")


def test_python_objects_are_not_built() -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse_yaml("!!python/object/apply:os.system ['true']", source="s")


def test_the_top_must_be_a_mapping() -> None:
    with pytest.raises(ConfigError, match="expected a mapping at the top, got list"):
        parse_yaml_mapping("- 1", source="s")


def test_digests_do_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert canonical_json({"文": "字"}) == '{"文":"字"}'


@pytest.mark.parametrize("text", ["2024-13-45", "!!int foo", "!!binary 文"])
def test_values_that_yaml_cannot_build_are_named(text: str) -> None:
    with pytest.raises(ConfigError, match="--set name: not valid YAML"):
        parse_yaml(text, source="--set name")
