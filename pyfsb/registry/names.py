# SPDX-License-Identifier: Apache-2.0
"""The rule of the family's names, Series-Model-Parameters-Extra, and what breaks it.

Used by the command line and tests; `lookup` finds entries and needs no rule. Never reads a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from pyfsb.errors import UnknownNameError
from pyfsb.registry.taxonomy import Series

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)([MB])", re.IGNORECASE)
_UNITS: Final = {"M": 1e6, "B": 1e9}
_SPELLINGS: Final = {
    word.casefold(): word
    for word in (
        "BART", "BERT", "Chinese", "CLIP", "CWS", "DeBERTa", "Denoise", "English", "GPT2", "LLaMA",
        "Longformer", "MegatronBert", "MegatronT5", "NLI", "Pegasus", "RoBERTa", "Sentiment",
        "SentencePiece", "Similarity", "Summary", "T5", "Transformer", "UBERT", "Unified", "UniMC",
        "ViT", "ZEN1", "ZEN2",
    )
}  # fmt: skip
_FAMILY: Final = tuple(series for series in Series if series is not Series.OTHER)
_LEGACY_SERIES: Final = {"bigan": Series.RANDENG}
"""Series that were given up, with the one that took their models. Source: documentation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NameParts:
    """A model's name by the rule."""

    series: Series
    """The series, also where it is written in Chinese or under its old name."""
    model: str
    """Architecture; empty where the name gives none."""
    num_parameters: int
    """Parameters as the name states them; 0 where it states none."""
    extra: tuple[str, ...]
    """What follows the parameters: language, task, tokenizer."""
    deviations: tuple[str, ...]
    """How the name breaks the rule; empty where it does not."""


def parse_name(name: str) -> NameParts:
    """Take a model's name apart.

    Args:
        name: Such as Erlangshen-DeBERTa-v2-97M-CWS-Chinese, with or without the organisation.

    Raises:
        UnknownNameError: It starts with no series.

    Source: arXiv:2209.02970, section 3.2 for the rule; the deviations are our reading.
    """
    deviations: list[str] = []
    bare = name.rpartition("/")[2]
    if "_" in bare:
        deviations.append("parts are joined by underscores")
    first, *rest = re.split(r"[-_]", bare)
    series = _find_series(first, name, deviations)
    sizes = [place for place, part in enumerate(rest) if _SIZE.fullmatch(part)]
    num_parameters = 0
    if sizes:
        place = sizes[0]
        model, extra = rest[:place], rest[place + 1 :]
        found = _SIZE.fullmatch(rest[place])
        assert found
        num_parameters = round(float(found[1]) * _UNITS[found[2].upper()])
        if found[2].islower():
            deviations.append(f"the unit of {rest[place]} is in lower case")
    else:
        model, extra = rest, []
        deviations.append("no number of parameters")
    if not model:
        deviations.append("no model between series and parameters")
    for part in (*model, *extra):
        usual = _SPELLINGS.get(part.casefold(), part)
        if usual != part:
            deviations.append(f"{part} is elsewhere spelled {usual}")
    return NameParts(
        series=series,
        model="-".join(model),
        num_parameters=num_parameters,
        extra=tuple(extra),
        deviations=tuple(deviations),
    )


def _find_series(first: str, name: str, deviations: list[str]) -> Series:
    for series in _FAMILY:
        for written in (series.value, series.chinese):
            if not first.casefold().startswith(written.casefold()):
                continue
            rest = first[len(written) :]
            if rest:
                deviations.append(f"the series carries {rest!r}")
            if written == series.chinese:
                deviations.append("the series is in Chinese")
            return series
    legacy = _LEGACY_SERIES.get(first.casefold())
    if legacy:
        deviations.append(f"{first} is an old series; its models are now {legacy.value}'s")
        return legacy
    known = [series.value for series in _FAMILY]
    raise UnknownNameError(f"series (known: {', '.join(known)}) in {name!r}", first, known)
