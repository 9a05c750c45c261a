# SPDX-License-Identifier: Apache-2.0
"""TNEWS: the section of a news headline, 15 classes.

Example: {"label": "103", "sentence": "哈登：和保罗就像一见钟情"}

Trained on the title alone, without `keywords`: with them scores are 9 to 15 points higher and not
comparable. Codes skip 105 and 111; they are compared as strings.
"""

from __future__ import annotations

from pyfsb.config import Family, TaskSpec
from pyfsb.evaluation.protocol import Submission, Task

LABELS = {
    "100": "故事",
    "101": "文化",
    "102": "娱乐",
    "103": "体育",
    "104": "财经",
    "106": "房产",
    "107": "汽车",
    "108": "教育",
    "109": "科技",
    "110": "军事",
    "112": "旅游",
    "113": "国际",
    "114": "股票",
    "115": "农业",
    "116": "电竞",
}
"""Codes and Chinese names. Source: label_index2en2zh.json of FewCLUE."""

TASK = Task(
    spec=TaskSpec(
        name="tnews",
        family=Family.CLASSIFY,
        text="sentence",
        label="label",
        labels=tuple(LABELS),
        template="template",
    ),
    title="今日头条新闻标题分类",
    version="1",
    train="clue/tnews_resplit/labelled_8000.json",
    test="fewclue/tnews/test_public.json",
    source="tnews_resplit (8,000 labelled headlines) and CLUEbenchmark/FewCLUE",
    licence="none stated",
    label_titles=LABELS,
    submission=Submission(
        input="fewclue/tnews/test.json",
        file_name="tnewsf_predict.json",
        source="CLUEbenchmark/FewCLUE submit_examples",
    ),
)
