# SPDX-License-Identifier: Apache-2.0
"""OCNLI: does the first sentence entail the second, 3 classes.

Example: {"sentence1": "身上裹一件工厂发的棉大衣,手插在袖筒里", "sentence2": "身上至少一件衣服",
"label": "entailment", "id": 0}

Rows on which the annotators did not agree carry the label `-` and are excluded.
"""

from __future__ import annotations

from pyfsb.config import Family, TaskSpec
from pyfsb.evaluation.protocol import Submission, Task

TASK = Task(
    spec=TaskSpec(
        name="ocnli",
        family=Family.PAIR,
        text="sentence1",
        text_pair="sentence2",
        label="label",
        labels=("entailment", "neutral", "contradiction"),
    ),
    title="原生中文自然语言推理",
    version="1",
    train="clue/ocnli/train.10k.json",
    test="clue/ocnli/dev.json",
    source="CLUEbenchmark/OCNLI",
    licence="CC BY-NC 2.0",
    excluded=frozenset({"-"}),
    submission=Submission(
        input="clue/ocnli/test.json",
        file_name="ocnli_50k_predict.json",
        source="CLUE 1.1 submission guide",
    ),
)
