from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pyfsb
from pipelines.images import image
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FSB_IMAGE_DATA", "FSB_IMAGE_PREFIX", "FSB_IMAGE_TAG"):
        monkeypatch.delenv(name, raising=False)


def test_the_version_of_the_package_is_the_tag() -> None:
    assert image("data") == f"fengshenbang/data:{pyfsb.__version__}"


def test_images_may_come_from_a_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSB_IMAGE_PREFIX", "mirror:5000/x")
    monkeypatch.setenv("FSB_IMAGE_TAG", "dev")
    assert image("data") == "mirror:5000/x/data:dev"


def test_a_whole_name_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSB_IMAGE_PREFIX", "mirror")
    monkeypatch.setenv("FSB_IMAGE_DATA", "r/d@sha256:0")
    assert (image("data"), image("train")) == ("r/d@sha256:0", f"mirror/train:{pyfsb.__version__}")


def test_the_environment_of_an_installation_reaches_the_compiled_file(tmp_path: Path) -> None:
    """What the chart's Job sets before `python -m pipelines upload`."""
    environment = {
        **os.environ, "FSB_IMAGE_DATA": "r/d@sha256:0", "FSB_CREDENTIALS_SECRET": "keys",
        "FSB_IMAGE_PULL_SECRETS": "one, two", "FSB_STORE_ROOT": "s3://models/team/",
    }  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "pipelines", "compile", "--to", str(tmp_path)],
        env=environment, cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    text = (tmp_path / "benchmark.yaml").read_text()
    assert "image: r/d@sha256:0" in text
    assert "fengshenbang/data" not in text
    assert "secretName: keys" in text
    assert text.count("secretName: two") == 2
    assert "s3://models/team/runs/{run}" in text
    written = "".join(path.read_text() for path in tmp_path.rglob("*.yaml"))
    assert "s3://fengshenbang" not in written
