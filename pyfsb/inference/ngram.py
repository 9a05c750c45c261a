# SPDX-License-Identifier: Apache-2.0
"""Character n-gram linear models: the reference that a transformer has to beat.

Seconds to train, no pretraining, strong on short Chinese texts. The model is arrays and a list of
n-grams (safetensors and JSON), never a pickle. Fitted by `evaluation.ngram`, loaded like any
other checkpoint.

Source: TF-IDF of character 1- to 3-grams with sublinear counts and a linear SVM, the usual strong
baseline; the features of pairs and of tagging are our choice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from pyfsb.config import Family
from pyfsb.data.normalizing import normalise_text
from pyfsb.inference.classify import decode_label
from pyfsb.inference.deadline import check_deadline
from pyfsb.inference.encoding import EncodedRow
from pyfsb.inference.protocol import (
    Classification,
    Predictor,
    Tagging,
    TextInput,
    as_inputs,
)
from pyfsb.inference.tag import decode_entities
from pyfsb.records import CheckpointRecord
from pyfsb.schema import Schema

NGRAMS_NAME: Final = "ngrams.json"
ARRAYS_NAME: Final = "ngrams.safetensors"
_WINDOW: Final = 3
"""Characters on each side that a tag may depend on."""
_BATCH_ROWS: Final = 64
"""Rows of one matrix; enough that batches cost nothing, few enough to keep a deadline."""


def make_vectorizer(*, is_tagging: bool) -> CountVectorizer:
    """Return the vectorizer of one kind of model, not fitted."""
    if is_tagging:
        return CountVectorizer(
            token_pattern=None, tokenizer=str.split, lowercase=False, binary=True, dtype=np.float32
        )
    return TfidfVectorizer(
        analyzer="char", ngram_range=(1, 3), sublinear_tf=True, min_df=2, dtype=np.float32
    )


def text_features(vectorizer: CountVectorizer, inputs: Sequence[TextInput]) -> sparse.csr_matrix:
    """Return the features of texts, or of pairs: both texts, what they share and where they differ.

    Returns:
        Sparse float32 matrix, one row an input.
    """
    first = vectorizer.transform([normalise_text(item.text) for item in inputs])
    if all(item.text_pair is None for item in inputs):
        return first
    second = vectorizer.transform([normalise_text(item.text_pair or "") for item in inputs])
    shared = first.minimum(second)
    overlap = first.multiply(second).sum(axis=1)
    only_first, only_second = first - shared, second - shared
    counts = [shared.sum(axis=1), only_first.sum(axis=1), only_second.sum(axis=1), overlap]
    dense = sparse.csr_matrix(np.hstack(counts, dtype=np.float32))
    return sparse.hstack([shared, only_first, only_second, second, dense], format="csr")


def cut_input(item: TextInput, max_characters: int) -> tuple[TextInput, bool]:
    """Return an input of at most so many characters, and whether it was longer.

    Both texts of a pair count; the longer one is cut first, as `encode_rows` does with tokens.
    """
    first, second = len(item.text), len(item.text_pair or "")
    if first + second <= max_characters:
        return item, False
    shorter = min(first, second, max_characters // 2)
    room = max_characters - shorter
    text = item.text[: shorter if first < second else room]
    if item.text_pair is None:
        return TextInput(text=text), True
    return TextInput(text=text, text_pair=item.text_pair[: max_characters - len(text)]), True


def context_features(text: str) -> list[str]:
    """Return for each character the n-grams around it, as space-separated names."""
    padded = "\x02" * _WINDOW + text.replace(" ", "\u2423") + "\x03" * _WINDOW
    rows = []
    for place in range(_WINDOW, _WINDOW + len(text)):
        names = []
        for size in (1, 2, 3):
            for shift in range(-_WINDOW, _WINDOW - size + 2):
                gram = padded[place + shift : place + shift + size]
                names.append(f"{size}:{shift}:{gram}")
        rows.append(" ".join("".join(name.split()) for name in names))
    return rows


class _Linear:
    """Vectorizer and weights of a fitted model."""

    def __init__(self, folder: Path) -> None:
        stored = json.loads((folder / NGRAMS_NAME).read_text(encoding="utf-8"))
        arrays = load_file(folder / ARRAYS_NAME)
        self.labels: list[str] = stored["labels"]
        self.vectorizer = make_vectorizer(is_tagging=stored["is_tagging"])
        self.vectorizer.vocabulary_ = {gram: place for place, gram in enumerate(stored["ngrams"])}
        self.vectorizer.fixed_vocabulary_ = True
        if "idf" in arrays:
            self.vectorizer.idf_ = arrays["idf"]
        self._coefficients: NDArray[np.float32] = arrays["coefficients"]
        self._intercepts: NDArray[np.float32] = arrays["intercepts"]

    def margins(self, features: sparse.csr_matrix) -> NDArray[np.float32]:
        """Return the margin of each label, shape [rows, labels]."""
        values = np.asarray(features @ self._coefficients.T + self._intercepts, dtype=np.float32)
        return np.hstack([-values, values]) if values.shape[1] == 1 else values


class NgramClassifier:
    """An n-gram model of family classify or pair."""

    input_schema: ClassVar[type[Schema]] = TextInput

    def __init__(self, folder: Path, *, name: str, family: Family, max_characters: int) -> None:
        """Load a fitted model; longer inputs are cut."""
        self.name = name
        self.family = family
        self._max_characters = max_characters
        self._linear = _Linear(folder)

    def predict(self, inputs: Sequence[str | tuple[str, str] | TextInput]) -> list[Classification]:
        """Return the label of each input; its score is a softmax of margins, uncalibrated."""
        checked = as_inputs(inputs, needs_pair=self.family is Family.PAIR)
        results: list[Classification] = []
        for start in range(0, len(checked), _BATCH_ROWS):
            check_deadline()
            results += self._classify(checked[start : start + _BATCH_ROWS])
        return results

    def _classify(self, inputs: Sequence[TextInput]) -> list[Classification]:
        cut = [cut_input(item, self._max_characters) for item in inputs]
        features = text_features(self._linear.vectorizer, [item for item, _ in cut])
        margins = self._linear.margins(features)
        powers = np.exp(margins - margins.max(axis=1, keepdims=True))
        probabilities = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float64)
        return [
            decode_label(row.tolist(), self._linear.labels, is_truncated)
            for row, (_, is_truncated) in zip(probabilities, cut, strict=True)
        ]


class NgramTagger:
    """An n-gram model of family tag: one label a character, from the characters around it."""

    family: Family = Family.TAG
    input_schema: ClassVar[type[Schema]] = TextInput

    def __init__(self, folder: Path, *, name: str, max_characters: int) -> None:
        """Load a fitted model; longer texts are cut."""
        self.name = name
        self._max_characters = max_characters
        self._linear = _Linear(folder)

    def predict(self, inputs: Sequence[str | tuple[str, str] | TextInput]) -> list[Tagging]:
        """Return the entities of each text."""
        return [self._tag(item) for item in as_inputs(inputs)]

    def _tag(self, item: TextInput) -> Tagging:
        check_deadline()
        cut, is_truncated = cut_input(item, self._max_characters)
        text = cut.text
        features = self._linear.vectorizer.transform(context_features(text))
        best = self._linear.margins(features).argmax(axis=1)
        tags = [self._linear.labels[number] for number in best]
        offsets = tuple((place, place + 1) for place in range(len(text)))
        row = EncodedRow(ids=(), types=(), offsets=offsets, is_truncated=is_truncated)
        entities = tuple(decode_entities(text, row, tags))
        return Tagging(entities=entities, is_truncated=is_truncated)


def load_ngram(folder: Path, record: CheckpointRecord) -> Predictor:
    """Load the n-gram model of a checkpoint."""
    name, bound = record.task or record.model, record.max_tokens
    family = Family(record.family)
    if family is Family.TAG:
        return NgramTagger(folder, name=name, max_characters=bound)
    return NgramClassifier(folder, name=name, family=family, max_characters=bound)


def dump_ngram(
    vectorizer: CountVectorizer, linear: Any, labels: Sequence[str], *, is_tagging: bool
) -> tuple[str, dict[str, NDArray[np.float32]]]:
    """Return the JSON text and the arrays of a fitted model (what `_Linear` reads)."""
    grams = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.__getitem__)
    stored = {"is_tagging": is_tagging, "labels": list(labels), "ngrams": grams}
    arrays = {
        "coefficients": np.ascontiguousarray(linear.coef_, dtype=np.float32),
        "intercepts": linear.intercept_.astype(np.float32),
    }
    if not is_tagging:
        arrays["idf"] = vectorizer.idf_.astype(np.float32)
    return json.dumps(stored, ensure_ascii=False), arrays
