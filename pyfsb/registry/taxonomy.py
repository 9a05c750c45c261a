# SPDX-License-Identifier: Apache-2.0
"""The family's own order of its models: series, demand and task, in both languages.

Source: the Fengshenbang paper (arXiv:2209.02970), section 3 and appendix A.
"""

from __future__ import annotations

from enum import Enum
from typing import Self


class _Bilingual(Enum):
    """An enum whose value is its English name and which knows its Chinese one."""

    chinese: str

    def __new__(cls, english: str, chinese: str) -> Self:
        """Make a member of an English value and a Chinese name."""
        member = object.__new__(cls)
        member._value_ = english
        member.chinese = chinese
        return member


class Series(_Bilingual):
    """A family of models for one kind of use."""

    ERLANGSHEN = ("Erlangshen", "二郎神")
    WENZHONG = ("Wenzhong", "闻仲")
    RANDENG = ("Randeng", "燃灯")
    TAIYI = ("Taiyi", "太乙")
    YUYUAN = ("Yuyuan", "余元")
    ZHOUWENWANG = ("Zhouwenwang", "周文王")
    ZIYA = ("Ziya", "姜子牙")
    OTHER = ("Other", "其他")
    """Of the catalogue: models that others published."""


class Demand(_Bilingual):
    """Whether a series serves general or special needs."""

    GENERAL = ("General", "通用")
    SPECIAL = ("Special", "特定")


class Task(_Bilingual):
    """What a series is for."""

    NLU = ("NLU", "自然语言理解")
    NLG = ("NLG", "自然语言生成")
    NLT = ("NLT", "自然语言转换")
    MULTIMODAL = ("MM", "多模态")
    DOMAIN = ("Domain", "领域")
    EXPLORATION = ("Exploration", "探索")
