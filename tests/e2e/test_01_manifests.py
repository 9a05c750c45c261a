"""What the builders and the chart write is known to the CRDs that are installed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.e2e.conftest import TEAMS, Platform

GOLDEN = ROOT / "tests/golden"
BUILT = ("pytorchjob_cpu", "pytorchjob_a100", "pytorchjob_a100_rdma", "inferenceservice_a100")
OF_KSERVE = ("ClusterServingRuntime", "ClusterStorageContainer")


def manifests() -> list[dict[str, Any]]:
    """Return the goldens, which the unit tests compare with what the code writes."""
    built = [json.loads((GOLDEN / f"{name}.json").read_text()) for name in BUILT]
    chart = json.loads((GOLDEN / "charts/everything.json").read_text())
    return [*built, *(item for item in chart if item["kind"] in OF_KSERVE)]


def try_out(platform: Platform, manifest: dict[str, Any]) -> str:
    """Let the API server look at a manifest without keeping it; returns what it refuses."""
    if "namespace" in manifest["metadata"]:
        manifest["metadata"]["namespace"] = TEAMS[0]
    done = platform.kube.run(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts",
        "-f", "-", text=yaml.safe_dump(manifest),
    )  # fmt: skip
    return done.stderr if done.returncode else ""


@pytest.mark.parametrize("manifest", manifests(), ids=lambda item: str(item["kind"]))
def test_no_field_is_unknown(platform: Platform, manifest: dict[str, Any]) -> None:
    assert try_out(platform, manifest) == ""
    key = "predictor" if manifest["kind"] == "InferenceService" else None
    (manifest["spec"][key] if key else manifest["spec"])["noSuchField"] = 1
    assert "noSuchField" in try_out(platform, manifest)
