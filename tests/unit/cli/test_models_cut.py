"""`fsb models cut-vocabulary`: fewer pieces, the same answers for texts that need no others."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
import transformers

from pyfsb.cli.__main__ import main
from pyfsb.config import Family
from pyfsb.errors import EXIT_CONFIG, EXIT_DATA, EXIT_OK
from pyfsb.models.loading import load_model
from pyfsb.tokenizers.choosing import load_tokenizer
from tests.helpers.models import write_model
from tests.helpers.tokenizers import TEXTS
from tests.unit.tokenizers.test_choosing import write_t5

SMALL = {
    "d_model": 16, "d_kv": 8, "d_ff": 20, "num_layers": 1, "num_heads": 2, "eos_token_id": 1,
    "decoder_start_token_id": 0, "pad_token_id": 0, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def mt5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An mT5 with more rows than pieces, as published."""
    folder = write_t5(tmp_path_factory.mktemp("cut") / "mt5")
    size = len(load_tokenizer(folder)) + 12
    torch.manual_seed(1)
    config = transformers.MT5Config(vocab_size=size, **SMALL)
    transformers.MT5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def write_texts(folder: Path) -> list[str]:
    """Write texts in two forms; returns the options that name them."""
    rows = "".join(json.dumps({"content": text}, ensure_ascii=False) + "\n" for text in TEXTS[:2])
    (folder / "a.jsonl.gz").write_bytes(gzip.compress((rows + "{\n").encode()))
    (folder / "b.txt").write_text(f"{TEXTS[2]}\n\n", encoding="utf-8")
    patterns = [str(folder / "*.jsonl.gz"), str(folder / "b.txt")]
    return ["--text-field", "content", *(word for p in patterns for word in ("--texts", p))]


def logits_of(folder: Path, text: str) -> torch.Tensor:
    model = load_model(folder, Family.REWRITE).eval()
    ids = torch.tensor([load_tokenizer(folder)(text)["input_ids"]])
    with torch.no_grad():
        return model(input_ids=ids, decoder_input_ids=ids).logits[0]


def test_what_stays_is_scored_as_before(
    mt5: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["models", "cut-vocabulary", str(mt5), "--to", str(tmp_path / "new"), "--size", "9999"]
    told += ["--family", "rewrite", "--output", "json", *write_texts(tmp_path)]
    assert main(told) == EXIT_OK
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    before = load_model(mt5, Family.REWRITE).config.vocab_size
    after = load_model(tmp_path / "new", Family.REWRITE).config.vocab_size
    assert (found["num_rows_before"], found["num_rows"]) == (before, after)
    assert after < before and found["kept_token_ratio"] == 1.0
    kept = json.loads((tmp_path / "new/kept_ids.json").read_text())
    for text in TEXTS[:3]:
        expected = logits_of(mt5, text)[:, kept]
        assert torch.allclose(logits_of(tmp_path / "new", text), expected, atol=1e-5)
    assert "1 lines of the texts cannot be read" in printed.err


def test_a_small_size_says_what_it_loses(
    mt5: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["models", "cut-vocabulary", str(mt5), "--to", str(tmp_path / "new"), "--size", "10"]
    assert main([*told, "--family", "rewrite", *write_texts(tmp_path)]) == EXIT_OK
    kept = json.loads((tmp_path / "new/kept_ids.json").read_text())
    printed = capsys.readouterr().out
    assert f" rows before, {len(kept):,} now; " in printed and "100.000%" not in printed
    assert printed.rstrip().endswith(str(tmp_path / "new"))


def test_errors_have_their_exit_codes_and_leave_nothing(
    mt5: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = write_texts(tmp_path)
    target = tmp_path / "new"
    told = ["models", "cut-vocabulary", str(mt5), "--to", str(target)]
    assert main([*told, "--size", "50", *options]) == EXIT_CONFIG
    assert "--family, such as rewrite" in capsys.readouterr().err
    family = ["--family", "rewrite"]
    assert main([*told, *family, "--size", "0", *options]) == EXIT_CONFIG
    none = str(tmp_path / "none*.txt")
    assert main([*told, *family, "--size", "50", "--texts", none]) == EXIT_DATA
    (tmp_path / "empty.txt").write_text("\n")
    empty = str(tmp_path / "empty.txt")
    assert main([*told, *family, "--size", "50", "--texts", empty]) == EXIT_DATA
    assert "the texts have no token" in capsys.readouterr().err
    assert main([*told, "--family", "tag", "--size", "50", *options]) == EXIT_DATA
    assert not target.exists() or not any(target.iterdir())
    assert not list(tmp_path.glob(".partial-*"))


def test_an_imported_model_says_what_it_is_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "Erlangshen-MegatronBert-1.3B"
    source = write_model(tmp_path / "from", name, Family.FILL_MASK)
    told = ["models", "import", str(source), "--model", name, "--to", str(tmp_path / "to")]
    assert main(told) == EXIT_OK
    (tmp_path / "a.txt").write_text("中国人民\n北京很好\n", encoding="utf-8")
    cut = ["models", "cut-vocabulary", str(tmp_path / "to"), "--to", str(tmp_path / "new")]
    cut += ["--size", "5", "--texts", str(tmp_path / "a.txt")]
    assert main(cut) == EXIT_OK
    model = load_model(tmp_path / "new", Family.FILL_MASK)
    assert model.config.vocab_size == len(json.loads((tmp_path / "new/kept_ids.json").read_text()))
