from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from pyfsb import records, storage
from pyfsb.config import Family
from pyfsb.data.tokenizer_files import read_pieces_of
from pyfsb.data.vocabulary import write_tokenizer
from pyfsb.errors import CheckpointError, ConfigError, UnknownNameError
from pyfsb.models.building import build_config, build_model, shares_head
from pyfsb.models.loading import (
    check_fits,
    find_weights,
    load_model,
    load_tokenizer,
    open_weights,
)
from pyfsb.models.vocabulary_surgery import extend_model
from pyfsb.records import CheckpointRecord
from pyfsb.registry import find_entry
from tests.helpers.models import ENCODERS, MODELS, PIECES, make_model, write_model
from tests.helpers.specs import TINY_CONFIGS

MEGATRON = MODELS[0]


def family_of(name: str) -> Family:
    return Family.FILL_MASK if name in ENCODERS else Family.GENERATE


def test_a_causal_model_does_not_see_the_future() -> None:
    model = make_model("Wenzhong-GPT2-110M", Family.GENERATE)
    ids = torch.randint(5, len(PIECES), (1, 10))
    changed = ids.clone()
    changed[0, 6:] = 5
    with torch.no_grad():
        before = model(input_ids=ids).logits[0, :6]
        after = model(input_ids=changed).logits[0, :6]
    torch.testing.assert_close(before, after)


def test_weights_depend_on_the_seed_only() -> None:
    config = build_config(find_entry(MEGATRON), TINY_CONFIGS[MEGATRON], vocabulary=PIECES)
    torch.manual_seed(77)
    first = build_model(config, Family.FILL_MASK, seed=3)
    second = build_model(config, Family.FILL_MASK, seed=3)
    other = build_model(config, Family.FILL_MASK, seed=4)
    weights = [next(iter(model.parameters())) for model in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"hiden_size": 3}, "megatron-bert has no such field; did you mean 'hidden_size'"),
        ({"hidden_size": 30, "num_attention_heads": 4}, "does not fit megatron-bert"),
        ({"vocab_size": 7}, "vocab_size = 7: the vocabulary has"),
    ],
)
def test_overrides_that_break_the_architecture(overrides: dict[str, int], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config = build_config(find_entry(MEGATRON), overrides, vocabulary=PIECES)
        build_model(config, Family.FILL_MASK, seed=1)
    assert text in str(caught.value)


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_comes_back_equal_also_through_transformers(
    name: str, tmp_path: Path
) -> None:
    family = family_of(name)
    write_model(tmp_path, name, family)
    model, ids = make_model(name, family), torch.tensor([[2, 6, 7, 4, 3]])
    theirs = (AutoModelForMaskedLM if name in ENCODERS else AutoModelForCausalLM).from_pretrained(
        tmp_path
    )
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        for loaded in (load_model(tmp_path, family).eval(), theirs.eval()):
            assert torch.equal(loaded(input_ids=ids).logits, expected)
    assert read_pieces_of(tmp_path) == PIECES
    assert load_tokenizer(tmp_path)("中国")["input_ids"] == [2, 5, 6, 3]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("family", [Family.CLASSIFY, Family.TAG])
def test_a_new_head_grows_on_a_language_model(name: str, family: Family, tmp_path: Path) -> None:
    write_model(tmp_path, name, family_of(name))
    labels = ["a", "b", "c"]
    one, two = (load_model(tmp_path, family, seed=5, labels=labels) for _ in range(2))
    assert one.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_missing_weights_are_counted_and_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    write_model(tmp_path, MEGATRON, Family.FILL_MASK)
    tensors = load_file(tmp_path / "model.safetensors")
    kept = {key: value for key, value in tensors.items() if "attention" not in key}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"weights of megatron-bert .*are missing, such as bert"
    ):
        load_model(tmp_path, Family.FILL_MASK)


def test_broken_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no config.json; expected a Hugging Face"):
        load_model(tmp_path, Family.FILL_MASK)
    write_model(tmp_path, MEGATRON, Family.FILL_MASK)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot load the weights"):
        load_model(tmp_path, Family.FILL_MASK)
    weights.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"no model.safetensors \(pytorch_model.bin\)"):
        load_model(tmp_path, Family.FILL_MASK)


def test_names_and_places_are_told_apart(tmp_path: Path) -> None:
    assert find_weights(str(tmp_path)) == tmp_path
    with pytest.raises(CheckpointError, match="no such folder"):
        find_weights("runs/nothing/here")
    with pytest.raises(UnknownNameError, match="did you mean"):
        find_weights("Erlangshen-MegatronBert-13B")


def test_hub_weights_are_found_offline_and_pickles_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="in no local cache, and HF_HUB_OFFLINE is set"):
        find_weights(MEGATRON)
    base = tmp_path / "models--IDEA-CCNL--Erlangshen-MegatronBert-1.3B"
    snapshot = base / "snapshots/abc"
    snapshot.mkdir(parents=True)
    (base / "refs").mkdir()
    (base / "refs/main").write_text("abc")
    (snapshot / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match="publishes no safetensors"):
        find_weights(MEGATRON)
    write_model(snapshot, MEGATRON, Family.FILL_MASK)
    assert find_weights(MEGATRON) == snapshot


def test_half_precision_weights_are_loaded_in_full(tmp_path: Path) -> None:
    make_model(MODELS[0], Family.FILL_MASK).half().save_pretrained(tmp_path)
    write_tokenizer(PIECES, tmp_path, lowercase=True)
    model = load_model(tmp_path, Family.FILL_MASK)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_tokenizer_with_more_pieces_than_the_model_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", MODELS[0], Family.FILL_MASK)
    check_fits(load_model(folder, Family.FILL_MASK), load_tokenizer(folder), folder)
    write_tokenizer([*PIECES, "新"], folder, lowercase=True)
    model, tokenizer = load_model(folder, Family.FILL_MASK), load_tokenizer(folder)
    text = f"the tokenizer has {len(PIECES) + 1} pieces, the model {len(PIECES)} embeddings"
    with pytest.raises(CheckpointError, match=text):
        check_fits(model, tokenizer, folder)


def test_a_config_of_no_architecture_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", MODELS[0], Family.FILL_MASK)
    (folder / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"cannot use its config.json"):
        load_model(folder, Family.FILL_MASK)


def write_checkpoint(folder: Path) -> Path:
    """Write a training folder with a record."""
    write_model(folder / "model", MEGATRON, Family.FILL_MASK)
    record = CheckpointRecord(
        run="r", created_at="x", seconds=1.0, config_hash="", seeds=(1,), model=MEGATRON,
        architecture="megatron-bert", family="fill_mask", objective="whole_word",
        num_parameters=1, step=1, num_samples=1, num_tokens=1, loss=None, max_tokens=64,
        vocabulary_digest="", files=records.describe_files(folder, (folder / "model").iterdir()),
    )  # fmt: skip
    records.write_record(record, str(folder))
    return folder


def test_weights_are_checked_against_their_record(tmp_path: Path) -> None:
    run = write_checkpoint(tmp_path / "run")
    found = open_weights(str(run))
    assert (found.model_folder, found.folder) == (run / "model", run)
    assert found.record
    link = found.link(base=str(tmp_path / "run/evaluation"), root=str(tmp_path / "run"))
    assert (link.kind, link.digest) == ("CheckpointRecord", found.record.digest)
    with (run / "model/config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(CheckpointError, match="config.json differs from its record"):
        open_weights(str(run))


def test_a_folder_without_record_is_linked_by_its_bytes(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", MEGATRON, Family.FILL_MASK)
    found = open_weights(str(folder))
    link = found.link(base=str(tmp_path / "run"), root=str(tmp_path / "run"))
    assert (found.record, found.model_folder) == (None, folder)
    assert (link.kind, link.digest) == ("ModelFolder", records.describe_weights(folder))


def test_of_a_checkpoint_on_s3_the_training_states_stay_there(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_checkpoint(tmp_path / "run")
    (run / "state").mkdir()
    (run / "state/large.safetensors").write_bytes(b"x")
    for path in sorted(run.rglob("*")):
        if path.is_file():
            storage.upload(path, f"{s3}/training/{path.relative_to(run).as_posix()}")
    found = open_weights(f"{s3}/training")
    assert load_model(found.model_folder, Family.FILL_MASK)
    assert found.uri == f"{s3}/training"
    assert not (found.folder / "state").exists()


def test_mt5_keeps_a_head_of_its_own_through_saving_and_loading(tmp_path: Path) -> None:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 20, "num_layers": 1, "num_heads": 2}
    config = build_config(find_entry("Randeng-T5-77M"), sizes, vocabulary=())
    config.vocab_size = 40
    model = build_model(config, Family.REWRITE, seed=1)
    assert not shares_head(model)
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, Family.REWRITE)
    assert not shares_head(loaded)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    extended = extend_model(loaded, {40: [3], 41: [5, 6]}, num_old=40)
    assert not shares_head(extended)
    assert torch.equal(extended.lm_head.weight[:40], model.lm_head.weight)
    assert torch.equal(extended.shared.weight[:40], model.shared.weight)


def test_a_folder_without_the_head_may_be_trained_but_not_asked(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", MEGATRON, Family.FILL_MASK)
    assert load_model(folder, Family.CLASSIFY, labels=("a", "b")).config.num_labels == 2
    with pytest.raises(CheckpointError, match=r"family classify are missing, such as .*fine-tune"):
        load_model(folder, Family.CLASSIFY, is_whole=True)
    assert load_model(folder, Family.FILL_MASK, is_whole=True)
    assert load_model(folder, Family.EMBED, is_whole=True)


def test_a_stock_architecture_without_a_head_says_so_in_one_line(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", MEGATRON, Family.FILL_MASK)
    with pytest.raises(ConfigError, match="^megatron-bert has no head for family rewrite$"):
        load_model(folder, Family.REWRITE)


@pytest.mark.parametrize(
    "broken", [{"num_attention_heads": 0}, {"hidden_size": "a"}, {"hidden_act": "nonsense"}]
)
def test_a_folder_whose_config_is_broken(broken: dict[str, object], tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", MEGATRON, Family.FILL_MASK)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **broken}))
    with pytest.raises(CheckpointError, match="cannot use its config.json|cannot load"):
        load_model(folder, Family.FILL_MASK)
