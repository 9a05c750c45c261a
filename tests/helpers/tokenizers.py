"""Small tokenizer folders in the published layouts, trained by the tests themselves."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import ByteLevelBPETokenizer

from pyfsb.tokenizers.jieba_wordpiece import is_hanzi, is_punctuation

TEXTS = (
    "今天天气很好，我们去北京大学。",
    "他说：“你好，世界！”",
    "‘单引号’与《书名号》、（括号）【方头】……破折号——结束；",
    "iPhone 14 Pro 发布于 2022年9月，价格￥5999.00",
    "ＡＢＣ１２３，全角字符：！？",
    "😀今天真开心😂",
    "𠮷野家的龘龖鱻",
    "前后 有 空格",
    "hello world, it costs 3.14!",
)
"""What every tokenizer must carry: full-width signs, quotes, Latin, digits, emoji, rare hanzi."""


def write_sentencepiece(
    folder: Path,
    model_type: str,
    *,
    kind: str = "unigram",
    name: str = "spiece.model",
    **options: Any,
) -> Path:
    """Train a SentencePiece model on the texts and write it with a config.json."""
    sentencepiece = pytest.importorskip(
        "sentencepiece", reason="it trains the .model files of tests"
    )
    sink = io.BytesIO()
    settings = {
        "vocab_size": 300, "hard_vocab_limit": False, "character_coverage": 1.0, "max_sentencepiece_length": 6,
        "normalization_rule_name": "identity", "num_threads": 1, "minloglevel": 2,
    } | options  # fmt: skip
    if kind == "bpe":
        settings["vocab_size"] = options.get("vocab_size", 180)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20), model_writer=sink, model_type=kind, **settings
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(sink.getvalue())
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


def write_byte_bpe(folder: Path) -> Path:
    """Train byte-BPE as GPT-2 has it: vocab.json and merges.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        TEXTS * 5, vocab_size=400, special_tokens=["<|endoftext|>"], show_progress=False
    )
    tokenizer.save_model(str(folder))
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    return folder


def write_wordpiece(folder: Path, model_type: str) -> Path:
    """Write a vocab.txt and nothing else, as DeBERTa-v2 97M and others were published."""
    folder.mkdir(parents=True, exist_ok=True)
    characters = sorted({c for text in TEXTS for c in text.lower() if not c.isspace()})
    continuing = [f"##{c}" for c in characters if not is_hanzi(c) and not is_punctuation(c)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *continuing]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", "utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


def write_pegasus(folder: Path) -> Path:
    """Write a vocab.txt as Randeng-Pegasus was published: special lines, characters, words."""
    write_wordpiece(folder, "pegasus")
    pieces = (folder / "vocab.txt").read_text("utf-8").split("\n")[5:-1]
    first = ["[PAD]", "[unused1]", "[unused2]", "[unused3]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    lines = [*first, *pieces, "今天天气", "北京大学", "世界", "iphone"]
    (folder / "vocab.txt").write_text("\n".join(lines) + "\n", "utf-8")
    return folder
