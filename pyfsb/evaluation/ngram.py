# SPDX-License-Identifier: Apache-2.0
"""Fit the character n-gram linear model of a task: the reference row of every table.

Runs on the first rank in seconds; `inference.ngram` loads what it writes.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Sequence
from typing import Any, Final

from safetensors.numpy import save
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.svm import LinearSVC

from pyfsb import records, storage
from pyfsb.config import Family
from pyfsb.data.labelled import Example
from pyfsb.data.normalizing import normalise_text
from pyfsb.errors import DataError
from pyfsb.evaluation.protocol import Task
from pyfsb.inference.loading import NGRAM_ARCHITECTURE
from pyfsb.inference.ngram import (
    ARRAYS_NAME,
    NGRAMS_NAME,
    context_features,
    dump_ngram,
    make_vectorizer,
    text_features,
)
from pyfsb.inference.protocol import TextInput
from pyfsb.inference.tag import OUTSIDE, bio_labels
from pyfsb.records import MODEL_FOLDER, CheckpointRecord, Parent
from pyfsb.schema import digest
from pyfsb.storage.workspace import Workspace

_SVM_C: Final = {Family.CLASSIFY: 0.3, Family.PAIR: 0.1, Family.TAG: 0.3}
"""Inverse regularisation. Our choice, set beforehand and the same for all tasks."""
_MAX_CHARACTERS: Final = 100_000
"""Characters of an input that the model reads at most, both texts of a pair together; recorded as
`max_tokens`, a character being its token. Our choice: far above any labelled row, and 2 s of one
core for a tagger."""
_NUM_FEW_TEXTS: Final = 100
"""Below so many texts n-grams that occur once are kept: dropping them would leave next to none."""
_SETTINGS: Final = {"runner": "ngram", "version": 1}


def fit_ngram(
    task: Task,
    examples: Sequence[Example],
    *,
    seed: int,
    run: str,
    workspace: Workspace,
    parents: tuple[Parent, ...],
) -> CheckpointRecord:
    """Fit, write and record the n-gram model of a task.

    Raises:
        DataError: The rows leave nothing to learn: one label (tag: no entity), or empty texts.
        StorageError: The model cannot be written.
    """
    started = time.monotonic()
    is_tagging = task.spec.family is Family.TAG
    vectorizer = make_vectorizer(is_tagging=is_tagging)
    labels = bio_labels(task.spec.labels) if is_tagging else list(task.spec.labels)
    features, targets = (
        _tagging_data(vectorizer, examples, labels)
        if is_tagging
        else (_label_data(vectorizer, examples, labels))
    )
    if len(set(targets)) < 2:
        raise DataError(
            f"{task.name}: all {len(examples)} training rows have the same answer, "
            f"{examples[0].gold!r}; a model needs at least two different ones"
        )
    linear = _fit_linear(features, targets, c=_SVM_C[task.spec.family], seed=seed)
    known = [labels[number] for number in linear.classes_]
    text, arrays = dump_ngram(vectorizer, linear, known, is_tagging=is_tagging)
    folder = workspace.path / MODEL_FOLDER
    storage.write_text(str(folder / NGRAMS_NAME), text)
    storage.write_bytes(str(folder / ARRAYS_NAME), save(arrays))
    record = CheckpointRecord(
        run=run,
        created_at=records.now(),
        seconds=time.monotonic() - started,
        config_hash=digest({**_SETTINGS, "seed": seed, "task": task.spec.to_json()}),
        seeds=(seed,),
        parents=parents,
        files=records.describe_files(workspace.path, folder.iterdir()),
        model="character n-gram linear model",
        architecture=NGRAM_ARCHITECTURE,
        family=task.spec.family.value,
        objective="finetune",
        task=task.name,
        labels=tuple(known),
        num_parameters=sum(array.size for array in arrays.values()),
        step=int(linear.n_iter_),
        num_samples=len(examples),
        num_tokens=sum(len(row.text) + len(row.text_pair or "") for row in examples),
        loss=None,
        max_tokens=_MAX_CHARACTERS,
        vocabulary_digest=digest(sorted(vectorizer.vocabulary_)),
    )
    workspace.push([folder])
    records.write_record(record, workspace.uri)
    return record


def _fit_linear(features: Any, targets: Sequence[int], *, c: float, seed: int) -> Any:
    linear = LinearSVC(C=c, random_state=seed, max_iter=2000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        linear.fit(features, targets)
    return linear


def _label_data(
    vectorizer: CountVectorizer, examples: Sequence[Example], labels: Sequence[str]
) -> tuple[Any, list[int]]:
    """Fit the vectorizer on texts; returns features and label ids, one row an example."""
    inputs = [TextInput(text=row.text, text_pair=row.text_pair) for row in examples]
    texts = [text for item in inputs for text in (item.text, item.text_pair) if text]
    _fit_vocabulary(vectorizer, [normalise_text(text) for text in texts])
    return text_features(vectorizer, inputs), [labels.index(str(row.label)) for row in examples]


def _fit_vocabulary(vectorizer: CountVectorizer, texts: Sequence[str]) -> None:
    """Fit the vectorizer; where no n-gram occurs in two texts, those that occur once are kept."""
    for min_df in (1,) if len(texts) < _NUM_FEW_TEXTS else (vectorizer.min_df, 1):
        with contextlib.suppress(ValueError):  # how scikit-learn says that no n-gram is left
            vectorizer.set_params(min_df=min_df).fit(texts)
            return
    raise DataError(f"nothing but white space in {len(texts)} training texts, such as {texts[0]!r}")


def _tagging_data(
    vectorizer: CountVectorizer, examples: Sequence[Example], labels: Sequence[str]
) -> tuple[Any, list[int]]:
    """Fit the vectorizer on contexts; returns features and BIO ids, one row a character."""
    names = [row for example in examples for row in context_features(example.text)]
    targets = [tag for example in examples for tag in _tags(example, labels)]
    return vectorizer.fit_transform(names), targets


def _tags(example: Example, labels: Sequence[str]) -> list[int]:
    """Return the BIO label id of each character."""
    tags = [OUTSIDE] * len(example.text)
    for entity in example.entities or ():
        for place in range(entity.start, entity.end):
            tags[place] = f"{'B' if place == entity.start else 'I'}-{entity.type}"
    return [labels.index(tag) for tag in tags]
