"""Family rewrite with tiny random models of each encoder-decoder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

import pyfsb
import pyfsb.models.architectures
from pyfsb.data.vocabulary import write_tokenizer
from pyfsb.errors import ConfigError
from pyfsb.inference import decoding
from pyfsb.inference.deadline import OutOfTimeError, deadline_at
from pyfsb.inference.pieces import decode_tokens
from pyfsb.inference.rewrite import Rewriter
from pyfsb.models.loading import load_tokenizer
from tests.helpers.models import PIECES

BART = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
    "max_position_embeddings": 64, "init_std": 0.6, "forced_eos_token_id": None,
}  # fmt: skip
T5 = {
    "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2,
    "initializer_factor": 4.0,
}  # fmt: skip
MEGATRON = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 64, "initializer_range": 0.6,
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "bart": BART, "pegasus": BART, "t5": T5, "mt5": T5, "megatron-t5": MEGATRON,
}  # fmt: skip
IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}
TEXTS = ["中国人民大学", "北京", "我们在北京，很好！hello", "好"]
EVERY = pytest.mark.parametrize("kind", SHAPES)


def make(kind: str = "megatron-t5", **changes: Any) -> PreTrainedModel:
    values = {**SHAPES[kind], "vocab_size": len(PIECES), **IDS, **changes}
    torch.manual_seed(7)
    return AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(kind, **values)).eval()


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(PIECES, folder, lowercase=True)
    return load_tokenizer(folder)


def rewriter(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **more: Any) -> Rewriter:
    return Rewriter(model, tokenizer, name="r", **{"max_tokens": 32, **more})


def ending(model: PreTrainedModel, token: int) -> PreTrainedModel:
    """Make a MegatronT5 write one token whatever it reads."""
    model.lm_head.bias.data[token] = 1e4
    return model


@EVERY
def test_every_architecture_answers(kind: str, wordpiece: PreTrainedTokenizerBase) -> None:
    model = rewriter(make(kind), wordpiece)
    together = model.predict(TEXTS)
    assert [answer.is_truncated for answer in together] == [False] * 4
    assert len({answer.text for answer in together}) > 1, "it reads the text"
    assert together == model.predict(TEXTS)
    for text, answer in zip(TEXTS, together, strict=True):
        assert model.predict([text]) == [answer]
        assert 0 <= answer.num_tokens <= 31
        assert answer.is_complete == (answer.num_tokens < 31)


@EVERY
def test_an_answer_is_the_greedy_one(kind: str, wordpiece: PreTrainedTokenizerBase) -> None:
    model = make(kind)
    answer = rewriter(model, wordpiece).predict(["北京"])[0]
    source = torch.tensor([wordpiece("北京")["input_ids"]])
    written = torch.tensor([[2]])
    with torch.no_grad():
        while written.shape[1] < 32 and written[0, -1] != 3:
            logits = model(input_ids=source, decoder_input_ids=written).logits[:, -1]
            written = torch.cat([written, logits.argmax(-1)[:, None]], dim=1)
    ids = [token for token in written[0, 1:].tolist() if token != 3]
    assert answer.text == decode_tokens(wordpiece, ids)
    assert answer.num_tokens == len(ids)


def test_beams_are_those_of_transformers(wordpiece: PreTrainedTokenizerBase) -> None:
    model = make()
    source = torch.tensor([wordpiece("北京")["input_ids"]])
    expected = model.generate(input_ids=source, num_beams=4, max_new_tokens=31, do_sample=False)
    answer = rewriter(model, wordpiece, num_beams=4).predict(["北京"])[0]
    ids = [token for token in expected[0, 1:].tolist() if token not in (0, 3)]
    assert answer.text == decode_tokens(wordpiece, ids)


def test_the_end_of_a_long_text_is_cut_and_told(wordpiece: PreTrainedTokenizerBase) -> None:
    model = rewriter(make(), wordpiece)
    fits, cut = model.predict(["好" * 29 + "国", "好" * 29 + "国人"])
    assert not fits.is_truncated
    assert cut.is_truncated
    assert cut.text == fits.text


def test_an_answer_says_whether_it_was_ended(wordpiece: PreTrainedTokenizerBase) -> None:
    ended = rewriter(ending(make(), 3), wordpiece).predict(["好", "很好"])
    assert [(answer.text, answer.num_tokens, answer.is_complete) for answer in ended] == [
        ("", 0, True), ("", 0, True),
    ]  # fmt: skip
    endless = rewriter(ending(make(), PIECES.index("好")), wordpiece).predict(["好"])[0]
    assert (endless.text, endless.num_tokens, endless.is_complete) == ("好" * 31, 31, False)


def test_the_folder_says_how_long_an_answer_may_be(wordpiece: PreTrainedTokenizerBase) -> None:
    model = ending(make(), PIECES.index("好"))
    assert rewriter(model, wordpiece, max_tokens=500).predict(["好"])[0].num_tokens == 64
    model.generation_config.max_new_tokens = 5
    assert rewriter(model, wordpiece).predict(["好"])[0].text == "好" * 5


def seen_by(model: PreTrainedModel) -> list[dict[str, Tensor]]:
    """Keep what the encoder gets."""
    seen: list[dict[str, Tensor]] = []
    model.get_encoder().register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.append(kwargs), with_kwargs=True
    )
    return seen


def pieces_only(*, end: bool, begin: str | None) -> PreTrainedTokenizerFast:
    """A tokenizer of characters as SentencePiece ones are: at most an end is added."""
    vocabulary = {piece: number for number, piece in enumerate(PIECES)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    if end:
        backend.post_processor = processors.TemplateProcessing(
            single="$A [SEP]", special_tokens=[("[SEP]", 3)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=begin, eos_token="[SEP]", pad_token="[PAD]",
        unk_token="[UNK]",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("end", "begin", "config", "expected"),
    [
        (True, "[CLS]", {}, [2, 5, 6, 3]),
        (False, "[CLS]", {}, [2, 5, 6, 3]),
        (True, None, {}, [5, 6, 3]),
        (True, "[CLS]", {"bos_token_id": None}, [5, 6, 3]),
        (False, None, {"eos_token_id": 4}, [5, 6]),
    ],
)
def test_begin_and_end_are_added_where_the_tokenizer_leaves_them_out(
    end: bool, begin: str | None, config: dict[str, Any], expected: list[int]
) -> None:
    model = make("bart", **config)
    seen = seen_by(model)
    rewriter(model, pieces_only(end=end, begin=begin)).predict(["中国"])
    assert seen[0]["input_ids"].tolist() == [expected]


def test_wordpiece_gets_nothing_twice_and_pads_are_masked(
    wordpiece: PreTrainedTokenizerBase,
) -> None:
    model = make("bart")
    seen = seen_by(model)
    rewriter(model, wordpiece).predict(["中国", "中"])
    assert seen[0]["input_ids"].tolist() == [[2, 5, 3, 0], [2, 5, 6, 3]]
    assert seen[0]["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert "token_type_ids" not in seen[0]


def test_the_words_around_a_text_come_from_the_config(
    wordpiece: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = make("t5", prompt_template="我们的{text}很好")
    model.save_pretrained(tmp_path)
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    seen = seen_by(model)
    assert rewriter(model, wordpiece, max_tokens=12).predict(["大学" * 5])[0].is_truncated
    assert wordpiece.decode(seen[0]["input_ids"][0]) == "[CLS] 我 们 的 大 学 大 学 大 很 好 [SEP]"


def test_it_stops_at_the_deadline(
    wordpiece: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = rewriter(make(), wordpiece)
    with deadline_at(time.monotonic() - 1), pytest.raises(OutOfTimeError):
        model.predict(["好"])
    calls: list[int] = []

    def passes_at_the_third_token() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise OutOfTimeError("too late")

    monkeypatch.setattr(decoding, "check_deadline", passes_at_the_third_token)
    with pytest.raises(OutOfTimeError):
        rewriter(ending(make(), 5), wordpiece).predict(["好"])
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (["好", " "], "input 1: the text is empty"),
        ([("好", "坏")], "input 0: this model takes one text"),
    ],
)
def test_wrong_inputs_are_named(
    inputs: list[Any], text: str, wordpiece: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(ConfigError, match=text):
        rewriter(make(), wordpiece).predict(inputs)


def test_wrong_models_are_explained(wordpiece: PreTrainedTokenizerBase) -> None:
    decoder = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=40))
    with pytest.raises(ConfigError, match="r: gpt2 is no encoder-decoder"):
        rewriter(decoder, wordpiece)
    with pytest.raises(ConfigError, match="names no decoder_start_token_id"):
        rewriter(make("t5", decoder_start_token_id=None), wordpiece)


def test_no_text_no_answer(wordpiece: PreTrainedTokenizerBase) -> None:
    assert rewriter(make(), wordpiece).predict([]) == []


@EVERY
def test_a_folder_is_loaded_and_answers(
    kind: str, wordpiece: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = make(kind)
    model.save_pretrained(tmp_path)
    write_tokenizer(PIECES, tmp_path, lowercase=True)
    loaded = pyfsb.load(str(tmp_path))
    assert isinstance(loaded, Rewriter)
    expected = rewriter(model, wordpiece, max_tokens=loaded._max_tokens).predict(TEXTS)
    assert loaded.predict(TEXTS) == expected
