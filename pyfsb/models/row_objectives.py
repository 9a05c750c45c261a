# SPDX-License-Identifier: Apache-2.0
"""From a model and its tokenizer to the row objective that fits them.

Called by training and inference, so a model is asked in the rows that it was taught with. Never
reads a file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from pyfsb.data.normalizing import normalise_layout, normalise_text
from pyfsb.errors import ConfigError
from pyfsb.models.building import max_positions
from pyfsb.models.plain_text import make_tokenize as make_tokenize
from pyfsb.objectives.extraction_ubert import UbertExtraction
from pyfsb.objectives.extraction_uniex import UniexExtraction
from pyfsb.objectives.multiple_choice import MultipleChoice
from pyfsb.objectives.rewriting import Rewriting
from pyfsb.objectives.row_objective import PLACE, FrameIds, Tokenized
from pyfsb.objectives.sft import TURN, Sft

YES_NO_WORDS: Final = (("是", "非"), ("yes", "no"), ("是", "不"))
"""What says that an option is right or wrong; the first pair that a vocabulary has as tokens.
Source: fengshen/models/unimc of Fengshenbang-LM c8fb7b8; the last pair, for small vocabularies, is
our choice."""
_PROBE: Final = "一"
_LINES: Final = "一\n\n一"
_BEGUN: Final = ("bart",)
"""Architectures whose encoders read a begin token; T5 and Pegasus read a text and its end."""
KIND_MARKS: Final = ("[unused1]", "[unused2]")
"""What stands before a kind and before a predicate. Source: fengshen/models/uniex. Vocabularies
without them take [MASK] for both (our choice)."""

ExtractionObjective = UbertExtraction | UniexExtraction


def find_spelling(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], str]:
    """Return how texts that are written are spelled for a tokenizer, in training and prediction.

    Returns:
        `normalise_layout` where it has a newline and gives blank lines back, else `normalise_text`.
    """
    ids = tokenizer(_LINES, add_special_tokens=False)["input_ids"]
    decoded = str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
    return normalise_layout if "\n\n" in decoded else normalise_text


def no_tokens(text: str, template: str = PLACE, /) -> Tokenized:
    """Stand in for a tokenizer where rows have no text."""
    del text, template
    return Tokenized(ids_T=np.zeros(0, np.int32), offsets_T2=np.zeros((0, 2), np.int32))


def build_choice_objective(
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_tokens: int,
    hides_tokens: bool = True,
) -> MultipleChoice:
    """Return the objective of UniMC.

    Args:
        config: Of a masked language model.
        tokenizer: Its tokenizer.
        max_tokens: Positions of a row at most; never more than the model has.
        hides_tokens: Whether training predicts tokens of the texts too.

    Raises:
        ConfigError: The vocabulary has no words for yes and no.
    """
    vocabulary = tokenizer.get_vocab()
    special = set(tokenizer.all_special_ids)
    # The published vocabularies keep unused places in brackets.
    ordinary = [
        number
        for piece, number in vocabulary.items()
        if number not in special and not (piece.startswith("[unused") and piece.endswith("]"))
    ]
    yes_id, no_id = _find_words(tokenizer)
    return MultipleChoice(
        frame=frame_ids(tokenizer),
        yes_id=yes_id,
        no_id=no_id,
        max_positions=min(max_tokens, max_positions(config)),
        ordinary=np.array(sorted(ordinary), dtype=np.int64),
        hides_tokens=hides_tokens,
    )


def build_extraction_objective(
    config: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_tokens: int,
    num_kinds: int | None = None,
) -> ExtractionObjective:
    """Return the objective of UBERT or UniEX.

    Args:
        config: Of the model; says whether cells are those of the original.
        tokenizer: Its tokenizer.
        max_tokens: Tokens (UniEX: positions) of a row at most; never more than the model has.
        num_kinds: Kinds of a sample in one training batch at most, of UBERT.

    Raises:
        ConfigError: The model is another one.
    """
    frame, limit = frame_ids(tokenizer), min(max_tokens, max_positions(config))
    if config.model_type == "ubert":
        return UbertExtraction(
            frame=frame, max_tokens=limit, num_kinds=num_kinds, legacy_cells=config.legacy_cells
        )
    if config.model_type != "uniex":
        raise ConfigError(f"{config.model_type} does not extract; expected ubert or uniex")
    vocabulary = tokenizer.get_vocab()
    kind_id, predicate_id = (vocabulary.get(mark, frame.mask) for mark in KIND_MARKS)
    return UniexExtraction(
        frame=frame,
        kind_id=kind_id,
        predicate_id=predicate_id,
        max_positions=limit,
        two_step=config.two_step,
        legacy_cells=config.legacy_cells,
    )


def build_chat_objective(
    config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, *, max_tokens: int
) -> Sft:
    """Return the objective of dialogues.

    Args:
        config: Of the model; its `prompt_template` is what a question stands in.
        tokenizer: Of the model; its end token ends answers, its begin token begins dialogues.
        max_tokens: Tokens of a dialogue at most.

    Raises:
        ConfigError: The tokenizer has no end token.
    """
    begin, end = chat_ends(tokenizer)
    turn = getattr(config, "prompt_template", None) or TURN
    return Sft(eos=end, bos=begin, max_tokens=max_tokens, turn=turn)


def chat_ends(tokenizer: PreTrainedTokenizerBase) -> tuple[int | None, int]:
    """Return what begins a dialogue (None: nothing) and what ends an answer.

    Raises:
        ConfigError: The tokenizer has no end token.
    """
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id
    if end is None:
        raise ConfigError("the tokenizer has no end token (eos or sep); answers need one")
    return None if begin is None else int(begin), int(end)


def build_rewriting_objective(
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    decoder_start: int,
    max_tokens: int,
    max_target_tokens: int,
) -> Rewriting:
    """Return the objective of pairs of texts.

    Args:
        config: Of an encoder-decoder.
        tokenizer: Its tokenizer.
        decoder_start: What its decoder begins with.
        max_tokens: Tokens of a text at most, special tokens included.
        max_target_tokens: Tokens of what is written at most, its end included.

    Raises:
        ConfigError: The tokenizer has no end token.
    """
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    if end is None:
        raise ConfigError("the tokenizer has no end token (eos or sep); what is written needs one")
    begins, ends = encoder_frame(config, tokenizer)
    return Rewriting(
        begins=begins,
        ends=ends,
        decoder_start=decoder_start,
        eos=int(end),
        max_tokens=max_tokens,
        max_target_tokens=max_target_tokens,
        template=getattr(config, "prompt_template", None) or "{text}",
    )


def encoder_frame(
    config: Any, tokenizer: PreTrainedTokenizerBase
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return what stands before and behind a text that an encoder of an encoder-decoder reads.

    A SentencePiece tokenizer in front of BART adds an end and no begin; what model and tokenizer
    both name and the tokenizer left out is added here. Where both name an end and the tokenizer
    puts another one (a BERT tokenizer in front of MegatronT5), its frame is not the model's: a text
    and the end, as in pretraining.
    """
    whole = list(tokenizer(_PROBE)["input_ids"])
    plain = list(tokenizer(_PROBE, add_special_tokens=False)["input_ids"])
    place = next(n for n in range(len(whole)) if whole[n : n + len(plain)] == plain)
    begins, ends = whole[:place], whole[place + len(plain) :]
    begin, end = (_shared_id(config, tokenizer, name) for name in ("bos_token_id", "eos_token_id"))
    if end is not None and ends and ends[-1] != end:
        return (), (end,)
    if begin is not None and not begins and config.model_type in _BEGUN:
        begins = [begin]
    if end is not None and not ends:
        ends = [end]
    return tuple(begins), tuple(ends)


def _shared_id(config: Any, tokenizer: PreTrainedTokenizerBase, name: str) -> int | None:
    """Return a special token that the tokenizer has and the model's config names; else None."""
    token, named = getattr(tokenizer, name, None), getattr(config, name, None)
    known = named if isinstance(named, list) else [named]
    return token if token is not None and token in known else None


def frame_ids(tokenizer: PreTrainedTokenizerBase) -> FrameIds:
    """Return the special ids that rows are built with.

    Raises:
        ConfigError: The tokenizer has no such token.
    """
    found: dict[str, int] = {}
    for name in ("pad", "cls", "sep", "mask"):
        number = getattr(tokenizer, f"{name}_token_id")
        if number is None:
            raise ConfigError(
                f"the tokenizer has no {name} token; rows of choices and kinds need it"
            )
        found[name] = int(number)
    return FrameIds(**found)


def _find_words(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return the ids of yes and no."""
    tokenize = make_tokenize(tokenizer)
    for words in YES_NO_WORDS:
        ids = [tokenize(word).ids_T for word in words]
        if all(len(own) == 1 and int(own[0]) != tokenizer.unk_token_id for own in ids):
            return int(ids[0][0]), int(ids[1][0])
    wanted = " or ".join("/".join(words) for words in YES_NO_WORDS)
    raise ConfigError(f"the vocabulary has no single tokens {wanted}; choices are scored by them")
