# SPDX-License-Identifier: Apache-2.0
"""Other Chinese models: the community's list of 49 headings and 150 rows, with facts and support.

A row whose class there is becomes a `ModelEntry`, so a run spec may name it and fine-tune or score
its weights; the others say why there is none. Used by `fsb models` and wherever a spec's model is
looked up. Reads `catalogue.tsv` of this package, once; never imports torch.
"""

from __future__ import annotations

import csv
import importlib.resources
from collections import Counter
from functools import cache
from typing import Final

from pyfsb.config import Family, ObjectiveName
from pyfsb.errors import ConfigError, UnknownNameError
from pyfsb.registry.catalogue_facts import HEADINGS, ROWS, HeadingFacts, RowFacts
from pyfsb.registry.catalogue_rows import HUB_PAGES, IN_PUBLIC_CODE, MODELS, OWN_ENTRIES
from pyfsb.registry.catalogue_sizes import SIZES
from pyfsb.registry.entry import Architecture, ModelEntry, TokenizerKind
from pyfsb.registry.lookup import all_entries, find_entry, loosen, shown_names
from pyfsb.registry.taxonomy import Demand, Series, Task
from pyfsb.schema import Schema

_FILE: Final = "catalogue.tsv"
_UNLISTED: Final = (
    "The list names no repository; this one is from memory and was found nowhere else."
)
_LABELLED: Final = (Family.CLASSIFY, Family.PAIR, Family.TAG)
FAMILIES: Final[dict[Architecture, tuple[Family, ...]]] = {
    "albert": (Family.FILL_MASK, *_LABELLED),
    "bart": (Family.REWRITE,),
    "bert": (Family.FILL_MASK, *_LABELLED),
    "bloom": (Family.GENERATE, *_LABELLED),
    "chinese_clip": (Family.IMAGE_TEXT,),
    "electra": _LABELLED,
    "ernie": (Family.FILL_MASK, *_LABELLED),
    "gpt2": (Family.GENERATE, *_LABELLED),
    "mobilebert": (Family.FILL_MASK, *_LABELLED),
    "mt5": (Family.REWRITE,),
    "openai-gpt": (Family.GENERATE, Family.CLASSIFY, Family.PAIR),
    "roberta": (Family.FILL_MASK, *_LABELLED),
    "roformer": (Family.FILL_MASK, *_LABELLED),
    "t5": (Family.REWRITE,),
    "xlnet": _LABELLED,
    "zen1": (Family.FILL_MASK, *_LABELLED),
}
"""What the classes of an architecture can be asked for, or fine-tuned to; the first one is what
the published weights do best."""
_OBJECTIVES: Final[dict[Family, ObjectiveName]] = {
    Family.GENERATE: ObjectiveName.CAUSAL_LM,
    Family.REWRITE: ObjectiveName.TEXT_INFILLING,
    Family.IMAGE_TEXT: ObjectiveName.CONTRASTIVE,
}
_TASKS: Final = {
    "NLU系列": Task.NLU,
    "NLG系列": Task.NLG,
    "NLU-NLG系列": Task.NLU,
    "Multi-Modal": Task.MULTIMODAL,
    "Table": Task.DOMAIN,
}


class CatalogueRow(Schema):
    """One row of the list, with what is known of its model."""

    name: str
    """What a user calls it: the model, with version, author or domain where that is not enough."""
    group: str
    """Group of the list."""
    heading: str
    """Heading of the list."""
    model: str
    """Model as the list writes it."""
    version: str
    """Size or parameters as the list writes them."""
    frameworks: tuple[str, ...]
    """Frameworks that weights are published for, as the list says; empty: it does not."""
    author: str
    """Who published it."""
    source_repository: str
    """Repository on GitHub; empty: none is named."""
    hub_ids: tuple[str, ...]
    """Repositories on the Hugging Face hub, the list's own first."""
    domain: str
    """What its text is about, in Chinese, as the list has it."""
    architecture: Architecture | None
    """`model_type` of the class that loads it; None: there is none."""
    families: tuple[Family, ...]
    """What it can be asked for or fine-tuned to; empty without a class."""
    tokenizer: TokenizerKind
    """Kind of its tokenizer."""
    entry_name: str
    """Entry of the family that it is; empty: of none."""
    facts: str
    """What makes it what it is."""
    why_not: str
    """Why no class loads it; empty where one does."""
    known_issues: tuple[str, ...]
    """What to mind."""

    @property
    def is_supported(self) -> bool:
        """Whether a run spec may name it."""
        return self.architecture is not None


@cache
def all_catalogue_rows() -> tuple[CatalogueRow, ...]:
    """Return the 150 rows of the list, in its order.

    Raises:
        ConfigError: A heading has no facts.
    """
    text = importlib.resources.files("pyfsb.registry").joinpath(_FILE).read_text("utf-8")
    raw = list(csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    return tuple(_build_row(row, name) for row, name in zip(raw, _names(raw), strict=True))


@cache
def added_rows() -> tuple[CatalogueRow, ...]:
    """Return models that the list does not have yet, in the same form."""
    raw = [
        {
            "group": "NLU系列", "heading": "LERT", "model": f"LERT-{size}", "version": size,
            "frameworks": "TensorFlow+PyTorch", "author": "Yiming Cui",
            "source_repository": "ymcui/LERT", "hub_ids": f"hfl/chinese-lert-{size}",
            "domain": "通用",
        }
        for size in ("base", "large")
    ]  # fmt: skip
    return tuple(_build_row(row, row["model"]) for row in raw)


@cache
def all_headings() -> tuple[str, ...]:
    """Return the 49 headings of the list, in its order."""
    return tuple(dict.fromkeys(row.heading for row in all_catalogue_rows()))


def find_catalogue(name: str) -> CatalogueRow:
    """Return the row with this name, or with this repository, compared without case.

    Hyphens, underscores and spaces may stand for each other or be left out.

    Raises:
        UnknownNameError: There is none, or several are meant; carries them.
    """
    rows = (*all_catalogue_rows(), *added_rows())
    wanted = loosen(name)
    exact = [row for row in rows if wanted == loosen(row.name)]
    found = exact or [
        row
        for row in rows
        if wanted in (loosen(row.model), *(loosen(hub_id) for hub_id in row.hub_ids))
    ]
    if len(found) == 1:
        return found[0]
    if found:
        names = [row.name for row in found]
        raise UnknownNameError(f"model (several: {', '.join(names)})", name, names)
    raise UnknownNameError("model of the catalogue", name, [row.name for row in rows])


def find_model(name: str) -> ModelEntry:
    """Return the entry of a model of the family, or of one of the catalogue.

    Args:
        name: Any of a model's names, or its repository on the hub.

    Raises:
        UnknownNameError: It is in neither; carries the nearest names of both.
        ConfigError: It is in the catalogue and no class loads it; says why.
    """
    try:
        return find_entry(name)
    except UnknownNameError:
        try:
            row = find_catalogue(name)
        except UnknownNameError as exc:
            if "several" in exc.kind:
                raise
            _refuse_group(name)
            known = [shown for entry in all_entries() for shown in shown_names(entry)]
            known += [row.name for row in (*all_catalogue_rows(), *added_rows())]
            raise UnknownNameError("model", name, known) from None
    return build_entry(row)


def _refuse_group(name: str) -> None:
    """Say which models a name stands for that is a series or a heading of the list.

    Raises:
        UnknownNameError: Carries the models, or the command that lists them.
    """
    wanted = loosen(name)
    for series in Series:
        if series is not Series.OTHER and wanted in (loosen(series.value), loosen(series.chinese)):
            raise UnknownNameError(
                f"model (a series: `fsb models list --series {series.value}` has its models)",
                name, [entry.name for entry in all_entries() if entry.series is series],
            )  # fmt: skip
    rows = [row.name for row in all_catalogue_rows() if loosen(row.heading) == wanted]
    if rows:
        raise UnknownNameError(
            f"model (a heading of the catalogue; its models: {', '.join(rows)})", name, rows
        )


def build_entry(row: CatalogueRow) -> ModelEntry:
    """Return a row of the catalogue as an entry.

    Raises:
        ConfigError: No class loads its model.
    """
    if row.entry_name:
        return find_entry(row.entry_name)
    if row.architecture is None:
        raise ConfigError(
            f"{row.name} has no class in transformers: {row.why_not}; `fsb models list "
            "--catalogue` shows those that have one"
        )
    size = SIZES[MODELS[_key(row.heading, row.model, row.version, row.author)][0]]
    issues = row.known_issues
    if row.frameworks and "PyTorch" not in row.frameworks:
        frameworks = " and ".join(row.frameworks)
        issues = (*issues, f"The authors publish weights for {frameworks} only: convert them.")
    family = row.families[0]
    return ModelEntry(
        name=row.name,
        series=Series.OTHER,
        demand=Demand.GENERAL if row.domain in ("通用", "中文通用") else Demand.SPECIAL,
        task=_TASKS[row.group],
        family=family,
        other_families=row.families[1:],
        architecture=row.architecture,
        config=size.config,
        num_parameters=size.num_parameters,
        max_tokens=size.max_tokens,
        objective=_OBJECTIVES.get(family, ObjectiveName.WHOLE_WORD),
        tokenizer=row.tokenizer,
        hub_id=row.hub_ids[0] if row.hub_ids else "",
        other_hub_ids=row.hub_ids[1:],
        licence="see its repository",
        known_issues=issues,
        our_choices=("config: sizes that name and version stand for; a checkpoint brings its own",),
        source=f"community list of Chinese models; {row.facts}",
    )


def _build_row(raw: dict[str, str], name: str) -> CatalogueRow:
    """Return a row of the list joined with the facts of its heading."""
    heading, model = raw["heading"], raw["model"]
    facts = _headings().get(heading)
    if facts is None:
        raise ConfigError(f"heading {heading!r} of the catalogue has no facts")
    special = _special_rows().get((heading, model))
    chosen: HeadingFacts | RowFacts = special or facts
    key = _key(heading, model, raw["version"], raw["author"])
    _, known_hub_id = MODELS.get(key, ("", ""))
    listed = [] if raw["hub_ids"] == "-" else raw["hub_ids"].split()
    why_not = ""
    if chosen.architecture is None:
        why_not = facts.why_not or (special.note if special else "")
    issues = facts.known_issues
    if special and special.architecture:
        issues = (special.note,)
    if known_hub_id and known_hub_id not in {*listed, *HUB_PAGES, *IN_PUBLIC_CODE}:
        issues = (*issues, _UNLISTED)
    return CatalogueRow(
        name=name,
        group=raw["group"],
        heading=heading,
        model=model,
        version=raw["version"],
        frameworks=() if raw["frameworks"] == "-" else tuple(raw["frameworks"].split("+")),
        author=raw["author"],
        source_repository="" if raw["source_repository"] == "-" else raw["source_repository"],
        hub_ids=tuple(dict.fromkeys([*listed, *([known_hub_id] if known_hub_id else [])])),
        domain=raw["domain"],
        architecture=chosen.architecture,
        families=_families(chosen, key),
        tokenizer=chosen.tokenizer,
        entry_name=OWN_ENTRIES.get(key, ""),
        facts=facts.facts,
        why_not=why_not,
        known_issues=issues,
    )


def _families(facts: HeadingFacts | RowFacts, key: str) -> tuple[Family, ...]:
    """Return what a row can be asked for."""
    if facts.architecture is None:
        return ()
    if key in OWN_ENTRIES:
        return find_entry(OWN_ENTRIES[key]).families
    return facts.families or FAMILIES[facts.architecture]


def _key(heading: str, model: str, version: str, author: str) -> str:
    """Return the key of a row in the data files."""
    key = f"{heading}/{model}/{version}"
    return f"{key}/{author}" if f"{key}/{author}" in MODELS else key


def _names(raw: list[dict[str, str]]) -> list[str]:
    """Return a name for every row: the model, and as much beside it as tells it from others."""
    names = [row["model"].strip() for row in raw]
    for field in ("version", "author", "domain"):
        counts = Counter(loosen(name) for name in names)
        names = [
            f"{name} {row[field]}" if counts[loosen(name)] > 1 else name
            for name, row in zip(names, raw, strict=True)
        ]
    return names


@cache
def _headings() -> dict[str, HeadingFacts]:
    return {facts.heading: facts for facts in HEADINGS}


@cache
def _special_rows() -> dict[tuple[str, str], RowFacts]:
    return {(facts.heading, model): facts for facts in ROWS for model in facts.models}
