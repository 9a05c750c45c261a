from __future__ import annotations

import numpy as np
import pytest

from pyfsb.errors import DataError
from pyfsb.objectives.row_objective import SampleKey, Tokenized
from pyfsb.objectives.sft import ChatSample, ChatTurn, Sft

BEGIN, END = 1, 2
ASKED = "<human>:{}\n<bot>:"


def tokenize(text: str) -> Tokenized:
    """A token a character."""
    ids = np.array([ord(character) for character in text], dtype=np.int32)
    return Tokenized(ids_T=ids, offsets_T2=np.zeros((ids.size, 2), dtype=np.int32))


def _ids(text: str) -> list[int]:
    return [ord(character) for character in text]


def _chat(*pairs: tuple[str, str]) -> ChatSample:
    return ChatSample(turns=tuple(ChatTurn(question=q, answer=a) for q, a in pairs))


def _make(max_tokens: int = 200, bos: int | None = BEGIN) -> Sft:
    return Sft(eos=END, bos=bos, max_tokens=max_tokens)


def _targets(
    objective: Sft, *samples: ChatSample
) -> tuple[list[int], list[int], list[int], list[int]]:
    encoded = [objective.encode(sample, tokenize) for sample in samples]
    keys = [SampleKey(seed=0, sample_id=number, data_pass=0) for number in range(len(encoded))]
    batch = objective.collate(encoded, keys)
    assert all(values.dtype == np.int64 for values in batch.arrays.values())
    assert batch.num_targets == batch.arrays["target_ids"].size
    assert batch.num_tokens == sum(objective.count_tokens(own) for own in encoded)
    names = ("input_ids", "lengths", "target_positions", "target_ids")
    return tuple(batch.arrays[name].tolist() for name in names)  # type: ignore[return-value]


def test_only_answers_and_their_ends_are_asked_for() -> None:
    ids, lengths, positions, targets = _targets(
        _make(), _chat((" 你好 ", "好的\n"), ("再见", "走"))
    )
    first, second = ASKED.format("你好"), ASKED.format("再见")
    assert ids == [BEGIN, *_ids(first), *_ids("好的"), END, *_ids(second), *_ids("走"), END]
    assert lengths == [len(ids)]
    assert targets == [*_ids("好的"), END, *_ids("走"), END]
    assert [ids[place + 1] for place in positions] == targets
    assert positions[0] == len(first)  # the colon before the answer


def test_dialogues_stand_end_to_end() -> None:
    chats = [_chat(("甲", "乙")), _chat(("丙", "丁戊"))]
    together = _targets(_make(), *chats)
    alone = [_targets(_make(), chat) for chat in chats]
    assert together[0] == alone[0][0] + alone[1][0]
    assert together[3] == alone[0][3] + alone[1][3]
    assert together[2] == alone[0][2] + [place + len(alone[0][0]) for place in alone[1][2]]


def test_turns_that_do_not_fit_are_left_out_whole() -> None:
    sample = _chat(("甲", "乙丙"), ("丁", "戊己"))
    full = _make().encode(sample, tokenize)
    assert not full.is_truncated
    size = full.ids_T.size
    exact = _make(size).encode(sample, tokenize)
    assert exact.ids_T.tolist() == full.ids_T.tolist()
    cut = _make(size - 1).encode(sample, tokenize)
    assert cut.is_truncated
    assert cut.ids_T.tolist() == [BEGIN, *_ids(ASKED.format("甲")), *_ids("乙丙"), END]


def test_a_first_answer_that_is_too_long_is_cut_without_an_end() -> None:
    asked = 1 + len(ASKED.format("甲"))
    cut = _make(asked + 2).encode(_chat(("甲", "乙丙丁")), tokenize)
    assert cut.is_truncated
    assert cut.ids_T.tolist()[-2:] == _ids("乙丙")
    assert int(cut.is_answer_T.sum()) == 2
    with pytest.raises(DataError, match="raise data.max_tokens"):
        _make(asked).encode(_chat(("甲", "乙丙丁")), tokenize)


def test_without_a_begin_token() -> None:
    ids, _, positions, targets = _targets(_make(bos=None), _chat(("甲", "乙")))
    assert ids[0] == ord("<")
    assert [ids[place + 1] for place in positions] == targets == [ord("乙"), END]


def test_a_dialogue_without_turns_is_refused() -> None:
    with pytest.raises(DataError, match="without turns"):
        _make().encode(ChatSample(turns=()), tokenize)
