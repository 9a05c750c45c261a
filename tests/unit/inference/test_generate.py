"""Family generate: prompts of the denoiser, of chats and of prefix models; where answers end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

import pyfsb
import pyfsb.models.architectures
from pyfsb.data.vocabulary import write_tokenizer
from pyfsb.errors import ConfigError
from pyfsb.inference.generate import Generator
from pyfsb.models.loading import load_tokenizer
from tests.helpers import models

PIECES = [*models.PIECES, *"“”改写后<>:", "human", "bot"]
DENOISE = {"prompt_template": "“{text}”改写后是“", "prompt_end": "”"}
SHAPE = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 64, "initializer_range": 0.6, "pad_token_id": 0, "eos_token_id": 3,
}  # fmt: skip


def make(kind: str, **changes: Any) -> PreTrainedModel:
    values = {**SHAPE, "vocab_size": len(PIECES), **changes}
    torch.manual_seed(7)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **values)).eval()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(PIECES, folder, lowercase=True)
    return load_tokenizer(folder)


def generator(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **more: Any) -> Generator:
    return Generator(model, tokenizer, name="g", **{"max_tokens": 64, **more})


def writing(model: PreTrainedModel, piece: str) -> PreTrainedModel:
    """Make a denoiser write one piece whatever it reads."""
    norm, words = model.transformer.final_layernorm, model.transformer.word_embeddings.weight
    norm.weight.data.zero_()
    norm.bias.data.copy_(words[PIECES.index(piece)] * 100)
    words.data[PIECES.index(piece)] *= 2
    return model


def seen_by(model: PreTrainedModel) -> list[Tensor]:
    """Keep the ids that the first layer's embedding gets."""
    seen: list[Tensor] = []
    model.get_input_embeddings().register_forward_pre_hook(
        lambda _module, args: seen.append(args[0])
    )
    return seen


def text_of(ids: Tensor) -> str:
    return "".join(PIECES[token] for token in ids.flatten().tolist())


def test_the_denoiser_reads_its_prompt(tmp_path: Path) -> None:
    make("transfo-xl-denoise", **DENOISE).save_pretrained(tmp_path)
    write_tokenizer(PIECES, tmp_path, lowercase=True)
    model = pyfsb.load(str(tmp_path))
    assert isinstance(model, Generator)
    seen = seen_by(model._model)
    first, second = model.predict(["我们很好", "我们很好"])
    assert text_of(seen[0]) == "“我们很好”改写后是“", "and no begin: the published has none"
    assert first == second
    assert 0 < first.num_tokens <= 53
    assert not first.is_truncated


def test_an_answer_ends_with_its_quote(tokenizer: PreTrainedTokenizerBase) -> None:
    model = writing(make("transfo-xl-denoise", **DENOISE), "”")
    answer = generator(model, tokenizer).predict(["好"])[0]
    assert (answer.text, answer.num_tokens) == ("", 1)
    open_end = generator(model, tokenizer, end="").predict(["好"])[0]
    assert (open_end.text, open_end.num_tokens) == ("”" * 56, 56)


def test_an_answer_has_its_bound(tokenizer: PreTrainedTokenizerBase) -> None:
    model = writing(make("transfo-xl-denoise", **DENOISE), "好")
    assert generator(model, tokenizer, max_tokens=500).predict(["好"])[0].text == "好" * 64
    model.generation_config.max_new_tokens = 6
    assert generator(model, tokenizer, max_tokens=500).predict(["好"])[0].text == "好" * 6


def test_a_long_text_loses_its_beginning_never_its_template(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    model = make("transfo-xl-denoise", **DENOISE)
    seen = seen_by(model)
    answer = generator(model, tokenizer).predict(["大学" * 40 + "国"])[0]
    assert answer.is_truncated
    assert text_of(seen[0]) == "“学" + "大学" * 11 + "国”改写后是“"
    assert seen[0].shape[1] == 31


@pytest.mark.parametrize("is_in_config", [True, False])
def test_a_chat_model_reads_its_turns(
    tokenizer: PreTrainedTokenizerBase, is_in_config: bool
) -> None:
    chat = {"template": "<human>:{text}\n<bot>:", "end": "<human>:"}
    named = {f"prompt_{name}": value for name, value in chat.items()}
    model = make("llama", bos_token_id=2, **(named if is_in_config else {}))
    seen = seen_by(model)
    generator(model, tokenizer, **({} if is_in_config else chat)).predict(["你好"])
    assert text_of(seen[0]) == "[CLS]<human>:[UNK]好<bot>:"


@pytest.mark.parametrize("prompt_token_type", [0, 1])
def test_a_prefix_model_continues_as_its_config_says(
    tokenizer: PreTrainedTokenizerBase, prompt_token_type: int
) -> None:
    model = make("zhouwenwang", bos_token_id=2, prompt_token_type=prompt_token_type)
    types: list[Tensor] = []
    model.bert.embeddings.token_type_embeddings.register_forward_pre_hook(
        lambda _module, args: types.append(args[0])
    )
    answer = generator(model, tokenizer).predict(["北京"])[0]
    assert 0 < answer.num_tokens <= 61
    assert types[0].tolist() == [[prompt_token_type] * 3]
    assert all((later == 1).all() for later in types[1:])


def test_half_of_a_short_model_is_left_to_the_prompt(tokenizer: PreTrainedTokenizerBase) -> None:
    model = make("llama", bos_token_id=2)
    seen = seen_by(model)
    cut, whole = generator(model, tokenizer).predict(["好" * 32, "好" * 31])
    assert (cut.is_truncated, whole.is_truncated) == (True, False)
    assert {tuple(ids.shape) for ids in seen if ids.shape[1] > 1} == {(1, 32)}


def test_too_few_tokens_are_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ConfigError, match="max_tokens = 2: too few for a prompt and an answer"):
        generator(make("llama", bos_token_id=2), tokenizer, max_tokens=2)
    model = make("transfo-xl-denoise", **DENOISE)
    with pytest.raises(ConfigError, match="7 tokens, expected at most 4"):
        generator(model, tokenizer, max_tokens=10).predict(["好"])
