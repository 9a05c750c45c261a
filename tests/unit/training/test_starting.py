"""What a training begins with: models are asked as they are taught, whatever they start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from pyfsb.config import Family, RunSpec, Stage
from pyfsb.data.prepare import prepare
from pyfsb.data.vocabulary import write_tokenizer
from pyfsb.errors import CheckpointError, ConfigError
from pyfsb.inference.generate import Generator
from pyfsb.inference.rewrite import Rewriter
from pyfsb.models.loading import load_tokenizer
from pyfsb.objectives import SpecialIds
from pyfsb.registry import find_entry
from pyfsb.registry.sizes import tiny_config
from pyfsb.storage import join
from pyfsb.training.distributed import ProcessGroup
from pyfsb.training.protocol import SampleSource
from pyfsb.training.row_corpus import open_rows
from pyfsb.training.sources import CorpusPlace, open_corpus
from pyfsb.training.starting import Plan, Start, build_objective, build_start, plan_training
from tests.helpers.models import MODELS, PIECES, write_model

TEXT = "今天早上，老师在北京读了一本新书。大家都很高兴。"
ALONE = ProcessGroup(rank=0, size=1, device=torch.device("cpu"))
CLEAN = {
    f"{kind}_ratio": 0.0 for kind in ("insert", "delete", "replace", "swap", "reorder")
}  # nothing is spoiled


def begin(
    folder: Path, name: str, *, rows: bool = False, **sections: Any
) -> tuple[Plan, Start, SampleSource]:
    """Prepare one text, or one dialogue, and put together what trains on it."""
    value = {"prompt": "老师在哪里？", "output": "北京"} if rows else {"text": TEXT}
    folder.mkdir(exist_ok=True)
    (folder / "in.jsonl").write_text(json.dumps(value, ensure_ascii=False) + "\n")
    data = {"rows" if rows else "corpus": ["in.jsonl"], "max_tokens": 64, "num_processes": 1}
    model = sections.pop("model", {"config": tiny_config(find_entry(name))})
    spec = RunSpec.model_validate(
        {
            "name": "start", "output": str(folder / "run"), "model": {"name": name, **model},
            "data": {"root": str(folder), "vocabulary": {"size": 400}, **data}, **sections,
        }
    )  # fmt: skip
    prepare(spec)
    plan = plan_training(spec)
    uri = join(spec.output_of(Stage.DATA), "rows" if rows else "corpus")
    start = build_start(spec, plan, uri, spec.output_of(Stage.TRAINING), ALONE)
    if rows:
        return plan, start, open_rows(spec, plan, start, uri).source
    corpus = open_corpus(
        [CorpusPlace(name="c", uri=uri)], build_objective(plan, start), data=spec.data, seed=1,
        held_out_samples=0,
    )  # fmt: skip
    return plan, start, corpus.source


def document(source: SampleSource) -> list[int]:
    """Return what the model reads of the one sample."""
    found = source.collate(np.array([0]), np.array([0])).inputs["input_ids"]
    return [int(token) for token in found]


def read_by(model: Any, predictor: Any, asked: str) -> list[int]:
    """Return the ids that a predictor gives a model to write from."""
    seen: list[list[int]] = []

    def generate(ids: torch.Tensor | None = None, **more: Any) -> torch.Tensor:
        ids = more["input_ids"] if ids is None else ids
        seen.append(ids[0].tolist())
        return ids

    model.generate = generate
    predictor.predict([asked])
    return seen[0]


@pytest.mark.parametrize(
    ("name", "objective", "asked"),
    [
        ("Randeng-Transformer-1.1B-Denoise", {"denoising": CLEAN}, TEXT),
        ("Wenzhong-GPT2-110M", {}, TEXT[:7]),
        ("Zhouwenwang-Unified-110M", {"prefix_lm": {"mlm_ratio": 0.0}}, TEXT[:7]),
        ("YuyuanQA-GPT2-3.5B", {}, "老师在哪里？"),
        ("Ziya-LLaMA-13B-v1", {}, "老师在哪里？"),
    ],
)
def test_a_writer_reads_the_beginning_of_what_it_was_taught(
    name: str, objective: dict[str, Any], asked: str, tmp_path: Path
) -> None:
    is_chat = find_entry(name).objective == "sft"
    _, start, source = begin(tmp_path, name, rows=is_chat, objective=objective)
    tokenizer = load_tokenizer(start.tokenizer_folder)
    writer = Generator(start.model, tokenizer, name="g", max_tokens=128)
    prompt = read_by(start.model, writer, asked)
    taught = document(source)
    assert taught[: len(prompt)] == prompt
    assert (
        taught[-1] == start.model.config.eos_token_id == start.model.generation_config.eos_token_id
    )


@pytest.mark.parametrize(
    "name",
    [
        "Randeng-BART-139M", "Randeng-BART-759M-Chinese-BertTokenizer", "Randeng-T5-77M",
        "Randeng-MegatronT5-770M", "Randeng-Pegasus-238M-Chinese",
    ],
)  # fmt: skip
def test_an_encoder_is_asked_in_the_frame_it_was_taught(name: str, tmp_path: Path) -> None:
    _, start, source = begin(tmp_path, name)
    tokenizer = load_tokenizer(start.tokenizer_folder)
    writer = Rewriter(start.model, tokenizer, name="r", max_tokens=64)
    read, taught = read_by(start.model, writer, TEXT), document(source)
    plain = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    place = next(n for n in range(len(read)) if read[n : n + len(plain)] == plain)
    before, behind = read[:place], read[place + len(plain) :]
    assert (taught[: len(before)], taught[-len(behind) :]) == (before, behind)
    special = SpecialIds.of(start.pieces)
    ends = {special.cls, special.sep, special.bos, special.eos}
    assert not ends & set(taught[len(before) : -len(behind)])
    batch = source.collate(np.array([0]), np.array([0])).inputs
    told = start.model.generation_config
    assert int(batch["decoder_ids"][0]) == told.decoder_start_token_id
    assert int(batch["target_ids"][-1]) == told.eos_token_id


def checkpoint(folder: Path, **changes: Any) -> str:
    """Write a GPT-2 with a BERT vocabulary, whose config keeps GPT-2's own ends (50256)."""
    shape = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
    config = AutoConfig.for_model("gpt2", **shape, vocab_size=len(PIECES), **changes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    write_tokenizer(PIECES, folder, lowercase=True)
    return str(folder)


@pytest.mark.parametrize("objective", ["causal_lm", "sft"])
def test_ends_of_another_vocabulary_are_replaced(objective: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "gpt2")
    before = Generator(
        AutoModelForCausalLM.from_pretrained(folder), load_tokenizer(Path(folder)), name="g",
        max_tokens=32,
    )  # fmt: skip
    assert before.predict(["老师"])[0].num_tokens
    _, start, source = begin(
        tmp_path, "Wenzhong-GPT2-110M", rows=objective == "sft", objective={"name": objective},
        model={"checkpoint": folder},
    )  # fmt: skip
    config = start.model.config
    assert [config.bos_token_id, config.eos_token_id] == [2, 3]
    assert [start.model.generation_config.bos_token_id, document(source)[0]] == [2, 2]
    assert document(source)[-1] == 3


def test_a_decoder_begins_as_its_checkpoint_says(tmp_path: Path) -> None:
    shape = tiny_config(find_entry("Randeng-BART-759M-Chinese-BertTokenizer"))
    config = AutoConfig.for_model(
        "bart", **shape, vocab_size=len(PIECES), pad_token_id=0, bos_token_id=2, eos_token_id=3,
        decoder_start_token_id=2, forced_eos_token_id=3,
    )  # fmt: skip
    folder = tmp_path / "bart"
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder)
    write_tokenizer(PIECES, folder, lowercase=True)
    _, _, source = begin(
        tmp_path, "Randeng-BART-759M-Chinese-BertTokenizer", model={"checkpoint": str(folder)}
    )
    batch = source.collate(np.array([0]), np.array([0])).inputs
    assert int(batch["decoder_ids"][0]) == 2


def test_prefixes_are_asked_both_ways_only_after_prefixes(tmp_path: Path) -> None:
    name = "Zhouwenwang-Unified-110M"
    _, start, _ = begin(tmp_path / "1", name)
    assert start.model.config.prompt_token_type == 0
    folder = tmp_path / "saved"
    start.model.save_pretrained(folder)
    write_tokenizer(start.pieces, folder, lowercase=True)
    _, again, _ = begin(
        tmp_path / "2", name, objective={"name": "causal_lm"}, model={"checkpoint": str(folder)}
    )
    assert again.model.config.prompt_token_type == 1


@pytest.mark.parametrize(
    "name", ["Erlangshen-DeBERTa-v2-97M-Chinese", "Erlangshen-Longformer-110M"]
)
def test_sentence_order_needs_its_head(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no head for the order of sentences.*megatron-bert"):
        begin(tmp_path, name, objective={"name": "sentence_order"})


@pytest.mark.parametrize(
    ("name", "objective", "message"),
    [
        ("Erlangshen-MegatronBert-1.3B", "causal_lm", "see what they are to write.*gpt2"),
        ("Erlangshen-DeBERTa-v2-97M-Chinese", "sft", "see what they are to write"),
        ("Randeng-BART-139M", "denoising", "see what they are to write"),
        ("Wenzhong-GPT2-110M", "prefix_lm", "do not say who sees whom.*causal_lm"),
        ("Randeng-BART-139M", "whole_word", "is an encoder-decoder; expected"),
        ("Wenzhong-GPT2-110M", "span_corruption", "no decoder|does not fit|no head"),
    ],
)
def test_objectives_that_a_model_cannot_learn_are_refused(
    name: str, objective: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        begin(tmp_path, name, rows=objective == "sft", objective={"name": objective})


def test_weights_at_hand_decide_over_the_config(tmp_path: Path) -> None:
    name = MODELS[0]
    folder = write_model(tmp_path / "bert", MODELS[0], Family.FILL_MASK)
    with pytest.raises(ConfigError, match=r"num_hidden_layers = 7, but the weights of .* have \d"):
        begin(
            tmp_path / "a", name,
            model={"checkpoint": str(folder), "config": {"num_hidden_layers": 7}},
        )  # fmt: skip
    with pytest.raises(CheckpointError, match="is a .*bert, Wenzhong-GPT2-110M is a gpt2"):
        begin(tmp_path / "b", "Wenzhong-GPT2-110M", model={"checkpoint": str(folder)})
