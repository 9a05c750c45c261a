from __future__ import annotations

import json
import re
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

from pipelines import pages
from pyfsb.config import Stage, resolve_spec
from pyfsb.errors import DataError
from pyfsb.records import CheckpointRecord, EvalReport
from tests.helpers.specs import tiny_spec
from tests.unit.pipelines.samples import GATE, checkpoint, report, serving


def drawing(page: str) -> ET.Element:
    """Return the SVG of a page."""
    found = re.search(r"<svg.*</svg>", page)
    assert found
    return ET.fromstring(found[0])


def places(page: str, name: str) -> list[tuple[float, float]]:
    line = next(item for item in drawing(page).iter("polyline") if item.get("class") == name)
    return [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]


def test_a_falling_loss_falls() -> None:
    page = pages.draw_curve("first", [(step, 9.0 - step / 100) for step in range(1, 301)])
    raw = places(page, "raw")
    assert len(raw) == 300
    assert raw == sorted(raw)
    assert [y for _, y in raw] == sorted(y for _, y in raw)  # y grows downwards
    width, height = map(int, drawing(page).get("viewBox").split()[2:])
    assert all(0 <= x <= width and 0 <= y <= height for x, y in raw)
    labels = [text.text for text in drawing(page).iter("text")]
    assert {"step 1", "step 300", "8.990", "6.000"} <= set(labels)


def test_a_long_training_stays_small_and_keeps_its_end() -> None:
    page = pages.draw_curve("first", [(step, 1.0 / step) for step in range(1, 1_000_001, 5)])
    assert len(page) < 20_000
    assert len(places(page, "mean")) <= 402
    assert places(page, "raw")[-1][0] == 712.0


@pytest.mark.parametrize("points", [[(1, 2.0)], [(3, 2.0), (4, 2.0)]])
def test_flat_and_single_points_are_drawn(points: list[tuple[int, float]]) -> None:
    assert len(places(pages.draw_curve("x", points), "raw")) == len(points)


def test_nothing_is_fetched_or_run_by_the_page() -> None:
    page = pages.draw_curve("<b>", [(1, 1.0)])
    assert "<script" not in page
    assert "http" not in page
    assert "&lt;b&gt;" in page


def test_the_curve_is_read_from_the_training(tmp_path: Path) -> None:
    spec = resolve_spec(yaml.safe_dump(tiny_spec(tmp_path)))
    assert "No steps were taken" in pages.loss_curve(spec)
    folder = Path(spec.output_of(Stage.TRAINING))
    folder.mkdir()
    lines = [json.dumps({"step": step, "loss": 1.0, "epoch": 0}) for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert len(places(pages.loss_curve(spec), "raw")) == 2


def test_the_score_table_says_what_the_gate_decided() -> None:
    table = pages.score_table(report())
    assert "Gate **passed**: 0.812 on 300 rows" in table
    assert "| mine | finetune | accuracy | 0.812 | 0.760 to 0.850 | 0.500 | 300 | 1e-09 |" in table
    no = GATE.model_copy(update={"has_passed": False})
    assert "**not passed**" in pages.score_table(report(no))


def test_the_gates_checkpoint_is_what_is_registered() -> None:
    ngram = GATE.model_copy(update={"runner": "ngram"})
    place = "s3://b/out/evaluation"
    assert pages.served_checkpoint(report(), place) == "s3://b/out/evaluation/mine/finetune-42"
    assert pages.served_checkpoint(report(ngram), place).endswith("mine/ngram-42")


def test_the_command_on_the_service_card_can_be_pasted() -> None:
    card = pages.service_card(serving())
    command = next(line for line in card.split("\n") if line.startswith("curl"))
    words = shlex.split(command)
    assert words[2] == "http://first.team/v2/models/mine/infer"
    assert json.loads(words[-1])["inputs"][0]["data"] == ["it's 好"]
    assert "Answers at" in card
    assert "then stopped" in pages.service_card(serving(is_running=False))


def test_the_model_card_stands_for_the_weights() -> None:
    card = pages.model_card(checkpoint(), "s3://b/out/training")
    assert card["uri"] == "s3://b/out/training/"
    assert card["digest"] == checkpoint().digest
    assert (card["step"], card["loss"]) == (7, 6.5)
    assert len(json.dumps(card)) < 1000


def test_a_stage_without_its_record_is_an_error() -> None:
    assert pages.only([report(), checkpoint()], CheckpointRecord) == checkpoint()
    with pytest.raises(DataError, match="left no EvalReport"):
        pages.only([checkpoint()], EvalReport)
