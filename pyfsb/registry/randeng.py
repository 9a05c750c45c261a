# SPDX-License-Identifier: Apache-2.0
"""Randeng (燃灯): text to text, by encoder-decoders and one denoising decoder. Data only.

The Pegasus models are in `randeng_pegasus`.
"""

from __future__ import annotations

from typing import Final

from pyfsb.config import Family, ObjectiveName
from pyfsb.registry.entry import ConfigValues, ModelEntry
from pyfsb.registry.facts import (
    CARD,
    DOCUMENTS,
    EXAMPLES,
    FIRST_CARD,
    HUB_FILES,
    README,
    WUDAO_180,
    claims,
    scores,
)
from pyfsb.registry.taxonomy import Demand, Series, Task

_BART: Final[ConfigValues] = {
    "max_position_embeddings": 1024,
    "activation_function": "gelu",
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "init_std": 0.02,
}
_BART_BASE: Final[ConfigValues] = {
    **_BART,
    "vocab_size": 40000,
    "d_model": 768,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 12,
    "decoder_attention_heads": 12,
    "encoder_ffn_dim": 3072,
    "decoder_ffn_dim": 3072,
}
_BART_BASE_NOTE: Final = (
    "Named after English BART-base, whose 50,265 pieces make 139 M; its own 40,000 make 132 M."
)
_BART_ISSUES: Final = ("Loads as a T5 tokenizer, which puts no <s> in front: the caller has to.",)
_MT5: Final[ConfigValues] = {
    "vocab_size": 32596,
    "d_kv": 64,
    "feed_forward_proj": "gated-gelu",
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "dropout_rate": 0.1,
    "layer_norm_epsilon": 1e-6,
}
_MT5_ISSUES: Final = (
    "Its sentinels are pieces of the SentencePiece file: load with extra_ids = 0.",
    "Full-width commas become ASCII ones and Chinese quotes are lost in the tokenizer's own "
    "normalisation (FS#405, FS#320).",
)
_MT5_CHOICES: Final = (
    "max_tokens = 512: the length of pretraining; relative positions set no limit",
)

_QA: Final = f"{EXAMPLES}/qa_t5/README.md, of the fine-tuned Randeng-T5-784M-QA-Chinese"

ENTRIES: Final = (
    ModelEntry(
        name="Randeng-BART-139M", paper_number=24,
        series=Series.RANDENG, demand=Demand.GENERAL, task=Task.NLT, family=Family.REWRITE,
        other_families=(Family.FILL_MASK,),
        architecture="bart", config=_BART_BASE,
        num_parameters=139_000_000, size_note=_BART_BASE_NOTE, built_parameters=131_500_000,
        max_tokens=1024,
        objective=ObjectiveName.TEXT_INFILLING, tokenizer="sentencepiece_bpe",
        hub_id="IDEA-CCNL/Randeng-BART-139M", aliases=("燃灯-BART-139M",),
        card=f"{DOCUMENTS}/燃灯系列/Randeng-BART-139M.md",
        claims=claims(
            WUDAO_180, ("compute", "8 A100 for 3 days", CARD),
            ("compute", "8 A100-40G for 56 hours", FIRST_CARD),
            ("vocabulary", "40,000 pieces, coverage 0.9995, at most 6 characters, by the name of "
             "its file", CARD),
            ("length", "1,024 tokens", CARD),
            ("length", "512 tokens in the script", f"{EXAMPLES}/pretrain_randeng_bart"),
            ("training", "text infilling of 15 %, learning rate 1e-5, weight decay 0.1", CARD),
        ),
        known_issues=_BART_ISSUES,
        source="published config.json; vocabulary from the documentation",
    ),
    ModelEntry(
        name="Randeng-BART-139M-SUMMARY", paper_number=25,
        series=Series.RANDENG, demand=Demand.GENERAL, task=Task.NLT, family=Family.REWRITE,
        architecture="bart", config={**_BART_BASE, "prompt_template": "summary:{text}"},
        num_parameters=139_000_000, size_note=_BART_BASE_NOTE, built_parameters=131_500_000,
        max_tokens=1024,
        objective=ObjectiveName.REWRITING, tokenizer="sentencepiece_bpe",
        hub_id="IDEA-CCNL/Randeng-BART-139M-SUMMARY", parent="Randeng-BART-139M",
        card=f"{DOCUMENTS}/燃灯系列/Randeng-BART-139M-SUMMARY.md",
        claims=claims(
            ("data", "LCSTS", CARD), ("prompt", "the example's input starts with `summary:`", CARD),
        ),
        known_issues=_BART_ISSUES,
        source="published config.json; vocabulary from the documentation",
    ),
    ModelEntry(
        name="Randeng-BART-759M-Chinese-BertTokenizer", paper_number=26,
        series=Series.RANDENG, demand=Demand.GENERAL, task=Task.NLT, family=Family.REWRITE,
        other_families=(Family.FILL_MASK,),
        architecture="bart",
        config={
            **_BART, "vocab_size": 50265, "d_model": 1024, "encoder_layers": 24,
            "decoder_layers": 24, "encoder_attention_heads": 16, "decoder_attention_heads": 16,
            "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096,
        },
        num_parameters=759_000_000, max_tokens=1024,
        objective=ObjectiveName.TEXT_INFILLING, tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Randeng-BART-759M-Chinese-BertTokenizer",
        card=f"{DOCUMENTS}/燃灯系列/Randeng-BART-759M-Chinese-BertTokenizer.md",
        aliases=("Randeng-BART-759M",),
        claims=claims(
            WUDAO_180, ("compute", "8 A100 for 7 days", CARD),
            ("compute", "32 devices in the script",
             f"{EXAMPLES}/pretrain_bart/pretrain_bart_759M_wwm.sh"),
            ("size", "about twice BART-large", CARD),
            ("vocabulary", "BERT's tokenizer", CARD),
            ("vocabulary", "a vocab.txt of 110 kB, which are the 21,128 pieces of the Chinese BERT",
             HUB_FILES),
            ("size", "1.52 GB of weights, two bytes a parameter", HUB_FILES),
        ),
        unknown=("Layers, widths, heads and the rows of its embedding.",),
        our_choices=(
            "24 + 24 layers of BART-large: twice its depth",
            "vocab_size = 50,265: BART's own rows, of which the tokenizer uses 21,128; with that "
            "number of rows it would be 729 M",
        ),
        source="our choice, fitted to the published parameter count",
    ),
    ModelEntry(
        name="Randeng-MegatronT5-770M", paper_number=27,
        series=Series.RANDENG, demand=Demand.GENERAL, task=Task.NLT, family=Family.REWRITE,
        architecture="megatron-t5",
        config={
            "vocab_size": 21248, "hidden_size": 1024, "num_hidden_layers": 24,
            "decoder_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
            "hidden_act": "gelu", "max_position_embeddings": 512, "layer_norm_eps": 1e-5,
            "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
            "pad_token_id": 0, "bos_token_id": 21128, "eos_token_id": 21129,
            "decoder_start_token_id": 21128,
        },
        num_parameters=770_000_000,
        size_note=(
            "Named after English T5-large; with a Chinese vocabulary of 21,248 pieces it is 728 M."
        ),
        built_parameters=727_700_000,
        max_tokens=512, objective=ObjectiveName.SPAN_CORRUPTION, tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Randeng-MegatronT5-770M",
        card=f"{DOCUMENTS}/燃灯系列/Randeng-MegatronT5-770M.md",
        aliases=("Randeng-770M", "燃灯-770M"),
        legacy_names=("Randeng-7.7B", "燃灯-7.7B"),
        claims=claims(
            WUDAO_180, ("compute", "16 A100 for 14 days", CARD),
            ("size", "7.7 B, a misprint of 770 M", README),
            ("vocabulary", "BERT's, [BOS], [EOS] and 118 sentinels",
             "IDEA-CCNL/Fengshenbang-LM: fengshen/models/megatron_t5/tokenization_megatron_t5.py"),
        ),
        known_issues=(
            "Learned absolute positions, biases and scaled scores: no T5 class loads it.",
            "The published cached decoding starts its positions anew at each step.",
        ),
        our_choices=(
            "decoder_start_token_id = 21,128: [BOS], the first id behind BERT's vocabulary",
        ),
        source="layers and widths of T5-large, derived from the published weights' names",
    ),
    ModelEntry(
        name="Randeng-T5-77M", paper_number=32,
        series=Series.RANDENG, demand=Demand.GENERAL, task=Task.NLT, family=Family.REWRITE,
        architecture="mt5",
        config={
            **_MT5, "d_model": 512, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8,
            "num_heads": 6,
        },
        num_parameters=77_000_000, max_tokens=512,
        objective=ObjectiveName.SPAN_CORRUPTION, tokenizer="sentencepiece",
        languages=("zh", "en"),
        hub_id="IDEA-CCNL/Randeng-T5-77M", aliases=("燃灯-T5-77M",), parent="google/mt5-small",
        card=f"{DOCUMENTS}/燃灯系列/Randeng-T5-77M.md",
        claims=claims(
            WUDAO_180, ("compute", "8 A100 for 24 hours", CARD),
            ("compute", "2 A100 for 17 hours, further down the same page", CARD),
            ("loss", "about 2.3 at the end", CARD),
            ("vocabulary", "only the Chinese and English pieces of mT5's", CARD),
        ),
        known_issues=_MT5_ISSUES, our_choices=_MT5_CHOICES,
        source="published config.json",
    ),
    ModelEntry(
        name="Randeng-T5-784M", paper_number=33,
        series=Series.RANDENG, demand=Demand.GENERAL, task=Task.NLT, family=Family.REWRITE,
        architecture="mt5",
        config={
            **_MT5, "d_model": 1024, "d_ff": 2816, "num_layers": 24, "num_decoder_layers": 24,
            "num_heads": 16,
        },
        num_parameters=784_000_000, max_tokens=512,
        objective=ObjectiveName.SPAN_CORRUPTION, tokenizer="sentencepiece",
        languages=("zh", "en"),
        hub_id="IDEA-CCNL/Randeng-T5-784M", aliases=("燃灯-T5-784M",), parent="google/mt5-large",
        card=f"{DOCUMENTS}/燃灯系列/Randeng-T5-784M.md",
        claims=claims(
            WUDAO_180, ("compute", "16 A100 for 96 hours", CARD),
            ("vocabulary", "only the Chinese and English pieces of mT5's", CARD),
            ("layers", "24 and 24", "config.json of J001's fine-tuned Randeng-T5-784M on the hub"),
            ("layers", "12 and 24, of Randeng-T5-784M-QA-Chinese", _QA),
        ),
        scores=tuple(
            score
            for metric, value in (
                ("F1, generated", 0.779), ("EM, generated", 0.571), ("ROUGE-L", 0.827),
                ("BLEU-4", 0.611), ("answers that contain the true one", 0.76),
            )
            for score in scores({"cmrc2018": value}, _QA, metric=metric, split="test")
        ),
        known_issues=_MT5_ISSUES, our_choices=_MT5_CHOICES,
        source="config.json of a model fine-tuned from it",
    ),
    ModelEntry(
        name="Randeng-Transformer-1.1B-Denoise", paper_number=34,
        series=Series.RANDENG, demand=Demand.GENERAL, task=Task.NLT, family=Family.GENERATE,
        architecture="transfo-xl-denoise",
        config={
            "vocab_size": 50048, "hidden_size": 1600, "num_hidden_layers": 32,
            "num_attention_heads": 25, "max_position_embeddings": 512,
            "max_memory_length": 512, "relative_encoding": True,
            "embedding_dropout_prob": 0.1, "hidden_dropout_prob": 0.1, "eos_token_id": 50000,
            "legacy_segment_band": True, "prompt_template": "“{text}”改写后是“",
            "prompt_end": "”",
        },
        num_parameters=1_100_000_000,
        size_note="The published layers have 1.15 B; the name rounds down.",
        built_parameters=1_145_000_000,
        max_tokens=512, objective=ObjectiveName.DENOISING,
        other_objectives=(ObjectiveName.CAUSAL_LM,), tokenizer="sentencepiece",
        hub_id="IDEA-CCNL/Randeng-Transformer-1.1B-Denoise",
        card=f"{DOCUMENTS}/燃灯系列/Randeng-Transformer-1.1B-Denoise.md",
        aliases=("Bigan-Transformer-XL-denoise-1.1B",),
        claims=claims(
            WUDAO_180,
            ("noise", "insertion, swap, deletion, replacement, sentences reordered", CARD),
        ),
        known_issues=(
            "No class loads it any more: Transformer-XL was removed from transformers.",
            "The published mask lets a query see one segment's length, not the whole memory; "
            "`legacy_segment_band` does so too.",
        ),
        unknown=("Rates of the noises.", "Compute."),
        source="published config.json",
    ),
)  # fmt: skip
