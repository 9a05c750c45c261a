"""ZEN1 and ZEN2 beyond the reference: what may not leak, what is refused, published shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoModelForPreTraining

from pyfsb.config import Family
from pyfsb.errors import ConfigError, DataError
from pyfsb.models.architectures import find_architecture, zen1, zen2
from pyfsb.models.architectures.zen_layers import relative_sinusoids
from pyfsb.models.building import find_class
from pyfsb.models.heads import build_loss
from pyfsb.objectives import SpecialIds, WholeWord
from pyfsb.objectives.ngrams import WithNgrams
from pyfsb.objectives.protocol import Samples
from pyfsb.tokenizers.ngram_lexicon import NgramLexicon

TINY: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_hidden_word_layers": 2, "intermediate_size": 48, "word_size": 30, "num_labels": 3,
    "max_position_embeddings": 32,
}  # fmt: skip
MODULES = {"zen1": zen1, "zen2": zen2}
both = pytest.mark.parametrize("name", MODULES)
LENGTHS = torch.tensor([9, 6, 4])
NGRAMS = {
    "ngram_ids": torch.tensor([5, 6, 7, 5]),
    "ngram_starts": torch.tensor([1, 2, 5, 11]),
    "ngram_lengths": torch.tensor([2, 3, 2, 2]),
    "ngram_frequencies": torch.tensor([10, 30, 5, 10]),
    "ngram_counts": torch.tensor([3, 1, 0]),
}


def make(name: str, head: str = "ForMaskedLM", **changes: Any) -> Any:
    torch.manual_seed(3)
    config = MODULES[name].ARCHITECTURE.config(**(TINY | changes))
    model = getattr(MODULES[name], f"Z{name[1:]}{head}")(config)
    with torch.no_grad():  # the init is too small for differences to show
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


def rows(**changes: Any) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = (torch.arange(9) < LENGTHS[:, None]).long()
    ids = torch.randint(1, 50, mask.shape, generator=generator) * mask
    return {"input_ids": ids, "attention_mask": mask, **changes}


def states(
    model: Any, inputs: dict[str, Tensor], ngrams: dict[str, Tensor] | None = None
) -> Tensor:
    with torch.no_grad():
        more = model.pad_ngrams(lengths=LENGTHS, **ngrams) if ngrams else {}
        found: Tensor = model.base_model(**inputs, **more)[0]
    return found


@both
def test_ngrams_reach_all_and_only_their_document(name: str) -> None:
    model, inputs = make(name), rows()
    plain, with_ngrams = states(model, inputs), states(model, inputs, NGRAMS)
    changed = (plain - with_ngrams).abs().amax(-1) > 1e-6
    assert changed[0].all()
    assert changed[1, :6].all()
    assert not changed[2].any(), "a document without n-grams is that of a plain encoder"
    other = NGRAMS | {"ngram_ids": torch.tensor([5, 6, 7, 20])}
    assert torch.equal(states(model, inputs, other)[0], with_ngrams[0])
    assert not torch.allclose(states(model, inputs, other)[1], with_ngrams[1])


@both
def test_padding_changes_no_token(name: str) -> None:
    model, inputs = make(name), rows()
    together = states(model, inputs, NGRAMS)
    alone = {key: value[1:2, :6] for key, value in inputs.items()}
    own = {key: value[3:] if key != "ngram_counts" else value[1:2] for key, value in NGRAMS.items()}
    own["ngram_starts"] = own["ngram_starts"] - 9
    with torch.no_grad():
        padded = model.pad_ngrams(lengths=LENGTHS[1:2], **own, width=11)
        single = model.base_model(**alone, **padded)[0]
    assert torch.allclose(single[0], together[1, :6], atol=1e-5)
    filled = inputs | {"input_ids": inputs["input_ids"] + 7 * (1 - inputs["attention_mask"])}
    again = states(model, filled, NGRAMS)
    real = inputs["attention_mask"].bool()
    assert torch.equal(again[real], together[real])


@both
def test_a_position_matrix_says_what_covers_what(name: str) -> None:
    padded = make(name).pad_ngrams(lengths=LENGTHS, **NGRAMS)
    assert padded["input_ngram_ids"].tolist() == [[5, 6, 7], [5, 0, 0], [0, 0, 0]]
    assert padded["ngram_attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    matrix = padded["ngram_position_matrix"]
    assert matrix.shape == (3, 9, 3)
    weights = {"zen1": [1.0, 1.0], "zen2": [0.25, 0.75]}[name]
    assert matrix[0, 2, :2].tolist() == pytest.approx(weights)
    assert torch.nonzero(matrix[0, :, 1]).flatten().tolist() == [2, 3, 4]
    assert torch.nonzero(matrix[1]).tolist() == [[2, 0], [3, 0]]
    assert not matrix[2].any()


def test_legacy_integer_weights_keep_single_ngrams_only() -> None:
    model = make("zen2", legacy_integer_weights=True)
    matrix = model.pad_ngrams(lengths=LENGTHS, **NGRAMS)["ngram_position_matrix"]
    assert matrix[0, :, :2].tolist() == [
        [0, 0], [1, 0], [0, 0], [0, 1], [0, 1], [0, 0], [0, 0], [0, 0], [0, 0],
    ]  # fmt: skip


@both
def test_a_batch_without_ngrams_uses_every_weight(name: str) -> None:
    model = make(name).train()
    none = {key: value[:0] for key, value in NGRAMS.items()} | {
        "ngram_counts": torch.zeros(3, dtype=torch.int64)
    }
    inputs = rows() | model.pad_ngrams(lengths=LENGTHS, **none)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    model(**inputs, labels=labels).loss.backward()
    unused = [key for key, value in model.named_parameters() if value.grad is None]
    assert unused == [key for key in unused if "pooler" in key]


@both
def test_low_precision_stays_finite_where_there_is_no_ngram(name: str) -> None:
    model = make(name)
    inputs = rows() | model.pad_ngrams(lengths=LENGTHS, **NGRAMS)
    exact = model.base_model(**inputs)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.base_model(**inputs)[0]
    assert (found - exact).abs().mean() < 0.05
    half = model.to(torch.bfloat16).base_model(**inputs)[0]
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).abs().mean() < 0.05


@both
def test_the_loss_module_learns_from_an_objective(name: str) -> None:
    special = SpecialIds.of(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(45))])
    pairs = [[a, a + 1] for a in range(5, 30)]
    lexicon = NgramLexicon(
        [f"{i},{i + 1}" for i in range(25)], kind=name, encode=lambda _: pairs, unknown_id=1
    )
    ids = np.tile(np.arange(5, 30), 4)
    samples = Samples(
        ids_N=ids,
        words_N=np.ones(100, dtype=np.bool_),
        lengths_B=np.array([40, 35, 25]),
        sample_ids_B=np.arange(3),
        passes_B=np.zeros(3, dtype=np.int64),
    )
    inputs = WithNgrams(WholeWord(special, mask_ratio=0.15), lexicon).build(samples, seed=1)
    config = MODULES[name].ARCHITECTURE.config(
        **(TINY | {"max_position_embeddings": 64, "hidden_dropout_prob": 0.0})
    )
    torch.manual_seed(0)
    model = find_class(name, Family.FILL_MASK)(config)
    loss_module = build_loss(model, Family.FILL_MASK, "buckets")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        arguments = {key: torch.from_numpy(array) for key, array in inputs.arguments.items()}
        loss = loss_module(**arguments)
        losses.append(loss.item() / inputs.num_targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


@both
def test_relative_and_absolute_positions(name: str) -> None:
    model = make(name)
    ids = torch.tensor([[4, 4, 4, 9, 4]])
    found = model.base_model(ids)[0]
    assert not torch.allclose(found[0, 0], found[0, 1], atol=1e-4)
    moved = model.base_model(ids, position_ids=torch.arange(5)[None] + 3)[0]
    assert torch.allclose(moved, found, atol=1e-6) == (name == "zen2")
    if name == "zen1":
        with pytest.raises(ConfigError, match="text of 33 tokens; the model has 32 positions"):
            model.base_model(torch.ones(1, 33, dtype=torch.int64))
    else:
        assert model.base_model(torch.ones(1, 700, dtype=torch.int64))[0].isfinite().all()


def test_sinusoids_of_an_odd_width_end_with_zeros() -> None:
    table = relative_sinusoids(3, 5)
    assert table.shape == (6, 5)
    assert not table[:, 4].any()
    assert table[3].tolist() == [0, 0, 1, 1, 0]


@both
@pytest.mark.parametrize("family", [Family.FILL_MASK, Family.TAG, Family.ANSWER, Family.PAIR])
def test_saved_and_loaded_is_the_same(name: str, family: Family, tmp_path: Path) -> None:
    found = find_architecture(name)
    assert found
    torch.manual_seed(5)
    model = found.classes[family](found.config(**TINY)).eval()
    model.save_pretrained(tmp_path)
    again = found.classes[family].from_pretrained(tmp_path).eval()
    inputs = rows() | model.pad_ngrams(lengths=LENGTHS, **NGRAMS)
    for one, other in zip(model(**inputs).values(), again(**inputs).values(), strict=True):
        assert torch.equal(one, other)
    assert type(AutoConfig.from_pretrained(tmp_path)) is found.config
    assert isinstance(AutoModel.from_pretrained(tmp_path), found.base)


@both
def test_pretraining_weights_load_into_the_masked_model(name: str, tmp_path: Path) -> None:
    both_heads = make(name, "ForPreTraining")
    both_heads.save_pretrained(tmp_path)
    masked = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    again = AutoModelForPreTraining.from_pretrained(tmp_path).eval()
    inputs = rows() | masked.pad_ngrams(lengths=LENGTHS, **NGRAMS)
    logits = both_heads(**inputs).prediction_logits
    assert torch.equal(masked(**inputs).logits, logits)
    assert torch.equal(again(**inputs).prediction_logits, logits)
    hidden = masked.base_model(**inputs)[0]
    assert torch.equal(masked.lm_logits(hidden[:, 2]), logits[:, 2])


@both
def test_fresh_weights_are_drawn_and_tied(name: str) -> None:
    found = find_architecture(name)
    assert found
    model = found.classes[Family.FILL_MASK](found.config(**(TINY | {"hidden_size": 64})))
    head = model.get_output_embeddings()
    assert head.weight is model.get_input_embeddings().weight
    table = model.bert.word_embeddings.word_embeddings.weight
    assert float(table[1:].detach().std()) == pytest.approx(0.02, rel=0.1)
    assert not table[0].any()
    if name == "zen2":
        spread = torch.cat([
            getattr(layer.attention.self, f"{bias}_bias").flatten()
            for layer in model.bert.encoder.layer
            for bias in ("r_r", "r_w")
        ])  # fmt: skip
        assert float(spread.detach().std()) == pytest.approx((2 / (4 + 16)) ** 0.5, rel=0.15)
    model.resize_token_embeddings(60)
    assert model(torch.tensor([[55]])).logits.shape == (1, 1, 60)


@both
def test_checkpointing_gives_the_same_gradients(name: str) -> None:
    grads = []
    for checkpoints in (False, True):
        model = make(name, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
        if checkpoints:
            model.activation_checkpointing_enable({"use_reentrant": False})
        inputs = rows() | model.pad_ngrams(lengths=LENGTHS, **NGRAMS)
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        grads.append(model.bert.word_embeddings.word_embeddings.weight.grad)
    assert torch.allclose(*grads, atol=1e-6)


def test_legacy_masks_of_zen1_need_as_many_ngrams_as_tokens() -> None:
    model = make("zen1", "ForSequenceClassification", legacy_masks_by_position=True)
    inputs = rows() | model.pad_ngrams(lengths=LENGTHS, **NGRAMS)
    with pytest.raises(ConfigError, match="3 n-grams in rows of 9 tokens"):
        model(**inputs)
    wide = rows() | model.pad_ngrams(lengths=LENGTHS, **NGRAMS, width=9)
    right = make("zen1", "ForSequenceClassification")
    assert not torch.allclose(model(**wide).logits, right(**wide).logits, atol=1e-3)
    plain = rows()
    assert torch.equal(model(**plain).logits, right(input_ids=plain["input_ids"]).logits)


def test_legacy_ngrams_of_zen2_see_padding() -> None:
    legacy = make("zen2", "ForTokenClassification", legacy_unmasked_ngrams=True)
    right = make("zen2", "ForTokenClassification")
    narrow = rows() | right.pad_ngrams(lengths=LENGTHS, **NGRAMS)
    wide = rows() | right.pad_ngrams(lengths=LENGTHS, **NGRAMS, width=6)
    assert torch.allclose(right(**narrow).logits, right(**wide).logits, atol=1e-5)
    assert not torch.allclose(legacy(**narrow).logits, legacy(**wide).logits, atol=1e-3)
    for model in (legacy, right):  # its masked language model never had the defect
        assert model.config.has_legacy_masks == (model is legacy)
    assert not make("zen2", legacy_unmasked_ngrams=True).bert.has_legacy_masks
    assert make("zen1", legacy_masks_by_position=True).bert.has_legacy_masks
    assert not make("zen1", "ForPreTraining", legacy_masks_by_position=True).bert.has_legacy_masks


@both
def test_labels_of_padding_are_no_targets(name: str) -> None:
    model, inputs = make(name, "ForTokenClassification"), rows()
    labels = inputs["input_ids"] % 3
    loss = model(**inputs, labels=labels).loss
    logits = model(**inputs).logits[inputs["attention_mask"].bool()]
    wanted = torch.nn.functional.cross_entropy(logits, labels[inputs["attention_mask"].bool()])
    assert torch.allclose(loss, wanted)
    legacy = make(name, "ForTokenClassification", legacy_ignored_label=0)
    assert not torch.allclose(legacy(**inputs, labels=labels).loss, wanted)


@both
def test_answers_beyond_the_row_are_no_targets(name: str) -> None:
    model, inputs = make(name, "ForQuestionAnswering"), rows()
    places = torch.tensor([1, 99, 2])
    found = model(**inputs, start_positions=places, end_positions=places)
    kept = torch.tensor([0, 2])
    wanted = [
        torch.nn.functional.cross_entropy(logits[kept], places[kept])
        for logits in (found.start_logits, found.end_logits)
    ]
    assert torch.allclose(found.loss, torch.stack(wanted).mean())


def bad_config(name: str, **changes: Any) -> None:
    MODULES[name].ARCHITECTURE.config(**(TINY | changes))


@both
def test_what_does_not_fit_is_refused(name: str) -> None:
    model, inputs = make(name), rows()
    with pytest.raises(ConfigError, match="hidden_size = 30, num_attention_heads = 4"):
        bad_config(name, hidden_size=30)
    with pytest.raises(ConfigError, match="word_size = 0"):
        bad_config(name, word_size=0)
    with pytest.raises(DataError, match="n-gram id 30: the model has word_size = 30"):
        model.pad_ngrams(lengths=LENGTHS, **(NGRAMS | {"ngram_ids": torch.tensor([5, 30, 7, 5])}))
    with pytest.raises(DataError, match="leaves its document"):
        wrong = {"ngram_starts": torch.tensor([1, 2, 8, 11])}
        model.pad_ngrams(lengths=LENGTHS, **(NGRAMS | wrong))
    ngrams = model.pad_ngrams(lengths=LENGTHS, **NGRAMS)
    matrix = ngrams.pop("ngram_position_matrix")
    with pytest.raises(ConfigError, match="need both input_ngram_ids"):
        model(**inputs, **ngrams)
    with pytest.raises(ConfigError, match=r"\[3, 8, 3\] does not fit input_ids \[3, 9\]"):
        model(**inputs, **ngrams, ngram_position_matrix=matrix[:, :8])
    ngrams["input_ngram_ids"] = ngrams["input_ngram_ids"] + 25
    with pytest.raises(DataError, match="n-gram id 32"):
        model(**inputs, **ngrams, ngram_position_matrix=matrix)


def test_zen2_needs_frequencies_and_wide_heads() -> None:
    without = {key: value for key, value in NGRAMS.items() if key != "ngram_frequencies"}
    with pytest.raises(ConfigError, match="expected ngram_frequencies"):
        make("zen2").pad_ngrams(lengths=LENGTHS, **without)
    assert make("zen1").pad_ngrams(lengths=LENGTHS, **without)
    with pytest.raises(ConfigError, match="heads of 2 channels"):
        bad_config("zen2", num_attention_heads=16)
