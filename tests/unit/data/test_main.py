from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from pyfsb.data.__main__ import main
from pyfsb.errors import ConfigError
from tests.helpers.specs import tiny_spec


def test_the_stage_tells_its_records_and_refuses_those_of_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tmp_path / "spec.yaml"
    monkeypatch.setenv("FSB_TERMINATION_LOG", str(tmp_path / "log"))
    monkeypatch.setattr(sys, "argv", ["x", "--spec", str(spec)])
    spec.write_text(yaml.safe_dump(tiny_spec(tmp_path / "out")))
    assert main() == 0
    told = json.loads((tmp_path / "log").read_text())
    assert told["record"] == str(tmp_path / "out/data/corpus")
    assert main() == 0
    assert json.loads((tmp_path / "log").read_text()) == told
    spec.write_text(yaml.safe_dump(tiny_spec(tmp_path / "out", data__min_characters=50)))
    with pytest.raises(ConfigError, match="is complete, but was made with other settings"):
        main()
