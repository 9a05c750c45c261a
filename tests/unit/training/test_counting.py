"""FLOPs of batches: documents as the model reads them, not samples as the corpus holds them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pyfsb.registry import find_entry
from pyfsb.registry.sizes import tiny_config
from pyfsb.training.counting import count_flops, document_lengths
from pyfsb.training.flops import FlopCounter
from pyfsb.training.protocol import Batch


def counter(name: str) -> FlopCounter:
    entry = find_entry(name)
    config = {**entry.config, **tiny_config(entry), "vocab_size": 400}
    return FlopCounter.of(entry.architecture, config)


def batch(num_targets: int, **inputs: Any) -> Batch:
    tensors = {name: torch.tensor(value) for name, value in inputs.items()}
    return Batch(inputs=tensors, num_targets=num_targets, num_tokens=1)


def test_documents_count_as_long_as_they_are_and_dummies_do_not() -> None:
    flops = counter("Randeng-Transformer-1.1B-Denoise")
    real = batch(4, lengths=[50, 30], target_positions=[40, 41, 70, 71])
    dummy = batch(0, lengths=[50], target_positions=[40])
    assert count_flops(flops, [(real, True), (dummy, False)]) == flops.count([50, 30], 4)


def test_labels_of_sentences_pass_no_vocabulary() -> None:
    flops = counter("Erlangshen-MegatronBert-1.3B")
    found = batch(2 + 77, lengths=[20], target_positions=[3, 4], sentence_weights=[77])
    assert count_flops(flops, [(found, True)]) == flops.count([20], 2)


def test_decoders_count_their_own_tokens() -> None:
    flops = counter("Randeng-BART-139M")
    found = batch(7, lengths=[9, 8], decoder_lengths=[4, 3], target_positions=list(range(7)))
    expected = flops.count([9, 8], 7, decoder_lengths=[4, 3])
    assert count_flops(flops, [(found, True)]) == expected
    assert expected != flops.count([9, 8], 7, decoder_lengths=[6, 1])


@pytest.mark.parametrize(
    ("inputs", "lengths"),
    [
        ({"attention_mask": [[1, 1, 0], [1, 1, 1]]}, [2, 3]),
        ({"attention_mask": [[[1, 1, 0], [1, 0, 0]]]}, [2, 1]),
        ({"visible": [[[True, False], [False, False]], [[True, True], [True, True]]]}, [1, 2]),
        ({"pair_weights": [1.0], "attention_mask": [[1, 1]]}, None),
        ({"pixels": [1.0]}, None),
    ],
)
def test_rows_tell_their_lengths(inputs: dict[str, Any], lengths: list[int] | None) -> None:
    found = document_lengths(batch(1, **inputs).inputs)
    assert (found if found is None else found.tolist()) == lengths
    flops = counter("Erlangshen-Ubert-110M-Chinese")
    expected = None if lengths is None else flops.count(lengths, 1)
    assert count_flops(flops, [(batch(1, **inputs), True)]) == expected
