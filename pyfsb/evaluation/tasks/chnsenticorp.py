# SPDX-License-Identifier: Apache-2.0
"""ChnSentiCorp: sentiment of hotel, book and laptop reviews, 2 classes (1 = positive).

Example (TSV): 1<tab>这个宾馆比较陈旧了，特价的房间也很一般。总体来说一般
"""

from __future__ import annotations

from pyfsb.config import Family, TaskSpec
from pyfsb.evaluation.protocol import Task

TASK = Task(
    spec=TaskSpec(
        name="chnsenticorp",
        family=Family.CLASSIFY,
        text="text_a",
        label="label",
        labels=("0", "1"),
    ),
    title="酒店、书籍、电脑评论情感分析",
    version="1",
    train="chnsenticorp/train.tsv",
    test="chnsenticorp/test.tsv",
    source="dbiir/UER-py; corpus by S. Tan",
    licence="repository Apache-2.0; corpus not stated",
)
