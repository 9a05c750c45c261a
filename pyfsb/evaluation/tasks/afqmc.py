# SPDX-License-Identifier: Apache-2.0
"""AFQMC: do two questions of bank customers mean the same, 2 classes; majority about 69 %.

Example: {"sentence1": "双十一花呗提额在哪", "sentence2": "里可以提花呗额度", "label": "0"}

DataCLUE's edition: its train and dev sets hold label noise on purpose, test_public was annotated
again. It is not CLUE's split and has no board of its own.
"""

from __future__ import annotations

from pyfsb.config import Family, TaskSpec
from pyfsb.evaluation.protocol import Task

TASK = Task(
    spec=TaskSpec(
        name="afqmc",
        family=Family.PAIR,
        text="sentence1",
        text_pair="sentence2",
        label="label",
        labels=("0", "1"),
    ),
    title="蚂蚁金融语义相似度",
    version="1",
    train="dataclue/afqmc/train.json",
    test="dataclue/afqmc/test_public.json",
    source="CLUEbenchmark/DataCLUE",
    licence="none stated",
)
