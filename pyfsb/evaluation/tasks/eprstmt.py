# SPDX-License-Identifier: Apache-2.0
"""EPRSTMT: sentiment of product reviews, 2 classes.

Example: {"id": 1, "sentence": "在这里买的一套，没用几天都用不了了", "label": "Negative"}
"""

from __future__ import annotations

from pyfsb.config import Family, TaskSpec
from pyfsb.evaluation.protocol import Submission, Task

TASK = Task(
    spec=TaskSpec(
        name="eprstmt",
        family=Family.CLASSIFY,
        text="sentence",
        label="label",
        labels=("Negative", "Positive"),
        template="template",
    ),
    title="电商评论情感分析",
    version="1",
    train="fewclue/eprstmt/train_few_all.json",
    test="fewclue/eprstmt/dev_few_all.json",
    source="CLUEbenchmark/FewCLUE",
    licence="none stated",
    submission=Submission(
        input="fewclue/eprstmt/test.json",
        file_name="eprstmt_predict.json",
        source="CLUEbenchmark/FewCLUE submit_examples",
    ),
)
