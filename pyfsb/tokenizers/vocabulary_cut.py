# SPDX-License-Identifier: Apache-2.0
"""Fewer pieces for a tokenizer: what Randeng-T5 did to mT5, from 250,112 pieces to 32,596.

Kept pieces stay in their order, so that the sentinels of T5 stay last; their old ids say which
rows of the model's matrices stay (`pyfsb.models.vocabulary_surgery`). Never imports transformers.

Source: facts of IDEA-CCNL/Fengshenbang-LM at c8fb7b8 (examples/pretrain_t5: a list of ids to keep).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from pyfsb.errors import ConfigError

_BATCH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularyCut:
    """A smaller tokenizer and where its pieces come from."""

    tokenizer: Tokenizer
    """It gives the same pieces for texts that need none of those left out."""
    kept_ids: tuple[int, ...]
    """Old ids; the place is the new id."""

    @property
    def new_ids(self) -> dict[int, int]:
        """New id of each old one that is kept."""
        return {old: new for new, old in enumerate(self.kept_ids)}


def cut_vocabulary(tokenizer: Tokenizer, keep: Iterable[int]) -> VocabularyCut:
    """Leave out all pieces but some.

    Args:
        tokenizer: Unigram (SentencePiece of T5) or WordPiece.
        keep: Ids to keep; special tokens, sentinels and the unknown piece are kept in any case.

    Raises:
        ConfigError: An id is none of the tokenizer's, or it is a BPE, whose pieces are made of
            other pieces.
    """
    parts: dict[str, Any] = json.loads(tokenizer.to_str())
    kind = parts["model"]["type"]
    if kind not in ("Unigram", "WordPiece"):
        raise ConfigError(f"a {kind} vocabulary cannot be cut; expected Unigram or WordPiece")
    pieces = _pieces(parts["model"])
    kept = _all_kept(tokenizer, parts, pieces, set(keep))
    new_ids = {old: new for new, old in enumerate(kept)}
    if kind == "Unigram":
        scores = parts["model"]["vocab"]
        parts["model"]["vocab"] = [scores[old] for old in kept if old < len(pieces)]
        parts["model"]["unk_id"] = new_ids[parts["model"]["unk_id"]]
    else:
        parts["model"]["vocab"] = {pieces[old]: new_ids[old] for old in kept if old < len(pieces)}
    for added in parts["added_tokens"]:
        added["id"] = new_ids[added["id"]]
    _renumber(parts["post_processor"], new_ids)
    return VocabularyCut(tokenizer=Tokenizer.from_str(json.dumps(parts)), kept_ids=kept)


def count_ids(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[int]:
    """Count the pieces of texts, to choose which to keep."""
    counts: Counter[int] = Counter()
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == _BATCH:
            _count(tokenizer, batch, counts)
            batch = []
    _count(tokenizer, batch, counts)
    return counts


def choose_kept(counts: Mapping[int, int], size: int) -> list[int]:
    """Return the ids of the commonest pieces, at most `size`, in ascending order; ties go low."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return sorted(number for number, _ in ranked[:size])


def _count(tokenizer: Tokenizer, texts: list[str], counts: Counter[int]) -> None:
    for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
        counts.update(encoding.ids)


def _pieces(model: Mapping[str, Any]) -> list[str]:
    if model["type"] == "Unigram":
        return [piece for piece, _ in model["vocab"]]
    ids: dict[str, int] = model["vocab"]
    pieces = sorted(ids, key=ids.__getitem__)
    if [ids[piece] for piece in pieces] != list(range(len(pieces))):
        raise ConfigError("the ids of the vocabulary have gaps; it cannot be cut")
    return pieces


def _all_kept(
    tokenizer: Tokenizer, parts: Mapping[str, Any], pieces: list[str], asked: set[int]
) -> tuple[int, ...]:
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    wrong = sorted(number for number in asked if not 0 <= number < size)
    if wrong:
        raise ConfigError(f"id {wrong[0]} is to be kept; the vocabulary ends at {size - 1}")
    needed = {added["id"] for added in parts["added_tokens"]}
    if parts["model"]["type"] == "Unigram":
        needed.add(parts["model"]["unk_id"])
    else:
        needed.add(pieces.index(parts["model"]["unk_token"]))
    sentinels = {i for i, piece in enumerate(pieces) if piece.lstrip("▁").startswith("<extra_id_")}
    return tuple(sorted(asked | needed | sentinels))


def _renumber(part: Any, new_ids: Mapping[int, int]) -> None:
    """Give the special tokens of a template their new ids, wherever it stands."""
    if not isinstance(part, dict):
        return
    for token in (part.get("special_tokens") or {}).values():
        token["ids"] = [new_ids[number] for number in token["ids"]]
    for name in ("cls", "sep"):
        if isinstance(part.get(name), list):
            part[name][1] = new_ids[part[name][1]]
    for inner in part.get("processors") or ():
        _renumber(inner, new_ids)
