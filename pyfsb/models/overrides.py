# SPDX-License-Identifier: Apache-2.0
"""Values of a spec's `model.config`: refused before a library stumbles over them.

Called by `building`, training and evaluation. Looks at names and kinds of values; never builds
anything. What fields there are and how they go together is the business of the config's class.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from pyfsb.errors import ConfigError, UnknownNameError

BROKEN: Final = (
    ValueError, TypeError, KeyError, AttributeError, IndexError, ArithmeticError, AssertionError,
    RuntimeError, StrictDataclassError,
)  # fmt: skip
"""What configs and models of `transformers` raise at values that do not go together."""
_NOT_SETTINGS: Final = frozenset(
    {"model_type", "architectures", "transformers_version", "dtype", "torch_dtype", "id2label",
     "label2id", "num_labels", "problem_type", "is_decoder", "is_encoder_decoder",
     "add_cross_attention", "chunk_size_feed_forward", "return_dict", "output_attentions",
     "output_hidden_states"}
)  # fmt: skip
"""Fields that follow from the entry, the data or the weights, or that no result depends on."""
_COUNT: Final = re.compile(
    r"(.*_)?(size|dim|heads?|layers?|embeddings|positions|window|groups|buckets|distance)"
    r"|n_embd|n_inner|d_(model|kv|ff|inner)"
)
_RATE: Final = re.compile(r".*(dropout|drop)(_prob|_rate)?|layerdrop|.*_pdrop")
_WRONG_KIND: Final = re.compile(
    r"Field '(\w+)' with value (.+?) doesn't match any type in \((.+?)\)(?:\.|$)"
)
"""What the config classes of `transformers` say of a value of another kind."""
_OTHER_KIND: Final = re.compile(r"Field '(\w+)' expected (\w+), got \w+ \(value: (.+)\)$")
_VALIDATOR: Final = re.compile(r"^Class validation error for validator '\w+': \w+: ")
_CLASS: Final = re.compile(r"<class '([\w.]+)'>")
_LONGEST: Final = 300
_ACTIVATIONS: Final = ("hidden_act", "activation_function", "conv_act", "pooler_hidden_act")


def check_override(key: str, value: Any, known: Any) -> None:
    """Refuse one value of `model.config` that no model could have.

    Args:
        key: Field, or `part.field`.
        value: What the spec gives it.
        known: What it is without the override; its kind is the right one.

    Raises:
        ConfigError: Says what would be right.
    """
    name = key.rpartition(".")[2]
    if name in _NOT_SETTINGS:
        raise ConfigError(
            f"model.config.{key}: not a size or rate of the architecture; model.name and the data "
            "decide it"
        )
    if name in _ACTIVATIONS and isinstance(value, str) and value not in ACT2FN:
        raise UnknownNameError(f"model.config.{key} (such as {known!r})", value, ACT2FN)
    expected = _find_fault(name, value, known)
    if expected:
        raise ConfigError(f"model.config.{key} = {value!r}: expected {expected}")


def check_held(config: PreTrainedConfig, overrides: Mapping[str, Any], *, source: str) -> None:
    """Refuse overrides that weights at hand contradict: their own config decides.

    Args:
        config: Of the weights.
        overrides: The spec's `model.config`.
        source: Where the weights are from, for the message.

    Raises:
        ConfigError: Names the first one and what the weights have.
    """
    for key, value in overrides.items():
        part, _, field = key.rpartition(".")
        held = getattr(getattr(config, part, None) if part else config, field, None)
        if held != value:
            raise ConfigError(
                f"model.config.{key} = {value!r}, but the weights of {source} have {held!r}, and "
                "they decide: leave it out, or leave model.checkpoint out"
            )


def check_heads(config: PreTrainedConfig, architecture: str) -> None:
    """Refuse a width that the attention heads do not divide.

    Raises:
        ConfigError: Names both numbers.
    """
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        width, heads = (
            getattr(part, name, None) for name in ("hidden_size", "num_attention_heads")
        )
        shared = getattr(part, "num_key_value_heads", None)
        if isinstance(heads, int) and isinstance(shared, int) and heads % shared:
            raise ConfigError(
                f"model.config does not fit {architecture}: num_key_value_heads {shared} do not "
                f"divide {heads} attention heads"
            )
        own_width = any(getattr(part, name, None) for name in ("head_dim", "d_kv", "d_head"))
        if isinstance(width, int) and isinstance(heads, int) and not own_width and width % heads:
            raise ConfigError(
                f"model.config does not fit {architecture}: {heads} attention heads do not divide "
                f"the width (hidden_size) {width}"
            )


def explain(exc: BaseException) -> str:
    """Return the text of one of `BROKEN`, on one line of a readable length."""
    text = " ".join(str(exc).split())
    kind = _WRONG_KIND.search(text)
    if kind:
        expected = " or ".join(_CLASS.findall(kind[3])).replace("NoneType", "null")
        return f"{kind[1]} = {kind[2]}: expected {expected}"
    other = _OTHER_KIND.search(text)
    if other:
        return f"{other[1]} = {other[3]}: expected {other[2]}"
    without = _VALIDATOR.sub("", text)
    if without != text:
        return without
    if len(text) > _LONGEST:  # some carry a whole module
        text = f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
    return text if isinstance(exc, ValueError) else f"{type(exc).__name__}: {text}"


def _find_fault(name: str, value: Any, known: Any) -> str:
    """Return what would be right; empty if the value may be."""
    if name.endswith(("_token_id", "_token_ids")):
        is_id = value is None or all(_is_int(one) and one >= 0 for one in _listed(value))
        return "" if is_id else "an id of the vocabulary"
    if isinstance(known, bool):
        return "" if isinstance(value, bool) else "true or false"
    if isinstance(known, int):
        return _fault_of_int(name, value, known)
    if isinstance(known, float):
        return _fault_of_float(name, value)
    if isinstance(known, str):
        return "" if isinstance(value, str) else f"a text such as {known!r}"
    if isinstance(known, dict):
        return "" if isinstance(value, dict) else "its fields"
    if known is None and value is not None and _COUNT.fullmatch(name):
        return _fault_of_int(name, value, 1)
    return ""


def _fault_of_int(name: str, value: Any, known: int) -> str:
    if _RATE.fullmatch(name):
        return _fault_of_float(name, value)
    numbers = _listed(value)
    if not numbers or not all(map(_is_int, numbers)):
        return f"a whole number such as {known}"
    least = 1 if known > 0 else known  # such as no token types, or no limit
    if _COUNT.fullmatch(name) and min(numbers) < least:
        return f"a whole number of {least} or more, such as {known}"
    return ""


def _fault_of_float(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "a number"
    if _RATE.fullmatch(name) and not 0 <= value < 1:
        return "a number from 0 to below 1"
    if name.endswith(("_eps", "_epsilon")) and value <= 0:
        return "a small number above 0, such as 1e-12"
    return ""


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
