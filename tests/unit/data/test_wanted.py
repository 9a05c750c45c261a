from __future__ import annotations

from typing import Any

import pytest

from pyfsb.config import ObjectiveName, RunSpec
from pyfsb.data.wanted import complete_data
from pyfsb.registry import all_entries
from tests.helpers.specs import tiny_spec


def spec_of(model: str, objective: str | None = None, **data: Any) -> RunSpec:
    value = tiny_spec("out")
    value["model"] = {"name": model}
    value["data"] = {"corpus": ["*.txt"], **data}
    value["objective"] = {"name": objective} if objective else {}
    return RunSpec.model_validate(value)


def test_every_entry_gets_what_it_needs() -> None:
    seen = set()
    for entry in all_entries():
        data = complete_data(spec_of(entry.name))
        kind = data.vocabulary.kind
        assert kind is not None
        seen.add((entry.tokenizer, kind.value))
        objective = ObjectiveName(entry.objective)
        assert data.columns == {
            ObjectiveName.GAP_SENTENCES: ("gaps",),
            ObjectiveName.KNOWLEDGE_MASKING: ("knowledge",),
        }.get(objective, ())
        has_sentinels = objective is ObjectiveName.SPAN_CORRUPTION
        assert data.vocabulary.num_sentinels == (100 if has_sentinels else 0)
        assert (data.ngrams is not None) == (entry.tokenizer == "ngram_wordpiece")
    assert {
        ("wordpiece", "wordpiece"), ("byte_bpe", "wordpiece"), ("sentencepiece", "unigram"),
        ("jieba_wordpiece", "jieba_wordpiece"), ("ngram_wordpiece", "wordpiece"),
    } <= seen  # fmt: skip


def test_the_lexicon_follows_the_model() -> None:
    kinds = {
        entry.architecture: complete_data(spec_of(entry.name)).ngrams
        for entry in all_entries()
        if entry.tokenizer == "ngram_wordpiece"
    }
    assert {name: ngrams and ngrams.kind for name, ngrams in kinds.items()} == {
        "zen1": "zen1", "zen2": "zen2",
    }  # fmt: skip
    given = complete_data(spec_of("Erlangshen-MegatronBert-1.3B", ngrams={"size": 7})).ngrams
    assert given
    assert (given.kind, given.size) == ("zen2", 7)


def test_what_is_said_stays() -> None:
    data = complete_data(
        spec_of(
            "Erlangshen-MegatronBert-1.3B", "span_corruption", columns=["knowledge"],
            vocabulary={"kind": "byte_bpe", "num_sentinels": 7},
        )
    )  # fmt: skip
    assert (data.vocabulary.kind, data.vocabulary.num_sentinels) == ("byte_bpe", 7)
    assert data.columns == ("knowledge",)


def test_a_given_vocabulary_is_not_trained() -> None:
    t5 = next(e.name for e in all_entries() if e.objective is ObjectiveName.SPAN_CORRUPTION)
    data = complete_data(spec_of(t5, tokenizer="folder"))
    assert data.vocabulary.kind is None
    assert data.vocabulary.num_sentinels == 0
    assert complete_data(spec_of(t5, vocabulary={"file": "v"})).vocabulary.kind == "wordpiece"


@pytest.mark.parametrize("name", ["gap_sentences", "knowledge_masking"])
def test_the_same_data_for_every_run_with_the_same_words(name: str) -> None:
    spec = spec_of("Erlangshen-MegatronBert-1.3B", name)
    assert complete_data(spec) == complete_data(spec.model_copy(update={"name": "other"}))
