"""N-grams of texts are those that the original encoders found, with the same matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import BertTokenizer

from pyfsb.models.architectures.zen1 import Zen1Config, Zen1Model
from pyfsb.models.architectures.zen2 import Zen2Config, Zen2Model
from pyfsb.models.architectures.zen_model import ZenModel
from pyfsb.tokenizers.ngram_lexicon import NgramLexicon, NgramLimit, NgramMatches
from tests.helpers.reference import ReferenceCase, reference_cases

TINY = {
    "vocab_size": 9, "hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1,
    "num_hidden_word_layers": 1, "intermediate_size": 8, "word_size": 100,
}  # fmt: skip


class Encoder:
    """What the original does to a text, with our parts."""

    def __init__(self, case: ReferenceCase, kind: str, model: ZenModel) -> None:
        self.options: dict[str, Any] = case.config["options"]
        self.size: int = self.options["max_seq_length"]
        self.model = model
        self.tokenizer = BertTokenizer.from_pretrained(
            case.folder, do_lower_case=self.options["do_lower_case"]
        )
        self.lexicon = NgramLexicon.read(
            case.folder,
            kind=kind,
            encode=lambda texts: self.tokenizer(texts, add_special_tokens=False)["input_ids"],
            unknown_id=self.tokenizer.unk_token_id,
        )
        self.limit = NgramLimit(max_tokens=self.size, max_ngrams=self.options["max_ngram_in_seq"])

    def encode(self, text: str, other: str | None) -> tuple[list[int], list[int]]:
        """Frame as BERT does; of equally long texts the second one is cut, unlike `tokenizers`."""
        first, second = (
            self.tokenizer(part or "", add_special_tokens=False)["input_ids"]
            for part in (text, other)
        )
        room = self.size - (3 if other else 2)
        while len(first) + len(second) > room:
            (first if len(first) > len(second) else second).pop()
        cls, sep = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        ids = [cls, *first, sep, *([*second, sep] if second else [])]
        return ids, [0] * (len(first) + 2) + [1] * (len(ids) - len(first) - 2)

    def texts(self, ids: list[int], matches: NgramMatches) -> list[str]:
        pieces = self.tokenizer.convert_ids_to_tokens(ids)
        return [
            "".join(pieces[start : start + length])
            for start, length in zip(matches.starts_G, matches.lengths_G, strict=True)
        ]

    def matrix(self, matches: NgramMatches, num_tokens: int) -> torch.Tensor:
        arguments = {name: torch.from_numpy(a) for name, a in matches.arguments.items()}
        padded = self.model.pad_ngrams(lengths=torch.tensor([num_tokens]), **arguments)
        assert padded["input_ngram_ids"][0, : matches.ids_G.size].tolist() == list(matches.ids_G)
        return padded["ngram_position_matrix"][0, :, : max(1, matches.ids_G.size)]


def check_matrix(found: torch.Tensor, cells: list[tuple[int, int, float]]) -> float:
    wanted = torch.zeros_like(found)
    for row, column, value in cells:
        wanted[row, column] = value
    difference = float((found - wanted).abs().max())
    assert difference <= 1e-6
    return difference


def pad(values: Any, size: int) -> list[int]:
    return [*map(int, values), *[0] * (size - len(values))]


@reference_cases("ngram_zen1")
def test_zen1_finds_what_the_original_found(case: ReferenceCase) -> None:
    encoder = Encoder(case, "zen1", Zen1Model(Zen1Config(**TINY)))
    assert encoder.lexicon.size == case.config["lexicon_size"]
    seen = set()
    for row in case.lines():
        ids, types = encoder.encode(row["text"], row["text_b"])
        matches = encoder.lexicon.match(ids, limit=encoder.limit)
        width, count = encoder.options["max_ngram_in_seq"], row["ngram_count"]
        found = {
            "tokens": encoder.tokenizer.tokenize(row["text"]),
            "input_ids": pad(ids, encoder.size),
            "segment_ids": pad(types, encoder.size),
            "input_mask": pad(np.ones_like(ids), encoder.size),
            "ngram_count": matches.ids_G.size,
            "ngram_ids": pad(matches.ids_G, width),
            "ngram_lengths": pad(matches.lengths_G, width),
            "ngram_seg_ids": pad(np.array(types)[matches.starts_G], width),
            "ngrams": encoder.texts(ids, matches),
        }
        seen |= {*found, "text", "text_b", "matrix"}
        assert {key: row[key] for key in found} == found
        assert count == len(row["ngrams"])
        check_matrix(encoder.matrix(matches, len(ids)), row["matrix"])
        assert set(row) == seen, "a field that this test does not compare"


@reference_cases("ngram_zen2")
def test_zen2_finds_what_the_original_found(case: ReferenceCase) -> None:
    encoder = Encoder(case, "zen2", Zen2Model(Zen2Config(**TINY)))
    legacy = Zen2Model(Zen2Config(**TINY, legacy_integer_weights=True))
    for row in case.lines():
        ids, _ = encoder.encode(row["text"], None)
        matches = encoder.lexicon.match(ids, limit=encoder.limit)
        found = {
            "tokens": encoder.tokenizer.convert_ids_to_tokens(ids),
            "input_ids": ids,
            "ngram_count": matches.ids_G.size,
            "ngram_ids": matches.ids_G.tolist(),
            "ngram_positions": matches.starts_G.tolist(),
            "ngram_lengths": matches.lengths_G.tolist(),
            "ngram_seg_ids": [int(start >= len(ids)) for start in matches.starts_G],
            "ngram_freqs": matches.frequencies_G.tolist(),
            "ngrams": encoder.texts(ids, matches),
        }
        assert {key: row[key] for key in found} == found
        assert set(row) == {*found, "text", "matrix", "sequence_task"}
        check_matrix(encoder.matrix(matches, len(ids)), row["matrix"])
        task = row["sequence_task"]
        ids, types = encoder.encode(row["text"], task["text_b"])
        assert task["token_type_ids"] == pad(types, encoder.size)
        encoder.model, model = legacy, encoder.model
        matches = encoder.lexicon.match(ids, limit=encoder.limit)
        check_matrix(encoder.matrix(matches, len(ids)), task["matrix_integer_dtype"])
        encoder.model = model
        assert set(task) == {"text_b", "token_type_ids", "matrix_integer_dtype"}
