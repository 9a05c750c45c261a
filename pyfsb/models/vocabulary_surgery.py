# SPDX-License-Identifier: Apache-2.0
"""Other pieces for a model that is trained already: rows cut away, or new ones put behind.

Both work on every matrix that has a row a piece (embeddings of both sides, vocabulary head, its
bias), tied or not, and on the ids that the config names. Called by training, which starts from a
checkpoint with an extended vocabulary, and through the verbs for folders. Never trains.

Shapes: V vocabulary, H hidden.

Source: slicing as for Randeng-T5 (examples/pretrain_t5 at c8fb7b8); a new row is the mean of the
rows of the pieces that its text was cut into so far, our choice.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from pyfsb.config import Family
from pyfsb.errors import CheckpointError, ConfigError, DataError, StorageError
from pyfsb.models.building import shares_head, untie_head
from pyfsb.models.loading import load_model, load_tokenizer
from pyfsb.tokenizers.vocabulary_cut import (
    VocabularyCut,
    choose_kept,
    count_ids,
    cut_vocabulary,
)

Change = Callable[[Tensor, int], Tensor]
"""From a tensor and its dimension of pieces to the new tensor."""


def vocabulary_tensors(model: PreTrainedModel) -> dict[str, int]:
    """Return the names of a model's tensors that have a place a piece, with that dimension.

    A model with one piece more is built on the meta device: what became larger is one of them.

    Raises:
        ConfigError: The model has no vocabulary.
    """
    size = vocabulary_size(model.config)
    with torch.device("meta"):
        larger = type(model)(_with_size(model.config, size + 1))
    found: dict[str, int] = {}
    shapes = {name: tensor.shape for name, tensor in larger.state_dict().items()}
    for name, tensor in model.state_dict().items():
        pairs = zip(tensor.shape, shapes[name], strict=True)
        changed = [dim for dim, (before, after) in enumerate(pairs) if before != after]
        if changed:
            found[name] = changed[0]
    if not found:
        raise ConfigError(f"{type(model).__name__} has no table of pieces")
    return found


def cut_rows(tensor: Tensor, dim: int, kept: Sequence[int]) -> Tensor:
    """Return a tensor with only the rows of some ids, in their order."""
    return tensor.index_select(dim, torch.tensor(kept, dtype=torch.long, device=tensor.device))


def extend_rows(
    tensor: Tensor, dim: int, sources: Mapping[int, Sequence[int]], *, size: int, num_old: int
) -> Tensor:
    """Return a tensor with rows for new ids.

    Args:
        tensor: As it is.
        dim: Its dimension of pieces.
        sources: For each new id the old ones whose mean it gets; none: the mean of all old ones.
        size: Places afterwards, at least as many as before.
        num_old: Ids below this are pieces; further rows of the tensor are padding.
    """
    rows = tensor.movedim(dim, 0)
    grown = rows.new_zeros((size, *rows.shape[1:]))
    grown[: rows.shape[0]] = rows
    overall = rows[:num_old].float().mean(0).to(rows.dtype)
    for new, old in sources.items():
        grown[new] = rows[list(old)].float().mean(0).to(rows.dtype) if old else overall
    return grown.movedim(0, dim).contiguous()


def cut_model(model: PreTrainedModel, cut: VocabularyCut) -> PreTrainedModel:
    """Return a model whose ids are those of a cut vocabulary; kept ids keep their logits.

    Raises:
        ConfigError: The tokenizer has ids that the model has no rows for.
    """
    size = vocabulary_size(model.config)
    if cut.kept_ids[-1] >= size:
        raise ConfigError(f"id {cut.kept_ids[-1]} is to be kept; the model has {size} rows")
    smaller = _rebuild(
        model, lambda tensor, dim: cut_rows(tensor, dim, cut.kept_ids), size=len(cut.kept_ids)
    )
    new_ids = cut.new_ids
    _renumber(smaller.config, new_ids)
    if smaller.can_generate():
        _renumber(smaller.generation_config, new_ids)
    return smaller


def extend_model(
    model: PreTrainedModel, sources: Mapping[int, Sequence[int]], *, num_old: int
) -> PreTrainedModel:
    """Return a model with rows for new ids; logits of old ids stay as they are.

    Args:
        model: With the old vocabulary.
        sources: From `find_sources`.
        num_old: Pieces of the old vocabulary.
    """
    size = max(vocabulary_size(model.config), max(sources, default=-1) + 1)
    return _rebuild(
        model,
        lambda tensor, dim: extend_rows(tensor, dim, sources, size=size, num_old=num_old),
        size=size,
    )


def find_sources(
    old: PreTrainedTokenizerBase, pieces: Sequence[str], *, num_old: int
) -> dict[int, list[int]]:
    """Return, for each new piece of a vocabulary, the old ids that its text was cut into.

    Args:
        old: The tokenizer so far.
        pieces: The new vocabulary, ids in order; the first `num_old` are the old one's.
        num_old: Pieces of the old vocabulary.

    Raises:
        ConfigError: The old pieces are not the first of the new ones.
    """
    ids: dict[str, int] = old.get_vocab()
    for number in range(num_old):
        if ids.get(pieces[number], number) != number:
            raise ConfigError(
                f"piece {number} is {pieces[number]!r}, of id {ids[pieces[number]]} so far; an "
                "extended vocabulary begins with the old one"
            )
    unknown = old.unk_token_id
    return {
        number: [part for part in _split(old, ids, pieces[number]) if part != unknown]
        for number in range(num_old, len(pieces))
    }


def choose_pieces(source: Path, texts: Iterable[str], size: int) -> tuple[list[int], float]:
    """Choose the commonest pieces of texts, to be kept.

    Args:
        source: A model folder.
        texts: Normalised.
        size: Pieces at most; special tokens, sentinels and the unknown piece come on top.

    Returns:
        Their ids, and the share of the texts' tokens that are of them.

    Raises:
        CheckpointError: The folder is not usable, or its tokenizer is no `tokenizers` one.
        DataError: The texts have no token.
    """
    counts = count_ids(_backend(load_tokenizer(source), source), texts)
    if not counts:
        raise DataError("the texts have no token; expected some whose pieces are to be kept")
    kept = choose_kept(counts, size)
    return kept, sum(counts[number] for number in kept) / counts.total()


def cut_folder(source: Path, target: Path, keep: Iterable[int], family: Family) -> VocabularyCut:
    """Write a model folder with a cut vocabulary.

    Args:
        source: A model folder.
        target: Folder to make, it appears whole or not at all; `kept_ids.json` in it lists the
            old ids.
        keep: As of `cut_vocabulary`.
        family: Whose head the folder has.

    Raises:
        CheckpointError: The folder is not usable, or its tokenizer is no `tokenizers` one.
        ConfigError: The vocabulary cannot be cut.
    """
    tokenizer = load_tokenizer(source)
    cut = cut_vocabulary(_backend(tokenizer, source), keep)
    _new_folder(target)
    partial = target.with_name(f".partial-{target.name}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        cut_model(load_model(source, family, is_whole=True), cut).save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        cut.tokenizer.save(str(partial / "tokenizer.json"))
        _write_config(partial)
        (partial / "kept_ids.json").write_text(json.dumps(list(cut.kept_ids)) + "\n")
        target.rmdir()
        partial.rename(target)
    except OSError as exc:
        raise StorageError(f"{target}: cannot be written: {exc.strerror or exc}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return cut


def extend_folder(source: Path, tokenizer_folder: Path, target: Path, family: Family) -> int:
    """Write a model folder with the vocabulary of an extended tokenizer.

    Args:
        source: A model folder with the old tokenizer.
        tokenizer_folder: The tokenizer whose first pieces are the old ones.
        target: Folder to make.
        family: Whose head the folder has.

    Returns:
        How many pieces are new.

    Raises:
        CheckpointError: The folder is not usable.
        ConfigError: The new tokenizer does not begin with the old one.
    """
    old, new = load_tokenizer(source), load_tokenizer(tokenizer_folder)
    vocabulary: dict[str, int] = new.get_vocab()
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    sources = find_sources(old, pieces, num_old=len(old))
    _new_folder(target)
    extend_model(load_model(source, family), sources, num_old=len(old)).save_pretrained(target)
    new.save_pretrained(target)
    return len(sources)


def vocabulary_size(config: PreTrainedConfig) -> int:
    """Return the rows of a model's table of pieces."""
    return int(config.get_text_config().vocab_size)


def _rebuild(model: PreTrainedModel, change: Change, *, size: int) -> PreTrainedModel:
    """Return a model of the same class with other rows; the old one is left as it is."""
    names = vocabulary_tensors(model)
    rebuilt: PreTrainedModel = type(model)(_with_size(model.config, size))
    rebuilt.to(dtype=model.dtype, device=model.device)
    state = {
        name: change(tensor, names[name]) if name in names else tensor
        for name, tensor in model.state_dict().items()
    }
    is_shared = shares_head(model)
    if not is_shared and shares_head(rebuilt):
        untie_head(rebuilt)
    rebuilt.load_state_dict(state)
    if is_shared:
        rebuilt.tie_weights()
    if model.can_generate():
        rebuilt.generation_config = copy.deepcopy(model.generation_config)
    return rebuilt.train(model.training)


def _with_size(config: PreTrainedConfig, size: int) -> PreTrainedConfig:
    changed = copy.deepcopy(config)
    changed.get_text_config().vocab_size = size
    return changed


def _renumber(config: Any, new_ids: Mapping[int, int]) -> None:
    """Give the ids that a config names their new numbers; one that is gone becomes None."""
    for name, value in list(vars(config).items()):
        if not name.endswith(("_token_id", "_token_ids")):
            continue
        if isinstance(value, int):
            setattr(config, name, new_ids.get(value))
        elif isinstance(value, list):
            setattr(config, name, [new_ids[number] for number in value if number in new_ids])


def _split(old: PreTrainedTokenizerBase, ids: Mapping[str, int], piece: str) -> list[int]:
    """Return the old ids of a piece's text."""
    if piece.startswith("##"):
        continued = [ids.get(f"##{character}") for character in piece[2:]]
        known = [number for number in continued if number is not None]
        if len(known) == len(continued):
            return known
    text = old.convert_tokens_to_string([piece.removeprefix("##")]).strip()
    found: list[int] = old(text, add_special_tokens=False)["input_ids"]
    return found


def _backend(tokenizer: PreTrainedTokenizerBase, source: Path) -> Tokenizer:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise CheckpointError(f"{source}: {type(tokenizer).__name__} has no tokenizer.json to cut")
    return backend


def _new_folder(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} is not empty; name a folder that does not exist")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)


def _write_config(target: Path) -> None:
    """Leave out old ids of added tokens: tokenizer.json has the new ones."""
    path = target / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("added_tokens_decoder", None)
    path.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    for name in ("spiece.model", "vocab.txt", "added_tokens.json", "special_tokens_map.json"):
        (target / name).unlink(missing_ok=True)
