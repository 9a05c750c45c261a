# SPDX-License-Identifier: Apache-2.0
"""The usage part of a model card: for each family a few lines that run as they stand.

Called by `cards`. A test runs every one of them on a tiny exported model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pyfsb.config import Family


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """How one family is asked, and what the hub calls it."""

    pipeline_tag: str
    """The hub's name of the task; source: its list of pipeline tags."""
    inputs: str
    """Python text of what `predict` gets; MASK stands for the tokenizer's mask."""
    result: str
    """Python text of what is printed of the first answer."""
    imports: str = ""
    """A further import that `inputs` needs."""


_TEXT_INPUT: Final = "from pyfsb.inference.protocol import TextInput"
USAGES: Final[dict[Family, Usage]] = {
    Family.CLASSIFY: Usage(
        pipeline_tag="text-classification",
        inputs='["中国女排夺得世界杯冠军"]',
        result="answer.label, answer.score",
    ),
    Family.PAIR: Usage(
        pipeline_tag="text-classification",
        inputs='[("今天天气很好", "今天的天气不错")]',
        result="answer.label, answer.score",
    ),
    Family.TAG: Usage(
        pipeline_tag="token-classification",
        inputs='["他在北京大学读书"]',
        result="answer.entities",
    ),
    Family.FILL_MASK: Usage(
        pipeline_tag="fill-mask",
        inputs='["今天天MASK很好"]',
        result="answer.text",
    ),
    Family.GENERATE: Usage(
        pipeline_tag="text-generation",
        inputs='["北京是中国的"]',
        result="answer.text",
    ),
    Family.REWRITE: Usage(
        pipeline_tag="text2text-generation",
        inputs='["今天天气很好，我们去北京大学。"]',
        result="answer.text",
    ),
    Family.CHOOSE: Usage(
        pipeline_tag="zero-shot-classification",
        inputs='[{"text": "中国女排夺得世界杯冠军", "question": "这是什么新闻？", "options": ["体育", "财经"]}]',
        result="answer.label, answer.scores",
    ),
    Family.EXTRACT: Usage(
        pipeline_tag="token-classification",
        inputs='[{"text": "他在北京大学读书", "choices": [{"entity_type": "组织机构"}]}]',
        result="answer",
    ),
    Family.ANSWER: Usage(
        pipeline_tag="question-answering",
        inputs='[("他在哪里读书？", "他在北京大学读书。")]',
        result="answer.text, answer.score",
    ),
    Family.EMBED: Usage(
        pipeline_tag="feature-extraction",
        inputs='["今天天气很好"]',
        result="len(answer.vector)",
    ),
    Family.IMAGE_TEXT: Usage(
        pipeline_tag="zero-shot-image-classification",
        inputs="[]",
        result="answer",
    ),
    Family.CLASSIFY_IMAGE: Usage(
        pipeline_tag="image-classification",
        inputs="[]",
        result="answer",
    ),
}
"""Every family of `pyfsb.config.Family`."""


def write_snippet(family: Family, *, mask_token: str = "[MASK]") -> str:  # noqa: S107
    """Return Python lines that load the folder they are run in and ask it once.

    Args:
        family: What the model is asked for.
        mask_token: Of the tokenizer.
    """
    usage = USAGES[family]
    lines = [
        "from pyfsb.config import Family",
        "from pyfsb.inference.loading import load_predictor",
        *([usage.imports] if usage.imports else []),
        "",
        f'model = load_predictor(".", family=Family.{family.name})',
        f"answer = model.predict({usage.inputs.replace('MASK', mask_token)})[0]",
        f"print({usage.result})",
    ]
    return "\n".join(lines)
