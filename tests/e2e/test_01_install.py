"""An older chart is installed; rights, pods and checks are as promised."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import CHART, HOME, RELEASE, TEAMS, Platform
from tests.e2e.kube import Kube
from tests.helpers.golden import assert_golden

OLD_FIELD, OLD_COLUMN = "pod", "ETA"
"""What the older CRD of TrainingRun did not have."""


def older_chart(folder: Path) -> Path:
    """Return a packaged chart of version 0.0.1 whose CRDs have another schema."""
    chart = folder / "older/fengshenbang"
    shutil.copytree(CHART, chart)
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    (chart / "Chart.yaml").write_text(yaml.safe_dump({**about, "version": "0.0.1"}))
    path = chart / "templates/crds/trainingruns.yaml"
    first, *body, last = path.read_text().rstrip("\n").split("\n")
    crd = yaml.safe_load("\n".join(body))
    version = crd["spec"]["versions"][0]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del spec["properties"][OLD_FIELD]
    columns = version["additionalPrinterColumns"]
    version["additionalPrinterColumns"] = [c for c in columns if c["name"] != OLD_COLUMN]
    path.write_text("\n".join([first, yaml.safe_dump(crd, allow_unicode=True), last]) + "\n")
    return chart


def test_what_is_missing_is_named(kube: Kube, platform: Platform, workdir: Path) -> None:
    chart = shutil.copytree(CHART, workdir / "missing")
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    about["kubeVersion"] = ">=9.0.0-0"
    (chart / "Chart.yaml").write_text(yaml.safe_dump(about))
    with pytest.raises(AssertionError, match="9.0.0"):
        platform.install(chart, workdir)


def test_an_older_chart_is_installed(platform: Platform, workdir: Path) -> None:
    chart = older_chart(workdir)
    platform.kube.run_helm("package", str(chart), "-d", str(workdir))
    began = time.monotonic()
    platform.install(workdir / "fengshenbang-0.0.1.tgz", workdir)
    platform.figures["helm install until everything is ready"] = time.monotonic() - began
    crd = platform.kube.get("crd", "trainingruns.fengshenbang.io")
    assert crd
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert OLD_FIELD not in spec["properties"]


def test_every_pod_of_the_release_runs_under_pss_restricted(platform: Platform) -> None:
    namespace = platform.kube.get("namespace", HOME)
    assert namespace
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pods = platform.kube.list("pods", HOME)
    assert len(pods) >= 3
    for pod in pods:
        assert pod["status"]["phase"] in ("Running", "Succeeded"), pod["metadata"]["name"]


def test_helm_test(platform: Platform) -> None:
    shown = platform.kube.run_helm("test", RELEASE, "-n", HOME, "--timeout", "3m")
    assert "Succeeded" in shown


ACCOUNTS: dict[str, tuple[str, str]] = {
    "operator": (HOME, "fengshenbang-operator"),
    "progress": (HOME, "fengshenbang-progress"),
    "run": (TEAMS[0], "fengshenbang-run"),
}


def test_service_accounts_may_do_no_more_than_written(
    platform: Platform, request: pytest.FixtureRequest
) -> None:
    rights: dict[str, Any] = {}
    for title, (namespace, account) in ACCOUNTS.items():
        assert platform.kube.get("serviceaccount", account, namespace), account
        for place in (HOME, TEAMS[0]):
            listed = platform.kube(
                "auth", "can-i", "--list", "-n", place,
                f"--as=system:serviceaccount:{namespace}:{account}",
            ).splitlines()[1:]  # fmt: skip
            rights[f"{title} in {'the release' if place == HOME else 'a team'}"] = sorted(
                " ".join(line.split()) for line in listed
            )
    assert_golden(request, "e2e_rights.json", rights)
