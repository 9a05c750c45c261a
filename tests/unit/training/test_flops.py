# SPDX-License-Identifier: Apache-2.0
"""FLOPs and parameters: against counts by hand, and against what torch and Transformers count."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    CLIPTextModel,
    ViTForImageClassification,
)

from pyfsb.config import Family
from pyfsb.errors import ConfigError, UnknownNameError
from pyfsb.models.architectures import find_architecture
from pyfsb.models.building import untie_head
from pyfsb.registry.lookup import all_entries
from pyfsb.training.flops import FlopCounter, num_parameters
from tests.helpers.reference import ReferenceCase, reference_cases

TINY = {
    "bert": {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80},
    "megatron-bert": {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80},
    "deberta-v2": {
        "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80,
        "relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True,
        "pos_att_type": "c2p|p2c", "conv_kernel_size": 3, "conv_act": "gelu", "position_biased_input": False,
        "max_position_embeddings": 32,
    },
    "gpt2": {"vocab_size": 97, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 40},
    "llama": {
        "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 88,
        "num_key_value_heads": 2,
    },
    "t5": {"vocab_size": 97, "d_model": 32, "d_kv": 6, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4},
    "mt5": {"vocab_size": 97, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
    "bart": {
        "vocab_size": 97, "d_model": 32, "encoder_layers": 2, "decoder_layers": 3, "encoder_ffn_dim": 64, "decoder_ffn_dim": 72,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 40,
    },
    "pegasus": {
        "vocab_size": 97, "d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 72,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 40,
    },
    "roberta": {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80},
    "rope-longformer": {
        "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80,
        "use_sparse_attention": False,
    },
    "zhouwenwang": {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80},
    "zen1": {
        "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80,
        "num_hidden_word_layers": 2, "word_size": 50,
    },
    "zen2": {
        "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80,
        "num_hidden_word_layers": 2, "word_size": 50,
    },
    "ubert": {
        "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80,
        "biaffine_size": 12,
    },
    "uniex": {
        "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80,
        "triaffine_hidden_size": 12,
    },
    "megatron-t5": {
        "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "decoder_layers": 3, "num_attention_heads": 4,
        "head_dim": 6, "intermediate_size": 64,
    },
    "transfo-xl-denoise": {
        "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 72,
    },
    "vit": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "image_size": 20,
        "patch_size": 4, "num_labels": 7,
    },
    "taiyi-clip": {
        "projection_dim": 12,
        "text_config": {
            "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80,
        },
        "vision_config": {
            "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "image_size": 20,
            "patch_size": 4,
        },
    },
    "clip_text_model": {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
}  # fmt: skip
PAIRS = ("t5", "mt5", "bart", "pegasus", "megatron-t5")
# The module with the head of pretraining, the first that an architecture of ours has.
FAMILIES = (Family.FILL_MASK, Family.GENERATE, Family.REWRITE, Family.EXTRACT, Family.IMAGE_TEXT)


def build(architecture: str, config: dict, device: str = "meta") -> torch.nn.Module:
    own = find_architecture(architecture)
    settings = AutoConfig.for_model(architecture, **config)
    settings._attn_implementation = "eager"
    with torch.device(device):
        if own:
            found = (own.classes[family] for family in FAMILIES if family in own.classes)
            return next(found, own.base)(settings)
        if architecture == "clip_text_model":
            return CLIPTextModel(settings)
        if architecture == "vit":
            return ViTForImageClassification(settings)
        kinds = {"gpt2": AutoModelForCausalLM, "llama": AutoModelForCausalLM}
        kinds |= dict.fromkeys(PAIRS, AutoModelForSeq2SeqLM)
        model = kinds.get(architecture, AutoModelForMaskedLM).from_config(settings)
        if architecture == "mt5":
            untie_head(model)
        return model


@pytest.mark.parametrize("architecture", TINY)
@pytest.mark.parametrize("is_default", [False, True], ids=["tiny", "default"])
def test_parameters_are_those_of_the_built_model(architecture: str, is_default: bool) -> None:
    config = {} if is_default else TINY[architecture]
    model = build(architecture, config)
    expected = sum(parameter.numel() for parameter in model.parameters())
    assert num_parameters(architecture, config) == expected


@pytest.mark.parametrize("entry", all_entries(), ids=lambda entry: entry.name)
def test_parameters_of_registered_models(entry) -> None:
    counted = num_parameters(entry.architecture, entry.config)
    model = build(entry.architecture, dict(entry.config))
    assert counted == sum(parameter.numel() for parameter in model.parameters())


@reference_cases("taiyi_clip")
def test_parameters_are_those_of_the_original(case: ReferenceCase) -> None:
    tensors = {
        name: tensor for name, tensor in case.weights().items() if not name.endswith("position_ids")
    }
    expected = sum(tensor.numel() for tensor in tensors.values())
    assert num_parameters("taiyi-clip", case.config["model"]) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"share_att_key": False},
        {"position_biased_input": True, "type_vocab_size": 2, "conv_kernel_size": 0},
        {"position_buckets": -1, "norm_rel_ebd": "none"},
        {"relative_attention": False, "norm_rel_ebd": "none"},
        {"pos_att_type": "c2p", "share_att_key": False},
    ],
    ids=str,
)
def test_parameters_of_deberta_variants(changes: dict) -> None:
    config = {**TINY["deberta-v2"], **changes}
    expected = sum(parameter.numel() for parameter in build("deberta-v2", config).parameters())
    assert num_parameters("deberta-v2", config) == expected


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
        ("llama", {"head_dim": 12}),
        ("gpt2", {"n_inner": 50}),
    ],
    ids=str,
)
def test_parameters_of_other_variants(architecture: str, changes: dict) -> None:
    config = {**TINY[architecture], **changes}
    expected = sum(parameter.numel() for parameter in build(architecture, config).parameters())
    assert num_parameters(architecture, config) == expected


def torch_flops(architecture: str, rows: int, length: int, decoder_length: int) -> int:
    """Count the padded model's forward and backward with the head on every position."""
    ids = torch.zeros((rows, length), dtype=torch.long)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if architecture in PAIRS:
        inputs["decoder_input_ids"] = torch.zeros((rows, decoder_length), dtype=torch.long)
    return count_flops(architecture, inputs)


def count_flops(architecture: str, inputs: dict) -> int:
    model = build(architecture, TINY[architecture], "cpu")
    with FlopCounterMode(display=False) as counter:
        output = model(**inputs)
        (output.logits if hasattr(output, "logits") else output[0]).sum().backward()
    return counter.get_total_flops()


INEXACT = (
    "deberta-v2",
    "zen1",
    "zen2",
    "transfo-xl-denoise",
    "ubert",
    "uniex",
    "vit",
    "taiyi-clip",
)


@pytest.mark.parametrize("architecture", [name for name in TINY if name not in INEXACT])
def test_full_rows_count_as_torch_counts_them(architecture: str) -> None:
    rows, length, decoder_length = 3, 20, 12
    expected = torch_flops(architecture, rows, length, decoder_length)
    is_pair = architecture in PAIRS
    targets = rows * (decoder_length if is_pair else length)
    counted = FlopCounter.of(architecture, TINY[architecture]).count(
        [length] * rows, targets, decoder_lengths=[decoder_length] * rows if is_pair else None
    )
    if architecture == "llama":  # the rotary angles are a product of a few numbers there
        assert counted == pytest.approx(expected, rel=1e-3)
    else:
        assert counted == expected


def test_deberta_counts_as_torch_but_for_the_table_that_a_batch_projects_once() -> None:
    rows, length, layers, hidden, table = 3, 20, 2, 32, 16
    # The eager model projects the table to keys and queries in every layer, whatever the batch,
    # and multiplies its queries with every row; its convolution is no matrix product to torch.
    projections = 3 * 2 * layers * 2 * table * hidden * hidden
    counted = FlopCounter.of("deberta-v2", TINY["deberta-v2"]).count([length] * rows, rows * length)
    expected = torch_flops("deberta-v2", rows, length, 0) - projections
    assert counted == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("architecture", ["zen1", "zen2"])
def test_ngrams_count_as_torch_counts_them(architecture: str) -> None:
    rows, length, num_ngrams = 3, 20, 5  # a quarter of the tokens
    ids = torch.zeros((rows, length), dtype=torch.long)
    inputs = {
        "input_ids": ids, "attention_mask": torch.ones_like(ids),
        "input_ngram_ids": torch.ones((rows, num_ngrams), dtype=torch.long),
        "ngram_position_matrix": torch.ones(rows, length, num_ngrams),
    }  # fmt: skip
    # The pooler runs forward though no loss looks at it; the matrix has no gradient.
    hidden, layers = 32, 3
    pooler, matrix = 2 * rows * hidden**2, 2 * layers * rows * length * num_ngrams * hidden
    expected = count_flops(architecture, inputs) - pooler + matrix
    counted = FlopCounter.of(architecture, TINY[architecture]).count([length] * rows, rows * length)
    if architecture == "zen2":
        # Its code of distances has no gradient, and a row for one distance that never occurs.
        tokens = layers * rows * length * hidden, 2 * rows * num_ngrams * hidden
        expected += 2 * (tokens[0] * 2 * length + tokens[1] * 2 * num_ngrams)
        expected -= 6 * sum(tokens)
    assert counted == expected


def test_the_denoiser_counts_as_torch_but_for_the_code_that_a_batch_projects_once() -> None:
    rows, length, layers, hidden = 3, 20, 2, 32
    projections = 2 * 2 * layers * length * hidden**2  # forward and weights: the code is constant
    expected = torch_flops("transfo-xl-denoise", rows, length, 0) - projections
    counter = FlopCounter.of("transfo-xl-denoise", TINY["transfo-xl-denoise"])
    assert counter.count([length] * rows, rows * length) == expected


def test_images_count_as_torch_but_for_their_class_tokens() -> None:
    images = {"pixel_values": torch.zeros(3, 3, 20, 20)}
    counted = FlopCounter.of("vit", TINY["vit"]).count([26] * 3, 0)
    assert counted == pytest.approx(count_flops("vit", images), rel=0.03)


def test_windows_by_hand() -> None:
    """Two layers of width 4 that see 1 and 2 tokens to each side, in 5 tokens, then in 2."""
    config = {
        "vocab_size": 10, "hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 8, "attention_window": [2, 4],
    }  # fmt: skip
    full = FlopCounter.of("rope-longformer", config | {"use_sparse_attention": False})
    windowed = FlopCounter.of("rope-longformer", config)
    pairs = (5 + 2 * 4) + (5 + 2 * 4 + 2 * 3)
    assert full.parts([5], 1).attention == 6 * 2 * 4 * 2 * 25
    assert windowed.parts([5], 1).attention == 6 * 2 * 4 * pairs
    assert windowed.parts([2], 1) == full.parts([2], 1)


def test_an_image_beside_a_text_by_hand() -> None:
    text, image = (
        {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        for _ in range(2)
    )
    config = {"text_config": text, "vision_config": {**image, "image_size": 4, "patch_size": 2}}
    layer = 4 * 4 * 4 + 2 * 4 * 8
    expected = 3 * layer + 2 * 4 * 3**2 + 5 * (layer + 3 * 2 * 2 * 4) + 2 * 4 * 5**2
    assert FlopCounter.of("taiyi-clip", config).count([3], 0) == 6 * expected


def test_bert_by_hand() -> None:
    """Two documents of 3 and 5 tokens, two targets, one layer of width 4, 8 inner, vocabulary 10:
    queries, keys and values of every token, all behind them of the targets.
    """
    config = {
        "vocab_size": 10,
        "hidden_size": 4,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    linear = 8 * 3 * 4 * 4 + 2 * (4 * 4 + 2 * 4 * 8)
    attention = 2 * 4 * (3 * 3 + 5 * 5)
    head = 2 * (4 * 4 + 4 * 10)
    assert FlopCounter.of("bert", config).count([3, 5], 2) == 6 * (linear + attention + head)


def test_deberta_by_hand() -> None:
    """A document of 3 tokens reaches 5 distances of the 16 rows; one of 100 reaches all."""
    config = {
        **TINY["deberta-v2"],
        "num_hidden_layers": 1,
        "conv_kernel_size": 0,
        "max_position_embeddings": 128,
    }
    plain = {**config, "relative_attention": False, "norm_rel_ebd": "none"}
    more = FlopCounter.of("deberta-v2", config).count([3, 100], 0)
    less = FlopCounter.of("deberta-v2", plain).count([3, 100], 0)
    assert more - less == 6 * 2 * 32 * (3 * 5 + 100 * 16)


def test_t5_by_hand() -> None:
    config = {"vocab_size": 10, "d_model": 4, "d_kv": 3, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    encoder = 5 * (4 * 4 * 6 + 2 * 4 * 8) + 2 * 6 * 25
    decoder = 2 * (4 * 4 * 6 + 2 * 4 * 8) + 2 * 6 * 4
    cross = 2 * (2 * 4 * 6) + 5 * (2 * 4 * 6) + 2 * 6 * 5 * 2
    expected = 6 * (encoder + decoder + cross + 2 * 4 * 10)
    assert FlopCounter.of("t5", config).count([5], 2) == expected


def test_published_figures_per_token() -> None:
    """1.3B MegatronBERT 7.81, 3.5B GPT2 22.4 and 320M DeBERTa 2.19 GFLOP a token, head everywhere."""
    entries = {entry.name: entry for entry in all_entries()}
    for name, length, expected in (
        ("Erlangshen-MegatronBert-1.3B", 512, 7.81e9),
        ("Wenzhong-GPT2-3.5B", 1024, 22.4e9),
    ):
        entry = entries[name]
        counted = FlopCounter.of(entry.architecture, entry.config).per_token(length, 1.0)
        assert counted == pytest.approx(expected, rel=0.005)
    deberta = entries["Erlangshen-DeBERTa-v2-320M-Chinese"]
    counted = FlopCounter.of("deberta-v2", deberta.config).per_token(512, 1.0)
    # The convolution and the transform of the head are in ours.
    assert counted == pytest.approx(2.19e9 + 6 * (3 + 1) * 1024**2, rel=0.005)


def test_more_targets_cost_the_head_and_the_end_of_the_last_layer() -> None:
    counter = FlopCounter.of("gpt2", TINY["gpt2"])
    behind = 32 * 32 + 2 * 32 * 128
    assert counter.count([8], 8) - counter.count([8], 1) == 6 * 7 * (32 * 97 + behind)


def test_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="megatron-bert"):
        FlopCounter.of("megatronbert", {})


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="5 heads do not divide"):
        num_parameters("bert", {"num_attention_heads": 5})
    with pytest.raises(ConfigError, match="at least 1"):
        num_parameters("gpt2", {"n_layer": 0})
