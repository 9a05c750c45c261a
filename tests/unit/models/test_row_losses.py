"""Masks that hold, losses that depend on their sample alone, and training that learns."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    MegatronBertConfig,
    MegatronBertForMaskedLM,
    PreTrainedModel,
)

from pyfsb.errors import ConfigError, DataError
from pyfsb.models.architectures.ubert import UbertConfig, UbertForExtraction
from pyfsb.models.architectures.uniex import UniexConfig, UniexForExtraction
from pyfsb.models.architectures.unimc import masked_hidden
from pyfsb.models.row_losses import ChoiceLoss, ExtractionLoss, choice_logits
from pyfsb.models.row_objectives import build_choice_objective, build_extraction_objective
from pyfsb.objectives.extraction_ubert import UbertExtraction
from pyfsb.objectives.extraction_uniex import UniexExtraction
from pyfsb.objectives.multiple_choice import ChoiceSample
from pyfsb.training.row_source import RowSource
from tests.helpers.row_cases import tensors
from tests.helpers.row_texts import (
    TINY,
    choice_samples,
    draw_keys,
    extraction_samples,
    relation_samples,
    tiny_tokenize,
    tiny_tokenizer,
)

DEBERTA = {
    "relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm",
    "share_att_key": True, "pos_att_type": ["p2c", "c2p"], "conv_kernel_size": 3,
    "conv_act": "gelu", "position_biased_input": False, "type_vocab_size": 0, "legacy": False,
}  # fmt: skip
ENCODERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "bert": (BertForMaskedLM, BertConfig, {}),
    "megatron-bert": (MegatronBertForMaskedLM, MegatronBertConfig, {}),
    "deberta-v2": (DebertaV2ForMaskedLM, DebertaV2Config, DEBERTA),
    "albert": (AlbertForMaskedLM, AlbertConfig, {"embedding_size": 16}),
}
EXTRACTORS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "ubert": (UbertForExtraction, UbertConfig, {"biaffine_size": 24}),
    "ubert-legacy": (
        UbertForExtraction, UbertConfig, {"biaffine_size": 24, "legacy_cells": True}
    ),
    "uniex": (UniexForExtraction, UniexConfig, {"triaffine_hidden_size": 16}),
    "uniex-two-step": (
        UniexForExtraction, UniexConfig, {"triaffine_hidden_size": 16, "two_step": True}
    ),
    "uniex-legacy": (
        UniexForExtraction, UniexConfig, {"triaffine_hidden_size": 16, "legacy_cells": True}
    ),
}  # fmt: skip


def make(kinds: dict[str, Any], name: str, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(1)
    kind, config, settings = kinds[name]
    model: PreTrainedModel = kind(config(**{**TINY, **settings, **changes})).eval()
    return model


def choice_source(model: PreTrainedModel, samples: list[ChoiceSample] | None = None) -> RowSource:
    objective = build_choice_objective(model.config, tiny_tokenizer(), max_tokens=64)
    return RowSource(samples or choice_samples(), objective, tiny_tokenize(), seed=3)


def extraction_source(model: PreTrainedModel) -> RowSource:
    samples = extraction_samples() if model.config.model_type == "ubert" else relation_samples()
    objective = build_extraction_objective(
        model.config, tiny_tokenizer(), max_tokens=48, num_kinds=3
    )
    return RowSource(samples, objective, tiny_tokenize(), seed=3)


def batch_of(source: RowSource, numbers: list[int], data_pass: int = 0) -> dict[str, Tensor]:
    passes = np.full(len(numbers), data_pass)
    return dict(source.collate(np.array(numbers), passes).inputs)


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_an_option_never_sees_another_one(name: str) -> None:
    """In one layer; in the next an option sees what the text saw of the others."""
    changes = {"conv_kernel_size": 0} if name == "deberta-v2" else {}
    model = make(ENCODERS, name, num_hidden_layers=1, **changes)
    objective = build_choice_objective(model.config, tiny_tokenizer(), max_tokens=64)
    sample = ChoiceSample(text="这店很好", options=("李白", "杜甫", "体育"), question="好？")
    changed = ChoiceSample(text="这店很好", options=("李白", "长安", "体育"), question="好？")
    rows = [objective.encode(item, tiny_tokenize()) for item in (sample, changed)]
    batch = tensors(objective.collate_inputs(rows))
    inputs = {
        name: batch[name] for name in ("input_ids", "visible", "position_ids", "token_type_ids")
    }
    first, second = masked_hidden(model, **inputs)
    slots = [*rows[0].slots_S.tolist(), rows[0].zone_end]
    for number, (start, end) in enumerate(itertools.pairwise(slots)):
        same = torch.equal(first[start:end], second[start:end])
        assert same == (number != 1), number
    assert not torch.equal(first[rows[0].zone_end :], second[rows[0].zone_end :])


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_where_everything_is_seen_states_are_the_stock_ones(name: str) -> None:
    model = make(ENCODERS, name)
    ids = torch.randint(5, 60, (2, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1] * 12, [1] * 9 + [0] * 3])
    visible = (mask[:, :, None] & mask[:, None]).bool()
    found = masked_hidden(
        model, input_ids=ids, visible=visible, position_ids=torch.arange(12).expand(2, -1)
    )
    stock = model.base_model(input_ids=ids, attention_mask=mask)[0]
    torch.testing.assert_close(found[mask.bool()], stock[mask.bool()], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_stands_at_the_same_place_scores_the_same() -> None:
    """Options that share positions and do not see each other: their order does not matter."""
    model = make(ENCODERS, "bert")
    objective = build_choice_objective(model.config, tiny_tokenizer(), max_tokens=64)
    logits = []
    for options in (("李白", "杜甫诗", "体育"), ("体育", "李白", "杜甫诗")):
        row = objective.encode(ChoiceSample(text="这店很好", options=options), tiny_tokenize())
        scores = choice_logits(model, tensors(objective.collate_inputs([row])))[0]
        logits.append(dict(zip(options, scores.tolist(), strict=True)))
    assert logits[0] == pytest.approx(logits[1], abs=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_padding_changes_nothing(name: str) -> None:
    model = make(ENCODERS, name)
    source, loss = choice_source(model), ChoiceLoss(model)
    alone = [float(loss(**batch_of(source, [number]))) for number in range(4)]
    assert float(loss(**batch_of(source, [0, 1, 2, 3]))) == pytest.approx(sum(alone), rel=1e-5)


@pytest.mark.parametrize("name", EXTRACTORS)
@torch.no_grad()
def test_extraction_losses_count_samples_alone(name: str) -> None:
    model = make(EXTRACTORS, name)
    source, loss = extraction_source(model), ExtractionLoss(model)
    numbers = list(range(source.lengths.size))
    alone = [float(loss(**batch_of(source, [number]))) for number in numbers]
    together = float(loss(**batch_of(source, numbers)))
    assert together > 0
    # The original's mean over all cells depends on the padding of the batch.
    is_same = together == pytest.approx(sum(alone), rel=1e-4)
    assert is_same == (name != "uniex-legacy")


def set_loss(wrong: list[float], right: list[float]) -> float:
    return math.log1p(sum(map(math.exp, wrong))) + math.log1p(sum(math.exp(-x) for x in right))


def cell_loss(logit: float, is_right: bool) -> float:
    return math.log1p(math.exp(-logit if is_right else logit))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@torch.no_grad()
def test_ubert_scores_cells_of_the_text_kind_by_kind() -> None:
    """The formula, written out: kinds of other lengths are compared at the same tokens."""
    model = make(EXTRACTORS, "ubert")
    objective = build_extraction_objective(model.config, tiny_tokenizer(), max_tokens=48)
    assert isinstance(objective, UbertExtraction)
    sample = dataclasses.replace(extraction_samples()[0], kinds=("人", "长安地", "书"))
    encoded = objective.encode(sample, tiny_tokenize())
    squares = []
    for row in encoded.rows:
        batch = tensors(objective.collate_inputs([row]))
        logits = model(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]).logits
        place = slice(row.first, row.first + row.num_scored)
        squares.append(logits[0, place, place].tolist())
    size = encoded.rows[0].num_scored
    cells = [(first, last) for first in range(size) for last in range(first, size)]
    right = [set(row.cells) for row in encoded.rows]
    values = [[square[first][last] for first, last in cells] for square in squares]
    of_cells = [
        cell_loss(v, c in r)
        for vs, r in zip(values, right, strict=True)
        for v, c in zip(vs, cells, strict=True)
    ]
    of_rows = [
        set_loss(
            [v for v, c in zip(vs, cells, strict=True) if c not in r],
            [v for v, c in zip(vs, cells, strict=True) if c in r],
        )
        for vs, r in zip(values, right, strict=True)
    ]
    of_kinds = [
        set_loss(
            [vs[n] for vs, r in zip(values, right, strict=True) if c not in r],
            [vs[n] for vs, r in zip(values, right, strict=True) if c in r],
        )
        for n, c in enumerate(cells)
    ]
    expected = 10 * (100 * mean(of_cells) + mean(of_rows) + mean(of_kinds))
    found = ExtractionLoss(model)(**tensors(objective.collate([encoded], draw_keys(1)).arrays))
    assert float(found) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["uniex", "uniex-two-step"])
@torch.no_grad()
def test_uniex_scores_cells_of_the_text(name: str) -> None:
    model = make(EXTRACTORS, name)
    objective = build_extraction_objective(model.config, tiny_tokenizer(), max_tokens=48)
    assert isinstance(objective, UniexExtraction)
    row = objective.encode(relation_samples()[0], tiny_tokenize())
    batch = tensors(objective.collate_inputs([row]))
    text = torch.arange(row.num_text)[None] + row.query_end + 1
    inputs = [batch[key] for key in ("input_ids", "visible", "position_ids", "label_positions")]
    cube = model(*inputs, text).logits[0]
    starts, ends = ({span[side] for span in row.spans} for side in (0, 1))
    index, kinds = [], []
    for first, last, slot in itertools.product(range(row.num_text), range(row.num_text), range(6)):
        value = cell_loss(float(cube[first, last, slot]), (first, last, slot) in row.cells)
        if slot == 0:
            index += [value] if first <= last else []
        elif name == "uniex":
            kinds += [value] if first <= last or slot > 3 else []
        elif slot <= 3:
            kinds += [value] if (first, last) in row.spans else []
        elif {first, last} <= starts or {first, last} <= ends:
            kinds.append(value)
    found = ExtractionLoss(model)(**tensors(objective.collate([row], draw_keys(1)).arrays))
    assert float(found) == pytest.approx(1e5 * (mean(index) + mean(kinds)), rel=1e-4)


@torch.no_grad()
def test_a_choice_costs_its_slots_and_the_right_option() -> None:
    model = make(ENCODERS, "bert")
    objective = build_choice_objective(
        model.config, tiny_tokenizer(), max_tokens=64, hides_tokens=False
    )
    row = objective.encode(choice_samples()[1], tiny_tokenize())
    batch = tensors(objective.collate_inputs([row]))
    inputs = {key: batch[key] for key in ("input_ids", "visible", "position_ids", "token_type_ids")}
    hidden = masked_hidden(model, **inputs)[0]
    scores = model.cls(hidden[torch.from_numpy(row.slots_S).long()]).log_softmax(-1)
    words = [objective.yes_id if n == row.answer else objective.no_id for n in range(3)]
    slots = -mean([float(scores[n, word]) for n, word in enumerate(words)])
    yes = choice_logits(model, batch)[0].log_softmax(-1)
    found = ChoiceLoss(model)(**tensors(objective.collate([row], draw_keys(1)).arrays))
    assert float(found) == pytest.approx(slots - float(yes[1]), rel=1e-5)


@pytest.mark.parametrize(
    ("kinds", "name"), [(ENCODERS, n) for n in ENCODERS] + [(EXTRACTORS, n) for n in EXTRACTORS]
)
def test_twenty_steps_lower_the_loss(kinds: dict[str, Any], name: str) -> None:
    model = make(kinds, name)
    is_choice = kinds is ENCODERS
    source = choice_source(model) if is_choice else extraction_source(model)
    loss = (ChoiceLoss if is_choice else ExtractionLoss)(
        model, checkpoints_activations=name == "bert"
    )
    numbers = list(range(source.lengths.size))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    losses = []
    for step in range(20):
        batch = source.collate(np.array(numbers), np.full(len(numbers), step % 3))
        value = loss(**batch.inputs) / batch.num_targets
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(value.detach()))
    assert losses[-1] < losses[0] * 0.7, losses
    unused = [n for n, p in model.named_parameters() if p.grad is None]
    assert all("position_embeddings" in name or "pooler" in name for name in unused), unused


def test_weights_begin_small_and_come_back(tmp_path: Path) -> None:
    for name, head in (("ubert", "biaffine_query_key_cls.U"), ("uniex", "triaffine.weight")):
        model = make(EXTRACTORS, name)
        weight = dict(model.named_parameters())[head]
        assert float(weight.detach().std()) == pytest.approx(0.1, rel=0.1)
        model.save_pretrained(tmp_path / name)
        again = type(model).from_pretrained(tmp_path / name)
        for key, value in model.state_dict().items():
            assert torch.equal(value, again.state_dict()[key]), key


def test_layouts_without_padding_are_refused() -> None:
    for layout in ("flat", "packed"):
        with pytest.raises(ConfigError, match=f"batch.layout = {layout}: rows of choices"):
            ChoiceLoss(make(ENCODERS, "bert"), layout=layout)  # type: ignore[arg-type]


def test_other_models_have_no_extraction_loss() -> None:
    with pytest.raises(ConfigError, match="bert has no loss for family extract"):
        ExtractionLoss(make(ENCODERS, "bert"))(input_ids=torch.zeros(1, 1))
    with pytest.raises(ConfigError, match="bert does not extract; expected ubert or uniex"):
        build_extraction_objective(BertConfig(**TINY), tiny_tokenizer(), max_tokens=64)


def test_a_sample_that_does_not_fit_is_named() -> None:
    samples = [*choice_samples(), ChoiceSample(text="好", options=("好", "坏" * 70), answer=0)]
    with pytest.raises(DataError, match=r"sample 4: option 1 \('坏{20}'\) has 70 tokens"):
        choice_source(make(ENCODERS, "bert"), samples)
    with pytest.raises(DataError, match="a question to train on has no answer"):
        source = choice_source(
            make(ENCODERS, "bert"), [ChoiceSample(text="好", options=("好", "坏"))]
        )
        batch_of(source, [0])


def test_batches_are_the_same_every_time_and_differ_by_pass() -> None:
    source = choice_source(make(ENCODERS, "bert"), choice_samples() * 6)
    numbers = list(range(24))
    first, again = batch_of(source, numbers), batch_of(source, numbers)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["input_ids"], batch_of(source, numbers, 1)["input_ids"])
    assert source.lengths.tolist() == [int(n) for n in source.lengths]
    assert draw_keys(2)[1].sample_id == 1
