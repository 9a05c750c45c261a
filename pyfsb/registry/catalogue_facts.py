# SPDX-License-Identifier: Apache-2.0
"""What is known of each heading of the catalogue: structure, class, and why there is none.

Data only, in our words; the rows are in `catalogue.tsv`, sizes and repositories in
`catalogue_sizes`. Where an architecture is given, transformers has its class, or we have.
"""

from __future__ import annotations

from typing import Final

from pyfsb.config import Family
from pyfsb.registry.entry import Architecture, TokenizerKind
from pyfsb.schema import Schema


class HeadingFacts(Schema):
    """Facts about the models under one heading."""

    heading: str
    """As the catalogue writes it."""
    architecture: Architecture | None = None
    """`model_type` of the class that loads them; None: there is none."""
    tokenizer: TokenizerKind = "wordpiece"
    """Kind of their tokenizers."""
    facts: str
    """What makes the model what it is, and where it was described."""
    why_not: str = ""
    """Why no class loads it; empty where one does."""
    known_issues: tuple[str, ...] = ()
    """What to mind with the class."""
    families: tuple[Family, ...] = ()
    """What they can do, where that is not what the class can; empty: what it can."""


class RowFacts(Schema):
    """What differs for single rows from the others of their heading."""

    heading: str
    """As the catalogue writes it."""
    models: tuple[str, ...]
    """Names of the rows."""
    architecture: Architecture | None = None
    """Class of these rows; None: there is none."""
    tokenizer: TokenizerKind = "wordpiece"
    """Kind of their tokenizers."""
    note: str
    """Why they differ."""
    families: tuple[Family, ...] = ()
    """What they can do, where that is not what the class can; empty: what it can."""


HEADINGS: Final = (
    HeadingFacts(
        heading="BERT", architecture="bert",
        facts="Masked pieces and next sentences; wwm hides all pieces of a word at once "
        "(arXiv:1810.04805, arXiv:1906.08101).",
    ),
    HeadingFacts(
        heading="ChineseBERT", facts="Adds embeddings of a hanzi's drawing in three fonts and of "
        "its pinyin to BERT's (arXiv:2106.16038).",
        why_not="the inputs of glyphs and pinyin are in no class of transformers",
    ),
    HeadingFacts(
        heading="RoBERTa", architecture="bert",
        facts="BERT without next sentences and with more text; keeps BERT's WordPiece and layers "
        "(arXiv:1907.11692). RBT and RBTL are its first layers, trained further.",
        known_issues=("RoBERTa by name only: load with the Bert classes.",),
    ),
    HeadingFacts(
        heading="ALBERT", architecture="albert",
        facts="One layer's weights for all layers, factorised embeddings, sentence order "
        "(arXiv:1909.11942).",
        known_issues=("Its Chinese vocabularies are BERT's: take a BertTokenizer.",),
    ),
    HeadingFacts(
        heading="NEZHA", facts="BERT with fixed sinusoids of relative positions in every layer "
        "(arXiv:1909.00204).",
        why_not="its class was removed in transformers 5",
    ),
    HeadingFacts(
        heading="MacBERT", architecture="bert",
        facts="BERT whose hidden words are replaced by similar words, not by [MASK] "
        "(arXiv:2004.13922).",
    ),
    HeadingFacts(
        heading="WoBERT", architecture="bert", tokenizer="jieba_wordpiece",
        facts="BERT over words: frequent words of jieba are pieces of their own.",
        known_issues=("A BertTokenizer cuts its words into hanzi; jieba has to come first.",),
    ),
    HeadingFacts(
        heading="XLNET", architecture="xlnet", tokenizer="sentencepiece",
        facts="Left-to-right over permutations of the text, with segments' memory "
        "(arXiv:1906.08237).",
    ),
    HeadingFacts(
        heading="ELECTRA", architecture="electra",
        facts="Trained to find the words that a small generator replaced (arXiv:2003.10555).",
        known_issues=("The discriminators have no vocabulary head.",),
    ),
    HeadingFacts(
        heading="ZEN", architecture="zen1", tokenizer="ngram_wordpiece",
        facts="BERT with a second encoder over n-grams (arXiv:1911.00720); our own class, the "
        "architecture of Erlangshen-ZEN1.",
    ),
    HeadingFacts(
        heading="ERNIE", architecture="ernie",
        facts="BERT that hides entities and phrases; skep adds sentiment words, gram hides n-grams "
        "as single targets (arXiv:1904.09223, arXiv:2005.05635, arXiv:2010.12148).",
    ),
    HeadingFacts(
        heading="ERNIE3", architecture="ernie",
        facts="Small encoders distilled from a larger ERNIE 3.0 (arXiv:2107.02137).",
    ),
    HeadingFacts(
        heading="RoFormer", architecture="roformer", tokenizer="jieba_wordpiece",
        facts="BERT with rotary positions on queries and keys (arXiv:2104.09864).",
        known_issues=("The word models need jieba (rjieba) before WordPiece.",),
    ),
    HeadingFacts(
        heading="StructBERT", architecture="bert",
        facts="BERT that also restores shuffled words and orders sentences (arXiv:1908.04577).",
    ),
    HeadingFacts(
        heading="Lattice-BERT", facts="Attends over characters and words of one lattice with "
        "positions of both ends (arXiv:2104.07204).",
        why_not="lattice inputs and their attention are in no class of transformers",
    ),
    HeadingFacts(
        heading="Mengzi-BERT", architecture="bert",
        facts="BERT-base, trained with parts of speech and sentence order, too "
        "(arXiv:2110.06696).",
    ),
    HeadingFacts(
        heading="TaCL", architecture="bert",
        facts="BERT whose tokens are told apart by a contrastive loss (arXiv:2111.04198).",
    ),
    HeadingFacts(
        heading="MC-BERT", architecture="bert",
        facts="BERT on biomedical Chinese, hiding its entities and phrases (arXiv:2008.10813).",
    ),
    HeadingFacts(
        heading="二郎神", architecture="megatron-bert",
        facts="Erlangshen-MegatronBert-1.3B of this registry, under its old name.",
    ),
    HeadingFacts(
        heading="PERT", architecture="bert",
        facts="BERT trained to find where shuffled characters belong (arXiv:2203.06906).",
        known_issues=("Its vocabulary head was not trained: it cannot fill masks.",),
        families=(Family.CLASSIFY, Family.PAIR, Family.TAG),
    ),
    HeadingFacts(
        heading="MobileBERT", architecture="mobilebert",
        facts="Narrow layers with bottlenecks and two or four feed-forward parts, taught by "
        "RoBERTa-wwm (arXiv:2004.02984).",
        known_issues=(
            "Published counts are 26.3, 32.2, 40.6 and 52.9 M; the class has 27.2, 34.3, 43.8 and "
            "50.2 M with the published widths.",
        ),
    ),
    HeadingFacts(
        heading="GAU-α", facts="Gated attention units in place of attention and feed-forward "
        "(arXiv:2202.10447).",
        why_not="gated attention units are in no class of transformers",
    ),
    HeadingFacts(
        heading="GPT", architecture="gpt2",
        facts="Left-to-right decoders over BERT's pieces, for chat, prose and poems.",
        known_issues=("Most take a BertTokenizer, not GPT-2's bytes.",),
    ),
    HeadingFacts(
        heading="GPT-3", tokenizer="jieba_sentencepiece",
        facts="Chinese Transformer-XL of 2.9 B with segments' memory.",
        why_not="Transformer-XL was removed from transformers; our transfo-xl-denoise has its "
        "structure, but nobody has tried these weights in it",
    ),
    HeadingFacts(
        heading="NEZHA-Gen", facts="NEZHA's relative positions in a left-to-right decoder.",
        why_not="NEZHA's class was removed in transformers 5 and never had a causal form",
    ),
    HeadingFacts(
        heading="CPM-Generate", architecture="gpt2", tokenizer="jieba_sentencepiece",
        facts="GPT-2 of 2.6 B over pieces of jieba's words (arXiv:2012.00413).",
        known_issues=("Spaces and line ends stand as ▂ and ▃ in its pieces.",),
    ),
    HeadingFacts(
        heading="T5", architecture="t5",
        facts="T5 with BERT's Chinese vocabulary and sentinels beside (arXiv:1909.05658).",
    ),
    HeadingFacts(
        heading="T5-PEGASUS", architecture="mt5", tokenizer="jieba_wordpiece",
        facts="mT5's layers with a vocabulary of words, trained on gap sentences.",
    ),
    HeadingFacts(
        heading="Mengzi-T5", architecture="t5", tokenizer="sentencepiece",
        facts="T5 v1.1 on Chinese text (arXiv:2110.06696).",
    ),
    HeadingFacts(
        heading="PanGu-Alpha", tokenizer="jieba_sentencepiece",
        facts="GPT with one more layer on top whose query is the next position "
        "(arXiv:2104.12369).",
        why_not="the query layer is in no class of transformers",
    ),
    HeadingFacts(
        heading="EVA", tokenizer="jieba_sentencepiece",
        facts="Encoder-decoder of 2.8 B for chat, T5-like (arXiv:2108.01547).",
        why_not="its layers differ from T5's, and its own code loads it",
    ),
    HeadingFacts(
        heading="BART", architecture="bart",
        facts="BART over BERT's pieces (arXiv:2109.05729).",
        known_issues=("Take a BertTokenizer, and no token types.",),
    ),
    HeadingFacts(
        heading="闻仲", architecture="gpt2", tokenizer="byte_bpe",
        facts="Wenzhong-GPT2-3.5B of this registry, under its old name.",
    ),
    HeadingFacts(
        heading="余元", architecture="gpt2", tokenizer="byte_bpe",
        facts="Yuyuan-GPT2-3.5B of this registry, under its old name.",
    ),
    HeadingFacts(
        heading="RWKV", facts="A recurrent network trained as a transformer, an early version, "
        "for novels.",
        why_not="transformers has version 4, and these weights are of an earlier one",
    ),
    HeadingFacts(
        heading="UniLM", architecture="bert",
        facts="BERT with a mask that lets the second text see the first and its own past "
        "(arXiv:1905.03197).",
        known_issues=("The Bert classes read both ways: to understand, not to generate.",),
    ),
    HeadingFacts(
        heading="Simbert", architecture="bert",
        facts="BERT that writes and ranks paraphrases, on UniLM's mask.",
        known_issues=("The Bert classes read both ways: to understand, not to generate.",),
    ),
    HeadingFacts(
        heading="RoFormer-sim", architecture="roformer",
        facts="SimBERT on RoFormer.",
        known_issues=("The classes read both ways: to understand, not to generate.",),
    ),
    HeadingFacts(
        heading="周文王", architecture="zhouwenwang",
        facts="Zhouwenwang-Unified of this registry, under its old name.",
    ),
    HeadingFacts(
        heading="CPM-2", tokenizer="jieba_sentencepiece",
        facts="Encoder-decoders of 11 B, and of 198 B with mixtures of experts "
        "(arXiv:2106.10715).",
        why_not="its own toolkit loads it; its layers differ from T5's",
    ),
    HeadingFacts(
        heading="CPT", facts="A deep encoder with two shallow decoders, one to understand, one to "
        "generate (arXiv:2109.05729).",
        why_not="its encoder is a BERT inside of a BART, which no class of transformers is",
    ),
    HeadingFacts(
        heading="GLM", tokenizer="sentencepiece",
        facts="Fills blanks left to right, with positions in two dimensions (arXiv:2103.10360, "
        "arXiv:2210.02414).",
        why_not="transformers' glm is a later architecture of the same name",
    ),
    HeadingFacts(
        heading="WenLan", facts="Two towers for images and texts with a queue of negatives "
        "(arXiv:2103.06561).",
        why_not="its towers and queue are in no class of transformers",
    ),
    HeadingFacts(
        heading="CogView", tokenizer="sentencepiece",
        facts="Draws images left to right as tokens of a VQ-VAE (arXiv:2105.13290).",
        why_not="neither its decoder nor its image codes are in transformers",
    ),
    HeadingFacts(
        heading="紫东太初", facts="Encoders and decoders for image, text and speech together.",
        why_not="published for other frameworks only, without a class in transformers",
    ),
    HeadingFacts(
        heading="Mengzi-oscar",
        facts="BERT that reads object tags and regions of images (arXiv:2110.06696).",
        why_not="needs a detector's regions, which no class of transformers takes",
    ),
    HeadingFacts(
        heading="R2D2", facts="CLIP's towers with a ranker over both on top (arXiv:2205.03860).",
        why_not="the ranker is in no class of transformers",
    ),
    HeadingFacts(
        heading="Chinese-CLIP", architecture="chinese_clip",
        facts="CLIP with RoBERTa-wwm as its text tower (arXiv:2211.01335).",
    ),
    HeadingFacts(
        heading="SDCUP", facts="BERT over tables and questions, trained on their links.",
        why_not="its schema inputs are in no class of transformers",
    ),
    HeadingFacts(
        heading="LERT", architecture="bert",
        facts="BERT that also predicts parts of speech, entities and dependencies "
        "(arXiv:2211.05344). Later than the list.",
    ),
)  # fmt: skip

ROWS: Final = (
    RowFacts(
        heading="BERT", models=("guwenbert-base", "guwenbert-large"), architecture="roberta",
        note="Classical Chinese; a RoBERTa in class, too, with WordPiece.",
    ),
    RowFacts(
        heading="Mengzi-BERT", models=("bloom-6b4-zh",), architecture="bloom",
        tokenizer="byte_bpe", note="BLOOM-7B with its vocabulary cut to Chinese.",
    ),
    RowFacts(
        heading="NEZHA", models=("WoNEZHA (word-base)",), tokenizer="jieba_wordpiece",
        note="NEZHA over words.",
    ),
    RowFacts(
        heading="RoFormer", models=("roformer-char",), architecture="roformer",
        note="Over characters.",
    ),
    RowFacts(
        heading="RoFormer", models=("roformerV2",),
        note="the second version has no biases and another norm, which the class has not",
    ),
    RowFacts(
        heading="GPT", models=("GPT2",), tokenizer="wordpiece",
        note="its layers are Grover's, with a norm behind the embeddings: GPT-2's class differs",
    ),
    RowFacts(
        heading="GPT", models=("CDial-GPTLCCC-base", "CDial-GPTLCCC-large"),
        architecture="openai-gpt", note="The first GPT: norms behind the sums.",
    ),
    RowFacts(
        heading="GPT", models=("roformer-gpt",), architecture="roformer",
        note="RoFormer as a decoder.", families=(Family.GENERATE,),
    ),
    RowFacts(
        heading="RoFormer-sim", models=("roformer-sim-v2",),
        note="built on the second version of RoFormer, which the class is not",
    ),
)  # fmt: skip
"""Rows that differ from their heading."""
