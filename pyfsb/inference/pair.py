# SPDX-License-Identifier: Apache-2.0
"""Family pair: two texts, one label, such as inference or paraphrase."""

from __future__ import annotations

from typing import ClassVar

from pyfsb.config import Family
from pyfsb.inference.classify import Classifier


class PairClassifier(Classifier):
    """A sequence classification model that reads two texts, `[CLS] a [SEP] b [SEP]`."""

    family: Family = Family.PAIR
    needs_pair: ClassVar[bool] = True
