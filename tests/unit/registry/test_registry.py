from __future__ import annotations

from collections import Counter

import pytest

from pyfsb.config import Family, ObjectiveName
from pyfsb.errors import ConfigError, UnknownNameError
from pyfsb.registry import ModelEntry, all_entries, find_entry, search_entries
from pyfsb.registry import lookup as lookup_module
from pyfsb.registry.taxonomy import Demand, Series, Task

PAPER = """
Erlangshen-DeBERTa-v2-186M-Chinese-SentencePiece Erlangshen-DeBERTa-v2-320M-Chinese
Erlangshen-DeBERTa-v2-710M-Chinese Erlangshen-DeBERTa-v2-97M-CWS-Chinese
Erlangshen-DeBERTa-v2-97M-Chinese Erlangshen-Longformer-110M Erlangshen-Longformer-330M
Erlangshen-MegatronBert-1.3B Erlangshen-MegatronBert-1.3B-NLI
Erlangshen-MegatronBert-1.3B-Sentiment Erlangshen-MegatronBert-1.3B-Similarity
Erlangshen-MegatronBert-3.9B-Chinese Erlangshen-Roberta-110M-NLI
Erlangshen-Roberta-110M-Sentiment Erlangshen-Roberta-110M-Similarity Erlangshen-Roberta-330M-NLI
Erlangshen-Roberta-330M-Sentiment Erlangshen-Roberta-330M-Similarity
Erlangshen-Ubert-110M-Chinese Erlangshen-Ubert-330M-Chinese Erlangshen-ZEN1-224M-Chinese
Erlangshen-ZEN2-345M-Chinese Erlangshen-ZEN2-668M-Chinese Randeng-BART-139M
Randeng-BART-139M-SUMMARY Randeng-BART-759M-Chinese-BertTokenizer Randeng-MegatronT5-770M
Randeng-Pegasus-238M-Chinese Randeng-Pegasus-238M-Summary-Chinese Randeng-Pegasus-523M-Chinese
Randeng-Pegasus-523M-Summary-Chinese Randeng-T5-77M Randeng-T5-784M
Randeng-Transformer-1.1B-Denoise Taiyi-CLIP-RoBERTa-326M-ViT-H-Chinese
Taiyi-CLIP-Roberta-102M-Chinese Taiyi-CLIP-Roberta-large-326M-Chinese Taiyi-Roberta-124M-D
Taiyi-Roberta-124M-D-v2 Taiyi-vit-87M-D Wenzhong-GPT2-110M Wenzhong-GPT2-3.5B
Wenzhong2.0-GPT2-3.5B-chinese Yuyuan-Bart-139M Yuyuan-Bart-400M Yuyuan-GPT2-3.5B
YuyuanQA-GPT2-3.5B Zhouwenwang-Unified-1.3B Zhouwenwang-Unified-110M
""".split()  # noqa: SIM905
LATER = """
Erlangshen-UniMC-RoBERTa-110M-Chinese Erlangshen-UniMC-RoBERTa-330M-Chinese
Erlangshen-UniMC-MegatronBERT-1.3B-Chinese Ziya-LLaMA-13B-v1
""".split()  # noqa: SIM905
LEGACY = {
    "Erlangshen-MegatronBert-1.3B": ("Erlangshen-1.3B", "二郎神-1.3B"),
    "Randeng-MegatronT5-770M": ("Randeng-7.7B", "燃灯-7.7B"),
    "Wenzhong-GPT2-3.5B": ("Wenzhong-3.5B", "闻仲-3.5B"),
    "Yuyuan-GPT2-3.5B": ("Yuyuan-3.5B", "余元-3.5B"),
    "Zhouwenwang-Unified-1.3B": ("Zhouwenwang-1.3B", "周文王-1.3B"),
    "Zhouwenwang-Unified-110M": ("Zhouwenwang-110M", "周文王-110M"),
}
OWN = ("zen1", "zen2", "rope-longformer", "zhouwenwang", "megatron-t5", "transfo-xl-denoise",
       "ubert", "taiyi-clip")  # fmt: skip


def test_the_49_models_of_the_paper_and_four_later_ones_are_there() -> None:
    assert (len(PAPER), len(LATER)) == (49, 4)
    entries = {entry.name: entry for entry in all_entries()}
    assert list(entries) == sorted((*PAPER, *LATER))
    assert [entries[name].paper_number for name in PAPER] == list(range(1, 50))
    assert {entries[name].paper_number for name in LATER} == {None}


def test_the_series_are_as_large_as_the_paper_says() -> None:
    counts = Counter(entry.series for entry in all_entries() if entry.paper_number)
    assert counts == {
        Series.ERLANGSHEN: 23, Series.RANDENG: 11, Series.TAIYI: 6, Series.WENZHONG: 3,
        Series.YUYUAN: 4, Series.ZHOUWENWANG: 2,
    }  # fmt: skip


def test_legacy_names_are_those_of_the_early_publications() -> None:
    assert {e.name: e.legacy_names for e in all_entries() if e.legacy_names} == LEGACY


def test_hub_ids_are_unique_and_follow_the_name() -> None:
    entries = all_entries()
    ids = [hub_id for entry in entries for hub_id in (entry.hub_id, *entry.other_hub_ids)]
    assert len(ids) == len(set(ids))
    assert all(entry.hub_id == f"IDEA-CCNL/{entry.name}" for entry in entries)


@pytest.mark.parametrize("entry", all_entries(), ids=lambda entry: entry.name)
def test_an_entry_is_found_by_any_name(entry: ModelEntry) -> None:
    names = (entry.name, *entry.aliases, *entry.legacy_names, entry.hub_id, *entry.other_hub_ids)
    for name in names:
        for spelt in (name, name.upper(), name.replace("-", "_"), name.replace("-", " ").lower()):
            assert find_entry(spelt) is entry


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        find_entry("Erlangshen-MegatronBrt-1.3B")
    assert caught.value.nearest[0] == "Erlangshen-MegatronBert-1.3B"
    assert caught.value.exit_code == 2


def test_a_name_that_could_mean_two_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    both = frozenset({"Randeng-T5-77M", "Randeng-T5-784M"})
    monkeypatch.setattr(lookup_module, "_loose_names", lambda: {"randengt5": both})
    with pytest.raises(UnknownNameError, match="several"):
        find_entry("Randeng T5")


def test_two_entries_cannot_share_a_name() -> None:
    first, second = all_entries()[:2]
    with pytest.raises(ConfigError, match="names both"):
        lookup_module._names_of((first, second.model_copy(update={"aliases": (first.name,)})))


@pytest.mark.parametrize("entry", all_entries(), ids=lambda entry: entry.name)
def test_facts_fit_each_other(entry: ModelEntry) -> None:
    assert entry.name.startswith(entry.series.value)
    assert entry.source
    assert entry.licence
    positions = entry.config.get("max_position_embeddings", entry.config.get("n_positions"))
    if isinstance(positions, int):
        # RoBERTa's first two positions belong to padding.
        assert positions - 2 * (entry.architecture == "roberta") == entry.max_tokens
    assert all(claim.source and claim.statement for claim in entry.claims)
    assert all(0 <= score.value <= 1 and score.source for score in entry.scores)
    assert bool(entry.size_note) == (entry.built_parameters is not None)
    if entry.built_parameters:
        assert abs(entry.built_parameters / entry.num_parameters - 1) > 0.01
    assert (entry.tokenizer == "none") == (not entry.languages)
    assert ModelEntry.model_validate(entry.to_json()) == entry
    assert entry.family not in entry.other_families
    assert entry.objective not in entry.other_objectives


def test_a_parent_of_the_family_is_an_entry() -> None:
    for entry in all_entries():
        if entry.parent.startswith(tuple(series.value for series in Series)):
            parent = find_entry(entry.parent)
            assert parent.name == entry.parent != entry.name
            own = {k: v for k, v in entry.config.items() if not k.startswith("prompt_")}
            assert parent.config == own
            assert parent.architecture == entry.architecture


def test_nine_are_fine_tuned_with_labels() -> None:
    labels = {
        entry.name.rpartition("-")[2]: entry.labels for entry in all_entries() if entry.labels
    }
    assert labels == {
        "NLI": ("CONTRADICTION", "NEUTRAL", "ENTAILMENT"),
        "Sentiment": ("Negative", "Positive"),
        "Similarity": ("not similarity", "similarity"),
    }
    assert sum(bool(entry.labels) for entry in all_entries()) == 9


@pytest.mark.parametrize(
    ("family", "count"),
    [
        (Family.PAIR, 6), (Family.CLASSIFY, 3), (Family.CHOOSE, 3), (Family.EXTRACT, 2),
        (Family.IMAGE_TEXT, 3), (Family.CLASSIFY_IMAGE, 1), (Family.EMBED, 2),
        (Family.GENERATE, 7), (Family.REWRITE, 12), (Family.FILL_MASK, 14),
    ],
)  # fmt: skip
def test_every_family_of_the_paper_has_its_models(family: Family, count: int) -> None:
    assert sum(entry.family is family for entry in all_entries()) == count


def test_own_architectures_and_objectives_are_used() -> None:
    used = {entry.architecture for entry in all_entries()}
    assert set(OWN) <= used
    objectives = {o for e in all_entries() for o in (e.objective, *e.other_objectives)}
    # Token and word n-grams are a way to train any encoder, of which no entry was published alone.
    assert set(ObjectiveName) - objectives == {ObjectiveName.NGRAM_MLM}


def test_contradictions_stand_side_by_side() -> None:
    def statements(name: str, subject: str) -> set[str]:
        return {c.statement for c in find_entry(name).claims if c.subject == subject}

    assert {"280 GB", "WuDao, 180 GB"} <= statements("Erlangshen-MegatronBert-1.3B", "corpus")
    assert len(statements("Wenzhong-GPT2-3.5B", "compute")) == 2
    assert len(statements("Randeng-T5-77M", "compute")) == 2
    summaries = find_entry("Randeng-Pegasus-523M-Summary-Chinese").scores
    assert {s.value for s in summaries if s.metric == "ROUGE-L"} == {0.447, 0.4663}
    words = find_entry("Erlangshen-DeBERTa-v2-97M-Chinese").scores
    assert {s.value for s in words if s.task == "ocnli"} == {0.752, 0.7568}
    assert {"GPL-3.0", "Apache-2.0"} == statements("Ziya-LLaMA-13B-v1", "licence")
    for size, values in (("102M", {0.41, 0.4285}), ("large-326M", {0.5172, 0.5305})):
        images = find_entry(f"Taiyi-CLIP-Roberta-{size}-Chinese").scores
        assert {s.value for s in images if s.metric == "top-1"} == values


@pytest.mark.parametrize("entry", all_entries(), ids=lambda entry: entry.name)
def test_what_a_card_says_can_be_looked_up(entry: ModelEntry) -> None:
    repository, _, path = entry.card.partition(": ")
    assert path.endswith(".md")
    assert repository in {"IDEA-CCNL/Fengshenbang-doc", "IDEA-CCNL/Fengshenbang-LM", "hub"}
    sources = {stated.source for stated in (*entry.claims, *entry.scores)}
    # "documentation" and "later model card" name no page.
    assert sources.isdisjoint({"documentation", "later model card", "example"})
    if repository == "hub":
        assert sources.isdisjoint({"model card", "first version of the model card"})
        assert path.startswith(entry.hub_id)


def test_rows_are_told_only_where_the_source_tells_them() -> None:
    splits = Counter(score.split for entry in all_entries() for score in entry.scores)
    assert splits["unsaid"] > splits["dev"] > 0
    pretrained = find_entry("Erlangshen-MegatronBert-1.3B")
    assert {score.split for score in pretrained.scores} == {"unsaid"}


def test_what_was_never_published_is_named() -> None:
    assert "Knowledge-based masking" in find_entry("Erlangshen-MegatronBert-1.3B").unknown[0]
    assert "ratio" in find_entry("Zhouwenwang-Unified-1.3B").unknown[0]
    assert "window" in find_entry("Erlangshen-Longformer-330M").unknown[-1]
    for entry in all_entries():
        if "our choice" in entry.source:
            assert entry.our_choices, entry.name


@pytest.mark.parametrize("kind", [Series, Demand, Task])
def test_the_taxonomy_speaks_both_languages(kind: type[Series | Demand | Task]) -> None:
    for member in kind:
        assert member.value.isascii()
        assert all("\u4e00" <= character <= "\u9fff" for character in member.chinese)
    assert Series.ERLANGSHEN.chinese == "二郎神"


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("摘要 pegasus 523m", "Randeng-Pegasus-523M-Summary-Chinese"),
        ("长文本 330m", "Erlangshen-Longformer-330M"),
        ("余元 sft", "YuyuanQA-GPT2-3.5B"),
        ("gap_sentences 238m", "Randeng-Pegasus-238M-Chinese"),
        ("MedQuAD", "YuyuanQA-GPT2-3.5B"),
    ],
)
def test_words_find_models(text: str, first: str) -> None:
    assert search_entries(text)[0].name == first


def test_every_word_has_to_be_found() -> None:
    assert search_entries("pegasus zebra") == ()
    assert search_entries("") == ()
