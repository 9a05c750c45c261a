"""The class against the original's cases, and what a folder keeps of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PegasusConfig

from pyfsb.errors import DataError
from pyfsb.tokenizers import registration
from pyfsb.tokenizers.choosing import load_tokenizer
from pyfsb.tokenizers.jieba_wordpiece import write_tokenizer
from pyfsb.tokenizers.pegasus import JiebaPegasusTokenizer
from tests.helpers.reference import ReferenceCase, reference_cases
from tests.helpers.tokenizers import TEXTS, write_pegasus


def publish(case: ReferenceCase, folder: Path) -> Path:
    """Write a case's vocabulary as a published folder."""
    folder.mkdir()
    shutil.copyfile(case.folder / "vocab.txt", folder / "vocab.txt")
    PegasusConfig(d_model=8).save_pretrained(folder)
    if case.config["options"]:
        (folder / "tokenizer_config.json").write_text(json.dumps(case.config["options"]))
    return folder


@reference_cases("tokenizer_pegasus")
def test_agrees_with_the_original_in_every_case(case: ReferenceCase, tmp_path: Path) -> None:
    registration.register()
    folder = publish(case, tmp_path / "published")
    ours = load_tokenizer(folder)
    ours.save_pretrained(tmp_path / "saved")
    again = [AutoTokenizer.from_pretrained(place) for place in (folder, tmp_path / "saved")]
    known = {"text", "pair", "tokens", "ids", "decoded", "decoded_skip_special"}
    for tokenizer in (ours, *again):
        assert isinstance(tokenizer, JiebaPegasusTokenizer)
        for row in case.lines():
            assert set(row) <= known
            if "pair" in row:
                assert tokenizer(*row["pair"])["input_ids"] == row["ids"]
                continue
            assert tokenizer.tokenize(row["text"]) == row["tokens"], row
            assert tokenizer(row["text"])["input_ids"] == row["ids"], row
            assert tokenizer.decode(row["ids"]) == row["decoded"], row
            skipped = tokenizer.decode(row["ids"], skip_special_tokens=True)
            assert skipped == row["decoded_skip_special"], row
        ids = {
            name: getattr(tokenizer, f"{name}_id")
            for name in case.config["special_ids"]
            if name != "mask_token_sent"
        }
        ids["mask_token_sent"] = tokenizer.sentence_mask_token_id
        assert ids == case.config["special_ids"]
        assert len(tokenizer) == tokenizer.vocab_size == case.config["vocab_size"]
        assert tokenizer.model_input_names == case.config["model_input_names"]


def test_folders_that_name_the_original_class_load(tmp_path: Path) -> None:
    folder = write_pegasus(tmp_path / "published")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PegasusTokenizer"}')
    for tokenizer in (AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)):
        assert isinstance(tokenizer, JiebaPegasusTokenizer)
        assert tokenizer.tokenize("今天天气很好") == ["今天天气", "很", "好"]
        assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)


def test_batches_pairs_and_special_masks(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_pegasus(tmp_path / "published"))
    batch = tokenizer(["世界", "今天天气很好"], padding=True)
    assert batch["input_ids"][0][1:] == [1, 0, 0]
    assert batch["attention_mask"] == [[1, 1, 0, 0], [1, 1, 1, 1]]
    ids = tokenizer("今天天气很好", truncation=True, max_length=3)["input_ids"]
    assert len(ids) == 3
    assert ids[-1] == 1
    assert tokenizer.get_special_tokens_mask([5, 40, 1], already_has_special_tokens=True)[-1] == 1
    assert tokenizer.get_special_tokens_mask([40], [41]) == [0, 0, 1]
    assert tokenizer.num_special_tokens_to_add() == 1


def test_added_tokens_are_taken_whole_and_saved(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_pegasus(tmp_path / "published"))
    size = len(tokenizer)
    tokenizer.add_tokens(["<人名>"])
    assert tokenizer("我是<人名>。")["input_ids"][-3] == size
    tokenizer.save_pretrained(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    for text in (*TEXTS, "我是<人名>。"):
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_a_written_vocabulary_loads(tmp_path: Path) -> None:
    published = load_tokenizer(write_pegasus(tmp_path / "published"))
    vocabulary = published.get_vocab()
    write_tokenizer(sorted(vocabulary, key=vocabulary.__getitem__), tmp_path / "w", lowercase=True)
    PegasusConfig(d_model=8).save_pretrained(tmp_path / "w")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "w")
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == published(text)["input_ids"]


def test_a_folder_without_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a Pegasus folder has one"):
        JiebaPegasusTokenizer(str(tmp_path / "vocab.txt"))


@pytest.mark.parametrize(
    ("option", "value"),
    [("do_basic_tokenize", False), ("never_split", ["x"]), ("mask_token_sent", "<m>")],
)
def test_options_that_are_not_built_are_refused(tmp_path: Path, option: str, value: object) -> None:
    folder = write_pegasus(tmp_path / "published")
    usual = {"do_basic_tokenize": True, "never_split": None, "mask_token_sent": "<mask_1>"}
    assert JiebaPegasusTokenizer(str(folder / "vocab.txt"), **usual).eos_token_id == 1
    with pytest.raises(DataError, match=option):
        JiebaPegasusTokenizer(str(folder / "vocab.txt"), **{option: value})
