from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfsb.errors import DataError
from pyfsb.objectives.row_objective import SampleKey, Tokenized
from pyfsb.objectives.sft import ChatSample, ChatTurn, EncodedChat, Sft

BOS, EOS = 1, 2


def tokenize(text: str, template: str = "{text}", /) -> Tokenized:
    """A token for each character."""
    whole = template.replace("{text}", text)
    ids = np.array([ord(letter) for letter in whole], dtype=np.int32)
    return Tokenized(ids_T=ids, offsets_T2=np.empty((0, 2), dtype=np.int32))


def spell(ids: np.ndarray) -> str:
    return "".join({BOS: "<", EOS: ">"}.get(own, chr(own)) for own in ids.tolist())


def chat(*turns: tuple[str, str]) -> ChatSample:
    return ChatSample(turns=tuple(ChatTurn(question=a, answer=b) for a, b in turns))


def encode(*turns: tuple[str, str], max_tokens: int = 200, bos: int | None = BOS) -> EncodedChat:
    return Sft(eos=EOS, bos=bos, max_tokens=max_tokens).encode(chat(*turns), tokenize)


def collate(*rows: EncodedChat) -> dict[str, np.ndarray]:
    objective = Sft(eos=EOS, bos=BOS, max_tokens=200)
    keys = [SampleKey(seed=0, sample_id=number, data_pass=0) for number in range(len(rows))]
    batch = objective.collate(rows, keys)
    assert batch.num_tokens == sum(map(objective.count_tokens, rows))
    assert batch.num_targets == batch.arrays["target_ids"].size
    assert all(values.dtype == np.int64 for values in batch.arrays.values())
    return dict(batch.arrays)


def test_turns_are_written_one_behind_the_other() -> None:
    row = encode(("你好", "好的"), ("几岁", "九"))
    assert spell(row.ids_T) == "<<human>:你好\n<bot>:好的><human>:几岁\n<bot>:九>"
    assert spell(row.ids_T[row.is_answer_T]) == "好的>九>"
    assert row.ids_T.dtype == np.int32
    assert not row.is_truncated


def test_without_a_begin_token_the_question_is_first() -> None:
    row = encode(("a", "b"), bos=None)
    assert spell(row.ids_T) == "<human>:a\n<bot>:b>"


def test_lines_indentation_and_braces_stay() -> None:
    row = encode(("  {question}\n\n{text}", "  if {}:\n\n    pass"))
    expected = "<<human>:  {question}\n\n{text}\n<bot>:  if {}:\n\n    pass>"
    assert spell(row.ids_T) == expected


def test_only_answers_and_their_ends_are_asked_for_at_the_token_before() -> None:
    rows = encode(("你好", "好的"), ("几岁", "九")), encode(("a", "b"), bos=None)
    arrays = collate(*rows)
    ids, places = arrays["input_ids"], arrays["target_positions"]
    assert arrays["lengths"].tolist() == [row.ids_T.size for row in rows]
    assert spell(ids) == "".join(spell(row.ids_T) for row in rows)
    assert spell(arrays["target_ids"]) == "好的>九>b>"
    assert spell(ids[places]) == ":好的:九:b"
    assert np.array_equal(ids[places + 1], arrays["target_ids"])


TEXTS = st.text("abc", min_size=1, max_size=12)


@settings(max_examples=80)
@given(
    st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5), st.integers(0, 160), st.booleans()
)
def test_what_fits_is_whole_turns(turns: list[tuple[str, str]], room: int, has_bos: bool) -> None:
    begin = "<" if has_bos else ""
    first = len(f"{begin}<human>:{turns[0][0]}\n<bot>:")
    row = encode(*turns, max_tokens=first + 1 + room, bos=BOS if has_bos else None)
    whole = [f"<human>:{asked}\n<bot>:{answer}>" for asked, answer in turns]
    texts = [begin + "".join(whole[:number]) for number in range(1, len(turns) + 1)]
    fitting = [text for text in texts if len(text) <= first + 1 + room]
    assert row.ids_T.size <= first + 1 + room
    assert row.is_truncated == (len(fitting) < len(turns))
    assert spell(row.ids_T) == (fitting[-1] if fitting else texts[0][: first + 1 + room])
    assert spell(row.ids_T).count(">") - spell(row.ids_T).count("human>") - spell(row.ids_T).count(
        "bot>"
    ) == len(fitting)  # an answer that was cut has no end
    assert (
        row.is_answer_T.sum() == sum(len(answer) + 1 for _, answer in turns[: len(fitting)])
        or not fitting
    )
    assert not row.is_answer_T[:first].any() and row.is_answer_T[first]


def test_an_answer_that_is_cut_is_asked_for_without_an_end() -> None:
    row = encode(("q", "abcdef"), ("r", "s"), max_tokens=len("<<human>:q\n<bot>:") + 3)
    assert spell(row.ids_T) == "<<human>:q\n<bot>:abc"
    assert spell(row.ids_T[row.is_answer_T]) == "abc"
    assert row.is_truncated
    assert spell(collate(row)["target_ids"]) == "abc"


@pytest.mark.parametrize("bos", [BOS, None])
def test_a_first_question_that_leaves_no_room_is_named(bos: int | None) -> None:
    asked = len("<human>:12345\n<bot>:")
    begins = 0 if bos is None else 1
    fits = encode(("12345", "6"), max_tokens=begins + asked + 1, bos=bos)
    assert spell(fits.ids_T[fits.is_answer_T]) == "6"
    text = rf"the first question has {asked} tokens; .* at most {begins + asked} fit: .*data.max_tokens"
    with pytest.raises(DataError, match=text):
        encode(("12345", "6"), max_tokens=begins + asked, bos=bos)


def test_turns_stay_until_the_last_token_does_not_fit() -> None:
    turns = ("甲", "乙丙"), ("丁", "戊己")
    full = encode(*turns)
    exact = encode(*turns, max_tokens=full.ids_T.size)
    assert spell(exact.ids_T) == spell(full.ids_T) and not exact.is_truncated
    cut = encode(*turns, max_tokens=full.ids_T.size - 1)
    assert spell(cut.ids_T) == "<<human>:甲\n<bot>:乙丙>" and cut.is_truncated


def test_a_long_later_question_ends_the_dialogue() -> None:
    row = encode(("q", "a"), ("x" * 500, "b"), ("r", "c"))
    assert spell(row.ids_T) == "<<human>:q\n<bot>:a>"
    assert row.is_truncated


def test_a_dialogue_without_turns_is_refused() -> None:
    with pytest.raises(DataError, match="a dialogue without turns"):
        encode()


def test_a_row_of_a_batch_does_not_depend_on_the_others() -> None:
    rows = [encode(("q", "abc"), ("r", "s")), encode(("abcdef", "x")), encode(("z", "y" * 9))]
    together = collate(*rows)
    starts = np.cumsum(together["lengths"]) - together["lengths"]
    for start, length, row in zip(starts, together["lengths"], rows, strict=True):
        alone = collate(row)
        own = (together["target_positions"] >= start) & (
            together["target_positions"] < start + length
        )
        assert np.array_equal(together["target_positions"][own] - start, alone["target_positions"])
        assert np.array_equal(together["target_ids"][own], alone["target_ids"])


def test_the_first_token_of_a_row_is_never_asked_for() -> None:
    answers = np.ones(2, dtype=np.bool_)
    rows = [
        EncodedChat(ids_T=np.array(ids, dtype=np.int32), is_answer_T=answers, is_truncated=False)
        for ids in ([5, 6], [7, 8])
    ]
    arrays = collate(*rows)
    assert arrays["target_ids"].tolist() == [6, 8]
    assert arrays["target_positions"].tolist() == [0, 2]


def test_a_model_with_a_prompt_of_its_own_is_taught_with_it() -> None:
    objective = Sft(eos=EOS, bos=BOS, max_tokens=200, turn="Q:{text} A:")
    row = objective.encode(chat(("why?", "so")), tokenize)
    assert spell(row.ids_T) == "<Q:why? A:so>"
    assert spell(row.ids_T[row.is_answer_T]) == "so>"
