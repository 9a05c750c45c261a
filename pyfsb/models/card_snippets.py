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
    inputs: str = ""
    """Python text of what `predict` gets; MASK stands for the tokenizer's mask."""
    result: str = ""
    """Python text of what is printed of the first answer."""
    imports: str = ""
    """A further import that `inputs` needs."""
    lines: tuple[str, ...] = ()
    """The whole snippet, of families that take more than texts."""


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
        imports="from pyfsb.inference.choose import ChoiceInput",
        inputs='[ChoiceInput(text="女排夺冠", question="是什么新闻？", choices=("体育", "财经"))]',
        result="answer.choice, answer.scores",
    ),
    Family.EXTRACT: Usage(
        pipeline_tag="token-classification",
        imports="from pyfsb.inference.extract import ExtractionInput",
        inputs='[ExtractionInput(text="他在北京大学读书", kinds=("组织机构", "人物"))]',
        result="answer.entities",
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
        lines=(
            "import torch",
            "from transformers import AutoModel, AutoTokenizer",
            "",
            "import pyfsb.models.loading  # makes the Auto classes know our own",
            "",
            'model = AutoModel.from_pretrained(".").eval()',
            'tokenizer = AutoTokenizer.from_pretrained(".")',
            'texts = tokenizer(["一只猫", "一只狗"], padding=True, return_tensors="pt")',
            "size = model.config.vision_config.image_size",
            "pixels = torch.zeros(1, 3, size, size)  # AutoImageProcessor makes them of an image",
            "with torch.no_grad():",
            "    answer = model(**texts, pixel_values=pixels)",
            "print(answer.logits_per_image.softmax(-1))",
        ),
    ),
    Family.CLASSIFY_IMAGE: Usage(
        pipeline_tag="image-classification",
        lines=(
            "import torch",
            "from transformers import AutoModelForImageClassification",
            "",
            'model = AutoModelForImageClassification.from_pretrained(".").eval()',
            "size = model.config.image_size",
            "pixels = torch.zeros(1, 3, size, size)  # AutoImageProcessor makes them of an image",
            "with torch.no_grad():",
            "    answer = model(pixel_values=pixels).logits.argmax(-1).item()",
            "print(model.config.id2label[answer])",
        ),
    ),
}
"""Every family of `pyfsb.config.Family`."""


def write_snippet(family: Family, *, mask_token: str) -> str:
    """Return Python lines that load the folder they are run in and ask it once.

    Args:
        family: What the model is asked for.
        mask_token: Of the tokenizer.
    """
    usage = USAGES[family]
    lines = usage.lines or (
        "from pyfsb.config import Family",
        *([usage.imports] if usage.imports else []),
        "from pyfsb.inference.loading import load_predictor",
        "",
        f'model = load_predictor(".", family=Family.{family.name})',
        f"answer = model.predict({usage.inputs.replace('MASK', mask_token)})[0]",
        f"print({usage.result})",
    )
    return "\n".join(lines)
