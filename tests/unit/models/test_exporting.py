"""Exports load elsewhere: plain transformers for folders, onnxruntime for graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from pyfsb.config import Family
from pyfsb.data.vocabulary import write_tokenizer
from pyfsb.errors import CheckpointError, ConfigError, UnknownNameError
from pyfsb.models.building import build_config, build_model
from pyfsb.models.exporting import ONNX_NAME, _compare, export_model
from pyfsb.records import MODEL_FOLDER, describe_files, write_record
from pyfsb.registry import find_entry
from pyfsb.registry.sizes import tiny_config
from tests.helpers.models import PIECES, make_model, write_model
from tests.helpers.tokenizers import write_wordpiece
from tests.unit.models.test_cards import NAME, make_record


def write_checkpoint(folder: Path, family: Family = Family.FILL_MASK) -> Path:
    """Write a training folder: record and model."""
    model = write_model(folder / MODEL_FOLDER, NAME, family)
    files = describe_files(folder, list(model.iterdir()))
    write_record(make_record(family, files=files), str(folder))
    return folder


def test_hf_is_a_plain_folder_with_a_card(tmp_path: Path) -> None:
    names = export_model(str(write_checkpoint(tmp_path / "run")), "hf", tmp_path / "out")
    assert {"config.json", "model.safetensors", "README.md", "tokenizer.json"} <= set(names)
    assert "record.json" not in names
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval()
    ids = AutoTokenizer.from_pretrained(tmp_path / "out")("中国", return_tensors="pt")["input_ids"]
    expected = make_model(NAME, Family.FILL_MASK)(input_ids=ids).logits
    assert torch.equal(model(input_ids=ids).logits, expected)
    assert f"# {NAME}\n" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_a_folder_without_a_record_needs_a_name(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", NAME, Family.FILL_MASK)
    with pytest.raises(ConfigError, match="--model NAME"):
        export_model(str(folder), "hf", tmp_path / "out")
    with pytest.raises(UnknownNameError):
        export_model(str(folder), "hf", tmp_path / "out", model="Erlangshen-Nothing")
    assert not (tmp_path / "out").exists()
    export_model(str(folder), "hf", tmp_path / "out", model=NAME)
    with pytest.raises(ConfigError, match="is not empty"):
        export_model(str(folder), "hf", tmp_path / "out", model=NAME)
    with pytest.raises(ConfigError, match="expected one of hf, onnx"):
        export_model(str(folder), "gguf", tmp_path / "other", model=NAME)


def test_an_imported_folder_knows_its_name(tmp_path: Path) -> None:
    from pyfsb.models.importing import import_model

    folder = write_model(tmp_path / "from", NAME, Family.FILL_MASK)
    import_model(str(folder), NAME, tmp_path / "to")
    names = export_model(str(tmp_path / "to"), "hf", tmp_path / "out")
    assert "import.json" in names


def test_changed_weights_are_not_exported(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "run")
    path = folder / MODEL_FOLDER / "vocab.txt"
    path.write_text(path.read_text("utf-8") + "多\n", "utf-8")
    with pytest.raises(CheckpointError, match="differs from its record"):
        export_model(str(folder), "hf", tmp_path / "out")


def test_scores_of_the_run_stand_on_the_card(tmp_path: Path) -> None:
    from pyfsb.records import EvalReport, GateResult, read_record
    from tests.unit.models.test_cards import COMMON, make_score

    run = tmp_path / "evaluation"
    folder = write_checkpoint(run / "tnews" / "finetune-42", Family.FILL_MASK)
    digest = read_record(str(folder)).digest
    report = EvalReport(
        **COMMON, model=NAME, num_parameters=1, example={}, scores=(make_score(digest),),
        gate=GateResult(task="tnews", runner="finetune", has_passed=True, reason="", p_value=0.0),
    )  # fmt: skip
    write_record(report, str(run))
    export_model(str(folder), "hf", tmp_path / "out")
    assert "| tnews | accuracy | 0.5123 |" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_onnx_refuses_what_is_no_encoder(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", "Wenzhong-GPT2-110M", Family.GENERATE)
    with pytest.raises(ConfigError, match="not generate"):
        export_model(str(folder), "onnx", tmp_path / "out", model="Wenzhong-GPT2-110M")
    assert not (tmp_path / "out").exists()


def test_onnx_refuses_models_that_also_read_ngrams(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "model"
    write_wordpiece(folder, "zen1")
    entry = find_entry("Erlangshen-ZEN1-224M-Chinese")
    tiny = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20,
        "vocab_size": 200, "word_size": 9, "num_hidden_word_layers": 1,
    }  # fmt: skip
    config = build_config(entry, tiny, vocabulary=())
    build_model(config, Family.FILL_MASK, seed=1).save_pretrained(folder)
    with pytest.raises(ConfigError, match="also reads n-grams"):
        export_model(
            str(folder), "onnx", tmp_path / "out", model=entry.name, family=Family.FILL_MASK
        )


def test_a_catalogue_model_is_exported_by_its_name(tmp_path: Path) -> None:
    entry, folder = find_entry("Erlangshen-Roberta-110M-NLI"), tmp_path / "model"
    config = build_config(entry, tiny_config(entry), vocabulary=PIECES)
    build_model(config, Family.FILL_MASK, seed=0).save_pretrained(folder)
    write_tokenizer(PIECES, folder, lowercase=True)
    export_model(str(folder), "hf", tmp_path / "out", model="RoBERTa-wwm-ext")
    assert "RoBERTa-wwm-ext" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_a_card_never_says_what_the_folder_is_not(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", NAME, Family.FILL_MASK)
    with pytest.raises(ConfigError, match="is a megatron-bert, Wenzhong-GPT2-110M is a gpt2"):
        export_model(str(folder), "hf", tmp_path / "out", model="Wenzhong-GPT2-110M")
    with pytest.raises(ConfigError, match=r"holds a MegatronBertForMaskedLM; family pair is asked"):
        export_model(str(folder), "hf", tmp_path / "out", model=f"{NAME}-NLI")
    run = write_checkpoint(tmp_path / "run")
    with pytest.raises(ConfigError, match="asked of a MegatronBertForTokenClassification"):
        export_model(str(run), "hf", tmp_path / "out", family=Family.TAG)
    assert not (tmp_path / "out").exists()
    export_model(str(run), "hf", tmp_path / "out", family=Family.CHOOSE)


def test_onnx_without_its_packages_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    folder = write_model(tmp_path / "model", NAME, Family.FILL_MASK)
    with pytest.raises(ConfigError, match=r"pip install fengshenbang\[onnx\]"):
        export_model(str(folder), "onnx", tmp_path / "out", model=NAME)


def test_a_graph_that_differs_is_refused() -> None:
    pytest.importorskip("onnxruntime")
    from pyfsb.models.exporting import _Encoder

    class Wrong:
        def run(self, _: object, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            model = make_model(NAME, Family.FILL_MASK)
            ids = torch.from_numpy(feeds["input_ids"])
            return [model(input_ids=ids).logits.detach().numpy() + 1]

    encoder = _Encoder(make_model(NAME, Family.FILL_MASK), Family.FILL_MASK, has_types=False)
    with pytest.raises(CheckpointError, match="ONNX graph differs"):
        _compare(encoder, Wrong(), ("input_ids", "attention_mask"))


@pytest.mark.timeout(300)
def test_onnx_gives_the_same_logits(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    folder = write_model(tmp_path / "model", NAME, Family.FILL_MASK)
    names = export_model(str(folder), "onnx", tmp_path / "out", model=NAME)
    assert ONNX_NAME in names
    assert "model.safetensors" not in names
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / ONNX_NAME))
    inputs = AutoTokenizer.from_pretrained(tmp_path / "out")(
        ["中国人民", "我们在首都，好！"], padding=True, return_tensors="pt"
    )
    (logits,) = session.run(None, {name: inputs[name].numpy() for name in inputs})
    with torch.no_grad():
        expected = make_model(NAME, Family.FILL_MASK)(**inputs).logits
    assert torch.allclose(torch.from_numpy(logits), expected, atol=1e-5)
