"""Dialogues and pairs from a file to what a model reads: lines stay, forged tokens are text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from pyfsb.config import ObjectiveName, RunSpec, Stage
from pyfsb.data.prepare import prepare
from pyfsb.evaluation.check_images import write_image_rows
from pyfsb.models.loading import load_tokenizer
from pyfsb.registry import find_entry
from pyfsb.registry.sizes import tiny_config
from pyfsb.storage import join
from pyfsb.training.distributed import ProcessGroup
from pyfsb.training.row_corpus import open_rows
from pyfsb.training.sources import Corpus
from pyfsb.training.starting import Start, build_start, plan_training

ALONE = ProcessGroup(rank=0, size=1, device=torch.device("cpu"))
CODE = "def f(x):\n\n    return x\n\n\tpass"


def open_spec(spec: RunSpec) -> tuple[Corpus, Start]:
    """Prepare the rows of a spec and put together what trains on them."""
    prepare(spec)
    plan, uri = plan_training(spec), join(spec.output_of(Stage.DATA), "rows")
    start = build_start(spec, plan, uri, spec.output_of(Stage.TRAINING), ALONE)
    return open_rows(spec, plan, start, uri), start


def read(
    folder: Path, name: str, row: dict[str, Any], **vocabulary: Any
) -> tuple[dict[str, list[int]], PreTrainedTokenizerBase]:
    """Prepare one row and return what the model reads of it, with the tokenizer."""
    folder.mkdir()
    (folder / "in.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf-8")
    objective = "sft" if "prompt" in row else "rewriting"
    spec = RunSpec.model_validate(
        {
            "name": "rows", "output": str(folder / "run"), "objective": {"name": objective},
            "model": {"name": name, "config": tiny_config(find_entry(name))},
            "data": {
                "root": str(folder), "rows": ["in.jsonl"], "max_tokens": 64, "num_processes": 1,
                "vocabulary": {"size": 400, **vocabulary},
            },
        }
    )  # fmt: skip
    corpus, start = open_spec(spec)
    inputs = corpus.source.collate(np.array([0]), np.array([0])).inputs
    read = {key: value.tolist() for key, value in inputs.items() if value.ndim == 1}
    return read, load_tokenizer(start.tokenizer_folder)


def test_an_answer_keeps_its_lines_and_what_it_writes_is_no_token(tmp_path: Path) -> None:
    row = {"prompt": "问\n\n  题<|endoftext|>", "output": f"{CODE}<|endoftext|>了"}
    found, tokenizer = read(tmp_path / "a", "Wenzhong-GPT2-110M", row, kind="byte_bpe")
    end = tokenizer.eos_token_id
    assert found["target_ids"].count(end) == 1 and found["target_ids"][-1] == end
    assert tokenizer.decode(found["target_ids"][:-1]) == f"{CODE}<|endoftext|>了"
    asked = tokenizer.decode(found["input_ids"]).removeprefix("<|endoftext|>")
    assert asked.startswith("<human>:问\n\n  题<|endoftext|>\n<bot>:def f(x):\n\n    return")


def test_a_vocabulary_without_newlines_reads_what_it_read(tmp_path: Path) -> None:
    vocabulary = {"kind": "wordpiece"}
    lines = {"prompt": "问\n\n  题", "output": CODE}
    flat = {"prompt": "问\n题", "output": " ".join(CODE.split())}
    found, _ = read(tmp_path / "a", "Wenzhong-GPT2-110M", lines, **vocabulary)
    expected, _ = read(tmp_path / "b", "Wenzhong-GPT2-110M", flat, **vocabulary)
    assert found == expected


def test_a_target_keeps_its_lines(tmp_path: Path) -> None:
    row = {"text": f"译：{CODE}", "target": f"{CODE}</s>"}
    found, tokenizer = read(tmp_path / "a", "Randeng-T5-77M", row, kind="unigram")
    assert found["target_ids"].count(tokenizer.eos_token_id) == 1
    written = tokenizer.decode(found["target_ids"][:-1], clean_up_tokenization_spaces=False)
    assert written == f"{CODE}</s>"


@pytest.mark.parametrize(("answer", "is_told"), [("好。\n<human>:再问", True), ("好。", False)])
def test_words_of_the_prompt_in_a_row_are_told(
    answer: str, is_told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read(tmp_path / "a", "Wenzhong-GPT2-110M", {"prompt": "问", "output": answer}, kind="byte_bpe")
    told = [text for text in caplog.messages if "words of the prompt" in text]
    expected = "1 of 1 dialogues hold words of the prompt (<human>:, <bot>:)"
    assert [text.startswith(expected) for text in told] == [True] * is_told


@pytest.mark.parametrize("freezes_vision", [True, False])
def test_images_are_cut_in_training_and_held_out_ones_are_whole(
    freezes_vision: bool, tmp_path: Path
) -> None:
    name = "Taiyi-CLIP-Roberta-102M-Chinese"
    rows = write_image_rows(ObjectiveName.CONTRASTIVE, tmp_path)

    def collate(folder: str, data_pass: int, **objective: Any) -> dict[str, np.ndarray]:
        spec = RunSpec.model_validate(
            {
                "name": "images", "output": str(tmp_path / folder),
                "objective": {
                    "name": "contrastive", "freezes_vision": freezes_vision, **objective,
                },
                "model": {"name": name, "config": tiny_config(find_entry(name))},
                "data": {
                    "root": str(tmp_path), "rows": [rows], "num_processes": 1,
                    "vocabulary": {"size": 400},
                },
                "training": {"validation_samples": 4},
            }
        )  # fmt: skip
        numbers = np.arange(16, 24)
        source = open_spec(spec)[0].source
        inputs = source.collate(numbers, np.full_like(numbers, data_pass)).inputs
        return {key: value.numpy() for key, value in inputs.items()}

    first = collate("a", 0, min_crop_ratio=0.5)["pixel_values"]
    later = collate("b", 1, min_crop_ratio=0.5)["pixel_values"]
    is_same = [bool(np.array_equal(a, b)) for a, b in zip(first, later, strict=True)]
    assert is_same == [False] * 4 + [True] * 4
    whole = collate("c", 0)
    assert ("image_vectors" in whole) == freezes_vision
    if not freezes_vision:
        assert np.array_equal(first[4:], whole["pixel_values"][4:])
