# SPDX-License-Identifier: Apache-2.0
"""Trains tokenizers other than WordPiece on a corpus: unigram (T5, BART) and byte-BPE (GPT-2).

Both keep every character: what a unigram vocabulary lacks is written in bytes. The same text gives
the same tokenizer. Called by `corpus_tokenizer`; never imports transformers.

Source: layouts as published: mT5 (pad 0, end 1, unknown 2, bytes, pieces, sentinels counted down
from the last id) and GPT-2 (`<|endoftext|>`, 256 bytes, merges). That numbers are cut into digits
and no space is put in front of a text is our choice.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from pyfsb.data.unigram import train_pieces
from pyfsb.errors import DataError

UNIGRAM_SPECIALS: Final = ("<pad>", "</s>", "<unk>", "<s>", "<mask>")
"""Ids 0 to 4; the first three as T5 has them, the others for BART."""
UNIGRAM_ROLES: Final = {
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "mask_token": "<mask>",
}
END_OF_TEXT: Final = "<|endoftext|>"
BYTE_BPE_ROLES: Final = {
    "bos_token": END_OF_TEXT,
    "eos_token": END_OF_TEXT,
    "unk_token": END_OF_TEXT,
    "pad_token": END_OF_TEXT,
}
_SPACE: Final = "▁"
_SEGMENT: Final = (
    rf"{_SPACE}?(?:\p{{Han}}+|\p{{N}}|(?:(?!\p{{Han}})[\p{{L}}\p{{M}}])+"
    rf"|[^\p{{L}}\p{{M}}\p{{N}}\s{_SPACE}]+)|{_SPACE}|\s"
)
"""What a piece never reaches out of: hanzi, a digit, letters of one word, or signs."""


def sentinel_names(num_sentinels: int) -> list[str]:
    """Return the sentinels in the order of their ids: <extra_id_0> is the last one."""
    return [f"<extra_id_{number}>" for number in reversed(range(num_sentinels))]


def train_unigram(texts: Iterable[str], *, size: int, num_sentinels: int = 0) -> Tokenizer:
    """Train a unigram tokenizer.

    Args:
        texts: Normalised documents.
        size: Pieces at most, special tokens, bytes and sentinels included.
        num_sentinels: Pieces <extra_id_i> at the end.

    Raises:
        DataError: The texts hold no character at all, or the size leaves no room for pieces.
    """
    cutter = _unigram_cutter()
    segments: Counter[str] = Counter()
    for text in texts:
        segments.update([segment for segment, _ in cutter.pre_tokenize_str(text)])
    bytes_of = [f"<0x{value:02X}>" for value in range(256)]
    room = size - len(UNIGRAM_SPECIALS) - len(bytes_of) - num_sentinels
    if room < 1:
        raise DataError(f"vocabulary.size = {size} leaves no room for pieces beside 256 bytes")
    with _one_thread():
        pieces = train_pieces(segments, size=room)
    sentinels = sentinel_names(num_sentinels)
    vocabulary = [
        *((name, 0.0) for name in (*UNIGRAM_SPECIALS, *bytes_of)),
        *pieces,
        *((name, 0.0) for name in sentinels),
    ]
    tokenizer = Tokenizer(
        models.Unigram(vocabulary, unk_id=UNIGRAM_SPECIALS.index("<unk>"), byte_fallback=True)
    )
    tokenizer.pre_tokenizer = cutter
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens([*UNIGRAM_SPECIALS, *sentinels])
    end = ("</s>", UNIGRAM_SPECIALS.index("</s>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[end]
    )
    return tokenizer


def train_byte_bpe(texts: Iterable[str], *, size: int, num_sentinels: int = 0) -> Tokenizer:
    """Train a byte-BPE tokenizer, arguments as of `train_unigram`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - num_sentinels,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    with _one_thread():
        tokenizer.train_from_iterator(texts, trainer)
    if num_sentinels:
        tokenizer.add_special_tokens(sentinel_names(num_sentinels))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _unigram_cutter() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="never", split=False),
            pre_tokenizers.Split(Regex(_SEGMENT), "isolated"),
        ]
    )


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Keep `tokenizers` on one thread: the order in which its threads end must not matter."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before
