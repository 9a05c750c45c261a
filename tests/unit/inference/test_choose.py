from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from pyfsb.data.vocabulary import SPECIAL_TOKENS, write_tokenizer
from pyfsb.errors import ConfigError
from pyfsb.inference import choose
from pyfsb.inference.choose import ChoiceInput, Chooser, decode_choice
from pyfsb.inference.deadline import OutOfTimeError, deadline_at
from pyfsb.models.loading import load_tokenizer
from pyfsb.models.row_objectives import build_choice_objective
from tests.helpers.row_texts import PIECES, TINY, tiny_tokenizer

CHOICES = ("体育", "财经新闻", "教育")


@pytest.fixture(scope="module")
def model() -> Chooser:
    torch.manual_seed(1)
    bert = BertForMaskedLM(BertConfig(**TINY))
    return Chooser(bert, tiny_tokenizer(), name="unimc", max_tokens=64)


def question(**changes: Any) -> ChoiceInput:
    return ChoiceInput(
        **{"text": "北京大学很好", "question": "什么新闻？", "choices": CHOICES, **changes}
    )


def test_every_option_has_a_probability(model: Chooser) -> None:
    answer = model.predict([question()])[0]
    assert list(answer.scores) == list(CHOICES)
    assert sum(answer.scores.values()) == pytest.approx(1, abs=1e-5)
    assert answer.choice == CHOICES[answer.index]
    assert answer.score == answer.scores[answer.choice] == max(answer.scores.values())
    assert not answer.is_truncated
    assert model.predict([]) == []


def test_answers_do_not_depend_on_the_batch(
    model: Chooser, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [
        question(), question(choices=("好", "坏")), question(text="好" * 40, text_pair="坏" * 9),
        question(text="李白", question=""),
    ]  # fmt: skip
    together = model.predict(asked)
    monkeypatch.setattr(choose, "BATCH_CELLS", 1)
    for answer, alone in zip(together, model.predict(asked), strict=True):
        assert answer.choice == alone.choice
        assert answer.scores == pytest.approx(alone.scores, abs=2e-6)


def test_the_order_of_options_does_not_matter(model: Chooser) -> None:
    first, second = model.predict([question(), question(choices=CHOICES[::-1])])
    assert first.choice == second.choice
    assert first.scores == pytest.approx(second.scores, abs=2e-6)


def test_119_options_are_answered(model: Chooser) -> None:
    names = [a + b + c for a in "李白杜甫长" for b in "一二三四五六七八" for c in "中国大"][:119]
    answer = model.predict([question(text="好" * 300, choices=tuple(names))])[0]
    assert list(answer.scores) == names
    assert answer.is_truncated


def test_texts_are_normalised_as_the_corpus_was(model: Chooser) -> None:
    wide = question(text="ＡＢＣ\u3000\u200b很好")
    assert model.predict([wide]) == model.predict([question(text="ABC 很好")])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"text": " "}, "input 1: the text is empty"),
        ({"choices": ("好",)}, "input 1: a question needs two options, here is 1"),
        ({"choices": ("好", "坏", "坏")}, "input 1: option 2 .* stands twice"),
        ({"choices": ("好", "坏" * 64)}, "input 1: option 1 .* has 64 tokens and leaves 0 of 64"),
    ],
)
def test_wrong_questions_are_named(changes: dict[str, Any], text: str, model: Chooser) -> None:
    with pytest.raises(ConfigError, match=text):
        model.predict([question(), question(**changes)])


def test_the_deadline_is_kept(model: Chooser) -> None:
    with deadline_at(time.monotonic() - 1), pytest.raises(OutOfTimeError):
        model.predict([question()])


def test_ties_go_to_the_earlier_option() -> None:
    assert decode_choice(("b", "a", "c"), [0.4, 0.4, 0.2], False).choice == "b"


def test_yes_and_no_come_from_the_vocabulary(tmp_path: Path) -> None:
    objective = build_choice_objective(BertConfig(**TINY), tiny_tokenizer(), max_tokens=64)
    assert (objective.yes_id, objective.no_id) == (PIECES.index("是"), PIECES.index("非"))
    for words in (("yes", "no"), ("是", "不")):
        write_tokenizer([*SPECIAL_TOKENS, "好", *words], tmp_path, lowercase=True)
        objective = build_choice_objective(
            BertConfig(**TINY), load_tokenizer(tmp_path), max_tokens=64
        )
        assert (objective.yes_id, objective.no_id) == (6, 7)
        assert objective.ordinary.tolist() == [5, 6, 7]
    write_tokenizer([*SPECIAL_TOKENS, "是", "no"], tmp_path, lowercase=True)
    with pytest.raises(ConfigError, match="no single tokens 是/非 or yes/no or 是/不"):
        build_choice_objective(BertConfig(**TINY), load_tokenizer(tmp_path), max_tokens=64)
