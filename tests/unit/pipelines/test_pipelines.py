from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipelines.compile import FOLDER, PIPELINES, compile_pipeline
from pipelines.images import image
from pipelines.local_engine import run
from pyfsb.config import resolve_spec
from pyfsb.engines.protocol import RunResult
from pyfsb.errors import ConfigError
from tests.helpers.specs import tiny_spec


@pytest.mark.parametrize("name", PIPELINES)
def test_the_committed_file_is_what_the_source_compiles_to(name: str, tmp_path: Path) -> None:
    compiled = compile_pipeline(name, tmp_path)
    ours, committed = (
        yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in (compiled, FOLDER / f"{name}.yaml")
    )
    assert ours == committed


def _executors() -> dict[str, dict[str, object]]:
    value = yaml.safe_load((FOLDER / "end_to_end.yaml").read_text(encoding="utf-8"))
    found: dict[str, dict[str, object]] = value["deploymentSpec"]["executors"]
    return found


def test_tasks_use_stage_images_and_install_nothing() -> None:
    executors = _executors()
    images = {name: executor["container"]["image"] for name, executor in executors.items()}  # type: ignore[index]
    assert images == {
        "exec-prepare": image("data"), "exec-train": image("train"),
        "exec-evaluate": image("eval"), "exec-deploy": image("serving"),
    }  # fmt: skip
    assert "pip install" not in yaml.safe_dump(executors)


def test_no_weights_pass_through_artifacts() -> None:
    text = (FOLDER / "end_to_end.yaml").read_text(encoding="utf-8")
    assert "system.Model" not in text
    assert "system.Dataset" not in text


def test_components_are_short() -> None:
    for path in (FOLDER.parent / "components").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").split("\n")) <= 60, path


def test_images_may_come_from_a_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSB_IMAGE_PREFIX", "mirror/x")
    assert image("data").startswith("mirror/x/data:")


def test_the_engine_says_what_it_cannot_do(tmp_path: Path) -> None:
    spec = resolve_spec(yaml.safe_dump(tiny_spec(tmp_path)))
    with pytest.raises(ConfigError, match="runs all stages; this spec has only data, training"):
        run(spec, RunResult(), keeps_serving=False)
    with pytest.raises(ConfigError, match="--serve"):
        run(spec, RunResult(), keeps_serving=True)
