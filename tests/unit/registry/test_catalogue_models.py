"""Each architecture of the catalogue does what its rows claim: built tiny, saved, loaded, asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyfsb.config import Family
from pyfsb.data.vocabulary import write_tokenizer
from pyfsb.inference.loading import load_folder
from pyfsb.inference.protocol import TextInput
from pyfsb.models.building import build_config, build_model
from pyfsb.models.heads import build_loss, default_layout
from pyfsb.models.loading import load_model
from pyfsb.registry import all_catalogue_rows
from pyfsb.registry.catalogue import FAMILIES, build_entry
from pyfsb.registry.entry import ModelEntry
from pyfsb.registry.sizes import tiny_config
from tests.helpers.models import PIECES

LABELS = {
    Family.CLASSIFY: ("差评", "好评"),
    Family.PAIR: ("不同", "相同"),
    Family.TAG: ("O", "B-地点", "I-地点"),
}
# Encoder-decoders and two towers have tests with their predictors; ZEN needs a lexicon, and has too.
ELSEWHERE = {"bart", "mt5", "t5", "chinese_clip", "zen1"}
CASES = [
    (architecture, family)
    for architecture, families in FAMILIES.items()
    if architecture not in ELSEWHERE
    for family in families
]


def first_entry(architecture: str) -> ModelEntry:
    row = next(
        r for r in all_catalogue_rows() if r.architecture == architecture and not r.entry_name
    )
    return build_entry(row)


@pytest.mark.parametrize(("architecture", "family"), CASES)
def test_a_model_of_the_catalogue_is_built_loaded_and_asked(
    tmp_path: Path, architecture: str, family: Family
) -> None:
    entry = first_entry(architecture)
    labels = LABELS.get(family, ())
    config = build_config(entry, tiny_config(entry), vocabulary=PIECES)
    model = build_model(config, family, seed=1, labels=labels)
    model.save_pretrained(tmp_path)
    write_tokenizer(PIECES, tmp_path, lowercase=True)
    reloaded = load_model(tmp_path, family)
    assert type(reloaded) is type(model)
    build_loss(reloaded, family, default_layout(architecture, "cpu"))
    predictor = load_folder(tmp_path, family, name=entry.name, max_tokens=32)
    text = "中国[MASK]民" if family is Family.FILL_MASK else "中国人民"
    pair = "北京" if family is Family.PAIR else None
    (found,) = predictor.predict([TextInput(text=text, text_pair=pair)])
    value: dict[str, Any] = found.to_json()
    if family in (Family.CLASSIFY, Family.PAIR):
        assert set(value["scores"]) == set(labels)
        assert sum(value["scores"].values()) == pytest.approx(1.0, abs=1e-4)
    elif family is Family.TAG:
        assert all(text[e["start"] : e["end"]] == e["text"] for e in value["entities"])
    elif family is Family.FILL_MASK:
        assert len(value["masks"]) == 1
    else:
        assert value["num_tokens"] > 0
