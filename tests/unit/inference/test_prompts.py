"""Templates around a text: filled, fitted to the room, and the end of an answer."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pyfsb.errors import ConfigError
from pyfsb.inference.prompts import Prompt

DENOISE = Prompt(template="“{text}”改写后是“", end="”")


def code_points(text: str, template: str) -> list[int]:
    return [ord(char) for char in template.replace("{text}", text)]


def test_a_prompt_comes_from_the_config_unless_given() -> None:
    config = SimpleNamespace(prompt_template="<human>:{text}\n<bot>:", prompt_end="<human>:")
    assert Prompt.of(config) == Prompt(template="<human>:{text}\n<bot>:", end="<human>:")
    assert Prompt.of(config, template="{text}", end="").is_plain
    assert Prompt.of(SimpleNamespace()) == Prompt(template="{text}", end="")
    assert Prompt.of(config).fill("你好{}") == "<human>:你好{}\n<bot>:"


@pytest.mark.parametrize("template", ["", "改写", "{text}和{text}"])
def test_a_template_has_one_place(template: str) -> None:
    with pytest.raises(ConfigError, match=r"expected \{text\} once"):
        Prompt(template=template)


@pytest.mark.parametrize(
    ("room", "keeps_start", "read", "is_truncated"),
    [
        (13, True, "“春夏秋冬”改写后是“", False),
        (11, True, "“春夏秋冬”改写后是“", False),
        (9, True, "“春夏”改写后是“", True),
        (9, False, "“秋冬”改写后是“", True),
        (7, True, "“”改写后是“", True),
    ],
)
def test_less_of_the_text_is_read_where_it_does_not_fit(
    room: int, keeps_start: bool, read: str, is_truncated: bool
) -> None:
    ids, is_cut = DENOISE.fit("春夏秋冬", code_points, room, keeps_start=keeps_start)
    assert "".join(map(chr, ids)) == read
    assert is_cut == is_truncated


def test_a_template_longer_than_the_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="7 tokens, expected at most 6"):
        DENOISE.fit("春", code_points, 6, keeps_start=True)


@pytest.mark.parametrize(
    ("answer", "end", "kept"),
    [
        ("春天来了”改写", "”", "春天来了"),
        ("他说“好”了”。", "”", "他说“好”了"),
        ("他说“好”了", "”", "他说“好”了"),
        ("“一”“二””三”", "”", "“一”“二”"),
        ("好的\n<human>:再见", "\n<human>:", "好的"),
        ("好的”", "", "好的”"),
    ],
)
def test_an_answer_ends_where_its_own_quotes_are_closed(answer: str, end: str, kept: str) -> None:
    prompt = Prompt(end=end)
    assert prompt.trim(answer) == kept
    assert (prompt.find_end(answer) is None) == (answer == kept)
