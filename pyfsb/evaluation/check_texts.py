# SPDX-License-Identifier: Apache-2.0
"""A small corpus that the model check trains tiny models on; written for it, true or not.

Sentences of a few patterns, so that twenty steps are enough to learn something. Data only.
"""

from __future__ import annotations

from typing import Final

_WHO: Final = ("老师", "医生", "工程师", "邻居", "孩子们", "研究人员", "司机", "店主")
_WHEN: Final = ("今天早上", "昨天晚上", "上个星期", "每年春天", "周末", "下雨的时候")
_WHERE: Final = ("在北京", "在上海", "在学校里", "在图书馆", "在火车站", "在长江边")
_WHAT: Final = (
    "读了一本新书", "看见了一只小鸟", "讨论了天气变化", "修好了一辆自行车", "学习人工智能",
    "买了三斤苹果", "写了一封长信", "听说了一个好消息",
)  # fmt: skip
_AFTER: Final = (
    "大家都很高兴。", "然后就回家了。", "这件事一言难尽。", "结果出人意料！", "你觉得怎么样？",
)  # fmt: skip
NUM_DOCUMENTS: Final = 240


def sample_texts() -> list[str]:
    """Return the documents: two to four sentences each, always the same."""
    texts = []
    for number in range(NUM_DOCUMENTS):
        sentences = []
        for place in range(2 + number % 3):
            key = number * 7 + place * 3
            who, when = _WHO[key % len(_WHO)], _WHEN[(key // 2) % len(_WHEN)]
            where, what = _WHERE[(key // 3) % len(_WHERE)], _WHAT[(key // 5) % len(_WHAT)]
            after = _AFTER[(number + place) % len(_AFTER)]
            sentences.append(f"{when}，{who}{where}{what}，{after}")
        texts.append("".join(sentences))
    return texts
