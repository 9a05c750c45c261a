"""Cards say what the records say, in both languages, and their code runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import transformers
import yaml

from pyfsb.config import Family
from pyfsb.consumption import ResourceUse
from pyfsb.models.building import build_config, build_model
from pyfsb.models.card_snippets import USAGES
from pyfsb.models.cards import CardFacts, find_corpora, find_scores, write_card, write_card_of
from pyfsb.records import (
    CheckpointRecord,
    DatasetRecord,
    EvalReport,
    FileEntry,
    GateResult,
    Parent,
    Score,
    write_record,
)
from pyfsb.registry import find_entry
from pyfsb.tokenizers.choosing import load_tokenizer
from tests.conftest import ROOT
from tests.helpers.models import write_model
from tests.helpers.tokenizers import write_pegasus, write_wordpiece

NAME = "Erlangshen-MegatronBert-1.3B"
COMMON = {
    "run": "r",
    "created_at": "2026-01-01T00:00:00+00:00",
    "seconds": 1.0,
    "config_hash": "c",
    "seeds": (1,),
}
USED = ResourceUse(
    num_devices=2, device="cpu", num_attempts=1, wall_seconds=60, device_seconds=7200,
    goodput=0.9, tokens_per_second=1234.5, watts_per_device=100, kwh=0.2, kg_co2e_per_kwh=0.5, kg_co2e=0.1,
)  # fmt: skip


def make_corpus() -> DatasetRecord:
    file = FileEntry(path="wudao/part-1.jsonl", num_bytes=1, xxh3="0")
    return DatasetRecord(
        **COMMON, form="corpus", inputs=(file,), num_read=1000, num_kept=900,
        dropped={"short": 100}, num_tokens=123456, vocabulary_size=2000,
    )  # fmt: skip


def make_record(family: Family = Family.FILL_MASK, **changes: object) -> CheckpointRecord:
    values: dict[str, object] = {
        "model": NAME, "architecture": "megatron-bert", "family": family.value,
        "objective": "whole_word", "num_parameters": 12_000, "step": 20, "num_samples": 99,
        "num_tokens": 5000, "loss": 3.2, "max_tokens": 64, "vocabulary_digest": "v", "resources": USED,
    }  # fmt: skip
    return CheckpointRecord(**COMMON, **(values | changes))


def make_score(digest: str, **changes: object) -> Score:
    values: dict[str, object] = {
        "task": "tnews", "task_version": "1", "runner": "finetune", "metric": "accuracy", "value": 0.5123,
        "num_rows": 1000, "num_correct": 512, "interval": (0.48, 0.54), "seeds": (42, 43),
        "seed_values": (0.51, 0.52), "majority_label": "体育", "majority_value": 0.12, "p_value": 0.001,
        "value_all_rows": 0.5, "num_all_rows": 1100, "num_overlap": 100, "num_train": 5000,
        "num_excluded": 0, "num_truncated": 0, "is_degenerate": False, "checkpoint": "tnews/finetune-42",
        "checkpoint_digest": digest, "split_hash": "h", "seconds": 1.0,
    }  # fmt: skip
    return Score(**(values | changes))


def read_card(path: Path) -> tuple[dict[str, object], str]:
    _, header, body = path.read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(header), body


def test_a_card_of_a_training(tmp_path: Path) -> None:
    corpus = make_corpus()
    write_record(corpus, str(tmp_path / "data"))
    parents = (
        Parent(kind="DatasetRecord", uri="../data", digest=corpus.digest),
        Parent(kind="DatasetRecord", uri="../gone", digest="x"),
        Parent(kind="ModelFolder", uri="../weights", digest="y"),
    )
    record = make_record(Family.CLASSIFY, parents=parents, task="tnews", labels=("体育", "财经"))
    report = EvalReport(
        **COMMON, model=NAME, num_parameters=1, example={},
        scores=(make_score(record.digest), make_score("another")),
        gate=GateResult(task="tnews", runner="finetune", has_passed=True, reason="", p_value=0.0),
    )  # fmt: skip
    (tmp_path / "training").mkdir()
    path = write_card_of(
        tmp_path / "training", record, base=str(tmp_path / "training"), reports=[report]
    )
    header, body = read_card(path)
    assert header["language"] == ["zh"]
    assert header["license"] == "apache-2.0"
    assert header["library_name"] == "transformers"
    assert header["pipeline_tag"] == "text-classification"
    assert {"fengshenbang", "Erlangshen", "NLU", "megatron-bert"} <= set(header["tags"])
    (index,) = header["model-index"]
    assert index["name"] == f"{NAME}-tnews"
    (result,) = index["results"]
    assert result["metrics"][0]["value"] == 0.5123
    assert "n = 1000, 95 % interval 0.4800-0.5400, majority 0.1200" in result["metrics"][0]["name"]
    assert "| 通用 General | 自然语言理解 NLU | 二郎神 Erlangshen | megatron-bert |" in body
    assert "kept 900, 词元 tokens 123,456" in body
    assert "wudao/part-1.jsonl" in body
    assert "2 x cpu, 2.000 设备小时" in body
    assert "0.2 kWh (按声明的 by the stated 100 W" in body
    assert "0.1 kg CO2e" in body
    assert "| tnews | accuracy | 0.5123 | 1000 | 0.4800–0.5400 | 0.1200 | 42, 43 |" in body
    assert "体育、财经" in body
    assert "Smaller than the published" in body
    assert "abs/2209.02970" in body
    assert "20 步" in body
    assert "for 20 steps" in body


def test_what_is_unknown_is_said_to_be(tmp_path: Path) -> None:
    path = write_card_of(tmp_path, make_record(resources=None), base=str(tmp_path))
    header, body = read_card(path)
    assert "model-index" not in header
    assert "未知 Unknown: 没有可读的数据记录" in body
    assert "没有记录 not recorded" in body
    assert "These weights were not scored" in body
    used = USED.model_copy(update={"kwh": None, "watts_per_device": None, "kg_co2e": None})
    body = write_card_of(tmp_path, make_record(resources=used), base=str(tmp_path)).read_text(
        "utf-8"
    )
    assert "no power was stated" in body


def test_a_card_of_published_weights_repeats_claims_as_claims(tmp_path: Path) -> None:
    entry = find_entry(NAME)
    facts = CardFacts(entry=entry, family=entry.family, source="hf://IDEA-CCNL/x@abc")
    header, body = read_card(write_card(tmp_path, facts))
    assert header["base_model"] == entry.hub_id
    assert "hf://IDEA-CCNL/x@abc" in body
    assert "published claim" in body
    assert not find_corpora(make_record(), str(tmp_path))
    assert find_scores(make_record(), []) == ()


def test_a_degenerate_score_is_a_limitation(tmp_path: Path) -> None:
    facts = CardFacts(
        entry=find_entry(NAME), family=Family.CLASSIFY, record=make_record(),
        scores=(make_score("d", is_degenerate=True),),
    )  # fmt: skip
    assert "Nearly all answers are one label" in write_card(tmp_path, facts).read_text("utf-8")


def test_every_family_has_a_snippet() -> None:
    assert set(USAGES) == set(Family)


RUNNER = """
import os, re, sys
for folder in sys.argv[1:]:
    os.chdir(folder)
    (block,) = re.findall(r"```python\\n(.*?)```", open("README.md", encoding="utf-8").read(), re.S)
    print("BEGIN", os.path.basename(folder), flush=True)
    exec(block, {})
"""
"""Runs the python block of each card in its folder, in one process: torch is imported once."""


def run_snippets(folders: list[Path]) -> dict[str, str]:
    """Return what the code of each folder's card prints."""
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, *map(str, folders)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    parts = done.stdout.split("BEGIN ")[1:]
    return dict(part.split("\n", 1) for part in parts)


LABELLED = {
    Family.CLASSIFY: ("好", "坏"),
    Family.PAIR: ("是", "不"),
    Family.TAG: ("O", "B-LOC", "I-LOC"),
}
ENTRIES = {
    Family.GENERATE: "Wenzhong-GPT2-110M",
    Family.REWRITE: "Randeng-Pegasus-238M-Chinese",
    Family.EXTRACT: "Erlangshen-Ubert-110M-Chinese",
    Family.IMAGE_TEXT: "Taiyi-CLIP-Roberta-102M-Chinese",
    Family.CLASSIFY_IMAGE: "Taiyi-vit-87M-D",
}


def write_any(folder: Path, family: Family) -> Path:
    """Write a tiny model of a family."""
    if family is Family.REWRITE:
        write_pegasus(folder)
        size = len((folder / "vocab.txt").read_text("utf-8").split())
        config = transformers.PegasusConfig(
            vocab_size=size, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=20, decoder_ffn_dim=20,
            encoder_attention_heads=2, decoder_attention_heads=2, max_position_embeddings=64, decoder_start_token_id=0,
        )  # fmt: skip
        transformers.PegasusForConditionalGeneration(config).save_pretrained(folder)
        return folder
    if family is Family.EXTRACT:
        write_wordpiece(folder, "ubert")
        config = build_config(find_entry(ENTRIES[family]), ENCODER, vocabulary=())
        build_model(config, family, seed=1).save_pretrained(folder)
        return folder
    if family is Family.CLASSIFY_IMAGE:
        config = transformers.ViTConfig(image_size=16, patch_size=8, **TOWER)
        transformers.ViTForImageClassification(config).save_pretrained(folder)
        return folder
    if family is Family.IMAGE_TEXT:
        write_wordpiece(folder, "taiyi-clip")
        load_tokenizer(folder).save_pretrained(folder)
        towers = {
            "text_config": {"vocab_size": 200},
            "vision_config": {"image_size": 16, "patch_size": 8},
        }
        changes = {
            f"{tower}.{key}": value for tower, own in towers.items() for key, value in {**TOWER, **own}.items()
        }  # fmt: skip
        config = build_config(find_entry(ENTRIES[family]), changes, vocabulary=())
        build_model(config, family, seed=1).save_pretrained(folder)
        return folder
    head = Family.FILL_MASK if family is Family.CHOOSE else family
    return write_model(folder, ENTRIES.get(family, NAME), head, labels=LABELLED.get(family, ()))


TOWER = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 20,
}
ENCODER = {**TOWER, "vocab_size": 200, "max_position_embeddings": 64}
SILENT = (Family.GENERATE, Family.REWRITE, Family.ANSWER)
"""A tiny model may well answer with nothing."""


@pytest.mark.timeout(240)
def test_the_code_of_every_card_runs(tmp_path: Path) -> None:
    folders = []
    for family in Family:
        folder = write_any(tmp_path / family.value, family)
        write_card(folder, CardFacts(entry=find_entry(ENTRIES.get(family, NAME)), family=family))
        folders.append(folder)
    printed = run_snippets(folders)
    assert list(printed) == [family.value for family in Family]
    for family in set(Family) - set(SILENT):
        assert printed[family.value].strip(), family
