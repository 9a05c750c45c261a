"""A tiny vocabulary, its tokenizer and samples for objectives on rows."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from pyfsb.data.vocabulary import SPECIAL_TOKENS, write_tokenizer
from pyfsb.models.loading import load_tokenizer
from pyfsb.models.row_objectives import make_tokenize
from pyfsb.objectives.extraction import ExtractionSample, GoldRelation, GoldSpan
from pyfsb.objectives.multiple_choice import ChoiceSample
from pyfsb.objectives.row_objective import SampleKey, Tokenize

WORDS = "是非好坏人地书作者李白杜甫在长安成都写诗店面很吃中国北京大学体育财经教育新闻什么这那一二三四五六七八九十，。？"
PIECES = [*SPECIAL_TOKENS, *dict.fromkeys(WORDS), "abc", "##d", "1", "##2"]
TINY = {
    "vocab_size": len(PIECES), "hidden_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.2,
    "pad_token_id": 0,
}  # fmt: skip


@cache
def tiny_tokenizer() -> PreTrainedTokenizerBase:
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(PIECES, Path(folder), lowercase=True)
        return load_tokenizer(Path(folder))


def tiny_tokenize() -> Tokenize:
    return make_tokenize(tiny_tokenizer())


def draw_keys(count: int, *, data_pass: int = 0, seed: int = 3) -> list[SampleKey]:
    return [SampleKey(seed=seed, sample_id=n, data_pass=data_pass) for n in range(count)]


def choice_samples() -> list[ChoiceSample]:
    return [
        ChoiceSample(text="这店很好", options=("好", "坏"), question="好吃？", answer=0),
        ChoiceSample(text="李白在长安", text_pair="写诗", options=("书", "人地", "体育"), answer=1),
        ChoiceSample(text="面很坏，很坏", options=("好", "坏"), answer=1),
        ChoiceSample(text="北京大学", options=("教育新闻", "财经", "体育"), answer=0),
    ]


def extraction_samples() -> list[ExtractionSample]:
    text = "李白在长安写诗，杜甫在成都"
    spans = [(0, 2, 0), (8, 10, 0), (3, 5, 1), (11, 13, 1)]
    return [
        ExtractionSample(
            text=text, kinds=("人", "地", "书"), task="抽取任务", subtask="实体识别",
            spans=tuple(GoldSpan(start=s, end=e, kind=k) for s, e, k in spans),
        ),
        ExtractionSample(
            text="北京大学abcd很好", kinds=("教育", "长安"), task="抽取任务", subtask="新闻",
            spans=(GoldSpan(start=0, end=4, kind=0),),
        ),
        ExtractionSample(text="很好很好", kinds=("人",), task="抽取任务", subtask="新闻"),
    ]  # fmt: skip


def relation_samples() -> list[ExtractionSample]:
    return [
        ExtractionSample(
            text="李白写诗，杜甫在成都", kinds=("人", "书", "地"), task="关系",
            spans=(
                GoldSpan(start=0, end=2, kind=0), GoldSpan(start=3, end=4, kind=1),
                GoldSpan(start=5, end=7, kind=0), GoldSpan(start=8, end=10, kind=2),
            ),
            schema=(("人", "作者", "书"), ("人", "在", "地")),
            relations=(
                GoldRelation(subject=0, predicate="作者", object=1),
                GoldRelation(subject=2, predicate="在", object=3),
            ),
        ),
        ExtractionSample(text="很好", kinds=("人",), task="实体"),
    ]  # fmt: skip


def pieces_of(ids: np.ndarray) -> list[str]:
    return [PIECES[number] for number in ids.tolist()]
