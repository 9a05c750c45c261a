# SPDX-License-Identifier: Apache-2.0
"""The special tokens of a vocabulary, found by the names that the families give them.

Made by training from a tokenizer's pieces and handed to objectives. Never reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from pyfsb.errors import ConfigError
from pyfsb.objectives.protocol import Ints

_TEXT_BORDER: Final = "<|endoftext|>"
NAMES: Final[dict[str, tuple[str, ...]]] = {
    "pad": ("[PAD]", "<pad>", _TEXT_BORDER),
    "cls": ("[CLS]", "<s>", "[BOS]", "<bos>", _TEXT_BORDER),
    "sep": ("[SEP]", "</s>", "[EOS]", "<eos>", _TEXT_BORDER),
    "mask": ("[MASK]", "<mask>", "<mask_1>"),
    "bos": ("[BOS]", "<bos>", "<s>", "[CLS]", _TEXT_BORDER),
    "eos": ("[EOS]", "<eos>", "</s>", "[SEP]", _TEXT_BORDER),
}
"""What each role is called, best first: BERT; T5, BART and Pegasus; MegatronT5; GPT-2."""
_SENTINEL: Final = re.compile(r"▁?[<\[]extra_id_\d+[>\]]")
_SPECIAL: Final = re.compile(r"▁?(\[.+\]|<.+>)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialIds:
    """The ids of a vocabulary that objectives must know; None: it has no such token."""

    pad: int | None
    """Fills rows, and begins the decoders of T5 and Pegasus."""
    cls: int | None
    """Stands before an encoder's document."""
    sep: int | None
    """Stands behind it, and between its parts."""
    mask: int | None
    """Stands for what is hidden; in Pegasus for a sentence."""
    bos: int | None
    """Begins a text that is written."""
    eos: int | None
    """Ends it."""
    sentinels: Ints
    """Ids of the sentinels in the order in which T5 takes them: from the top of the vocabulary
    down."""
    ordinary: Ints
    """Ids that a random replacement may take: no special, no unused one, no byte."""

    @classmethod
    def of(cls, pieces: Sequence[str]) -> Self:
        """Find them among a vocabulary's pieces, ids in order.

        Source: sentinels count as in T5 (Raffel et al. 2020) and in the published training of
        Randeng-T5, whose first sentinel is the last id, whatever number is in its name.
        """
        special = {p: number for number, p in enumerate(pieces) if _SPECIAL.fullmatch(p)}
        is_ordinary = np.ones(len(pieces), dtype=np.bool_)
        is_ordinary[list(special.values())] = False
        sentinels = [number for piece, number in special.items() if _SENTINEL.fullmatch(piece)]
        return cls(
            **{role: _first(names, special) for role, names in NAMES.items()},
            sentinels=np.array(sorted(sentinels, reverse=True), dtype=np.int64),
            ordinary=np.flatnonzero(is_ordinary),
        )

    def need(self, role: str, objective: str) -> int:
        """Return the id of a role that an objective cannot do without.

        Args:
            role: pad, cls, sep, mask, bos or eos.
            objective: Its name, for the message.

        Raises:
            ConfigError: The vocabulary has no such token.
        """
        found: int | None = getattr(self, role)
        if found is None:
            names = " or ".join(dict.fromkeys(NAMES[role]))
            raise ConfigError(
                f"objective.name = {objective} needs a token {names}; the vocabulary has none: "
                "take a tokenizer that has it"
            )
        return found


def _first(names: Sequence[str], special: dict[str, int]) -> int | None:
    return next((special[name] for name in names if name in special), None)
