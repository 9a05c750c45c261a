"""What is no input is refused with its position, in every form that Python can give it."""

from __future__ import annotations

from typing import Any

import pytest

from pyfsb.errors import ConfigError
from pyfsb.inference.choose import ChoiceInput
from pyfsb.inference.protocol import TextInput, as_inputs, as_list, as_schema


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (1, "input 1 = 1: expected a text, a pair of texts, or a TextInput"),
        (None, "input 1 = None"),
        (b"x", "input 1 = b'x'"),
        (("a",), r"input 1 = \('a',\)"),
        (("a", "b", "c"), "expected a text, a pair"),
        (("a", 2), "expected a text, a pair"),
        ({"txt": "a"}, "input 1: missing key 'text'; unknown key 'txt'; did you mean 'text'"),
        ({"text": 5}, "input 1: text = 5"),
        ("", "input 1: the text is empty"),
        ("x" * 900 + "\0", None),
    ],
)
def test_inputs_that_are_no_texts(item: Any, text: str | None) -> None:
    if text is None:
        assert as_inputs(["a", item])[1].text == item
        return
    with pytest.raises(ConfigError, match=text):
        as_inputs(["a", item])


@pytest.mark.parametrize("inputs", ["中国", b"x", {"text": "a"}, TextInput(text="a")])
def test_one_input_is_no_list(inputs: Any) -> None:
    with pytest.raises(ConfigError, match="expected a list of inputs"):
        as_inputs(inputs)
    with pytest.raises(ConfigError, match="expected a list of inputs"):
        as_list(inputs)


def test_fields_are_taken_as_they_are_or_as_a_mapping() -> None:
    asked = ChoiceInput(text="a", choices=("b", "c"))
    assert as_schema(asked, ChoiceInput, 0) is asked
    assert as_schema({"text": "a", "choices": ["b", "c"]}, ChoiceInput, 0) == asked
    assert as_inputs([{"text": "a"}]) == [TextInput(text="a")]
    with pytest.raises(ConfigError, match=r"input 3 = 'a': expected ChoiceInput or its fields"):
        as_schema("a", ChoiceInput, 3)
    with pytest.raises(ConfigError, match="input 3: missing key 'choices'"):
        as_schema({"text": "a"}, ChoiceInput, 3)
