# SPDX-License-Identifier: Apache-2.0
"""TCBert: BERT that judges the topic of a prompted text by [CLS] itself, without a pooler.

Found by `pyfsb.models.architectures`. A row begins with a prompt in which the topic is masked
("这一句描述[MASK][MASK]的内容如下："); the vocabulary's head, trained beside the classes, predicts
its characters. Both heads stand on the same weights, one class each. Never writes a prompt.

Shapes: B rows, T tokens of a row, H hidden, V vocabulary.

Source: fengshen/models/tcbert of Fengshenbang-LM c8fb7b8 (facts and formats); Han et al. 2022
(TCBERT, arXiv:2211.11304).
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel

from pyfsb.config import Family
from pyfsb.models.architectures.protocol import Architecture
from pyfsb.models.key_maps import KeyMap


class TCBertConfig(BertConfig):
    """Shape of a TCBert: that of a BERT."""

    model_type = "tcbert"


class FirstToken(nn.Module):
    """Stands where BERT has its pooler: the state of [CLS] as it is."""

    def forward(self, hidden_BTH: Tensor) -> Tensor:
        """Return one state a row, [B, H]."""
        return hidden_BTH[:, 0]


class TCBertModel(BertModel):
    """BERT without weights behind its last layer."""

    config_class = TCBertConfig

    def __init__(self, config: TCBertConfig, add_pooling_layer: bool = True) -> None:
        """Build it; `add_pooling_layer` gives states of rows beside those of tokens."""
        super().__init__(config, add_pooling_layer=False)
        self.pooler = FirstToken() if add_pooling_layer else None


class TCBertForSequenceClassification(BertForSequenceClassification):
    """TCBert with a class for each text."""

    config_class = TCBertConfig

    def __init__(self, config: TCBertConfig) -> None:
        """Build the model and its head."""
        super().__init__(config)
        self.bert = TCBertModel(config)
        self.post_init()


class TCBertForMaskedLM(BertForMaskedLM):
    """TCBert that predicts the masked topic of its prompt."""

    config_class = TCBertConfig

    def __init__(self, config: TCBertConfig) -> None:
        """Build the model and its head."""
        super().__init__(config)
        self.bert = TCBertModel(config, add_pooling_layer=False)
        self.post_init()

    def lm_logits(self, hidden: Tensor) -> Tensor:
        """Return logits over the vocabulary of states, [..., V]."""
        logits: Tensor = self.cls(hidden)
        return logits


ARCHITECTURE: Final = Architecture(
    config=TCBertConfig,
    base=TCBertModel,
    classes={
        Family.FILL_MASK: TCBertForMaskedLM,
        Family.CLASSIFY: TCBertForSequenceClassification,
        Family.PAIR: TCBertForSequenceClassification,
    },
    key_map=KeyMap(
        rules=((r"^bert\.(bert|cls)\.", r"\1."), (r"^linear_classifier\.", "classifier.")),
        dropped=(r"bert\.bert\.embeddings\.position_ids", r"bert\.bert\.pooler\..*"),
    ),
)
