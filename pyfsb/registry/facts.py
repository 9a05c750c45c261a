# SPDX-License-Identifier: Apache-2.0
"""Short forms for the data-only files: claims, published scores, and configs that many share.

Used by the files of the series and nowhere else; holds no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pyfsb.registry.entry import Claim, ConfigValues, Score

CARD: Final = "model card"
"""The page that the entry's `card` names, in its last version there."""
FIRST_CARD: Final = "first version of the model card"
"""The same page before September 2022."""
HUB_CARD: Final = "model card on the hub"
"""README.md of the entry's repository on the hub, which is sometimes the newer one."""
HUB_FILES: Final = "files on the hub"
"""Names and sizes of the files in the entry's repository on the hub."""
README: Final = "early README"
PAPER: Final = "arXiv:2209.02970"
DOCUMENTS: Final = "IDEA-CCNL/Fengshenbang-doc: source/docs"
"""Folder of the model cards in the family's documentation, one folder a series in it."""
EXAMPLES: Final = "IDEA-CCNL/Fengshenbang-LM: fengshen/examples"
"""Folder of the family's examples, whose READMEs describe models too."""
UNSAID: Final = "unsaid"
"""Split of a score whose source does not say which rows it was measured on."""
WUDAO_180: Final = ("corpus", "WuDao, 180 GB", CARD)
WUDAO_300: Final = ("corpus", "WuDao, 300 GB", CARD)

BERT: Final[ConfigValues] = {
    "vocab_size": 21128,
    "type_vocab_size": 2,
    "max_position_embeddings": 512,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
}
"""What the family's BERTs have in common: the vocabulary of the Chinese BERT."""
BASE: Final[ConfigValues] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
"""Sizes of BERT-base."""
LARGE: Final[ConfigValues] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
"""Sizes of BERT-large."""
BASE_SIZE_NOTE: Final = (
    "Named after English BERT-base's 110 M; the same layers with the 21,128 pieces of the Chinese "
    "vocabulary have about 102 M."
)
LARGE_SIZE_NOTE: Final = (
    "Named after English BERT-large's 330 M and some; the same layers with the 21,128 pieces of "
    "the Chinese vocabulary have about 325 M."
)


def claims(*facts: tuple[str, str, str]) -> tuple[Claim, ...]:
    """Return claims from (subject, statement, source)."""
    return tuple(
        Claim(subject=subject, statement=statement, source=source)
        for subject, statement, source in facts
    )


def scores(
    values: Mapping[str, float], source: str, *, metric: str = "accuracy", split: str = "dev"
) -> tuple[Score, ...]:
    """Return published scores from tasks and figures."""
    return tuple(
        Score(task=task, metric=metric, value=value, split=split, source=source)
        for task, value in values.items()
    )
