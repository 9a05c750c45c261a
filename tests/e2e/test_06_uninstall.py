"""The release goes; data, custom resources and their definitions stay."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import HOME, RELEASE, Platform
from tests.e2e.kube import GROUP, wait_for
from tests.e2e.test_02_run import OUTPUT, TEAM, name_of

KINDS = ("datapreparations", "trainingruns", "evaluations", "servedmodels")


def test_uninstall_keeps_what_is_not_the_releases_own(platform: Platform, store: str) -> None:
    kube = platform.kube
    name = name_of(platform, "trainingruns", TEAM, OUTPUT)
    tables = "\n".join(
        kube("get", f"{kind}.{GROUP}", "--all-namespaces", "-o", "wide") for kind in KINDS
    )
    print(tables)
    claims = {claim["metadata"]["name"] for claim in kube.list("persistentvolumeclaims", HOME)}
    assert claims, "the store of this test lies on a claim"
    kube.run_helm("uninstall", RELEASE, "-n", HOME, "--wait")
    for kind in KINDS:
        assert kube.get("crd", f"{kind}.{GROUP}"), kind
    assert kube.get(f"trainingruns.{GROUP}", name, TEAM)
    left = {claim["metadata"]["name"] for claim in kube.list("persistentvolumeclaims", HOME)}
    assert left == claims
    wait_for(
        lambda: not [p for p in kube.list("pods", HOME) if p["status"]["phase"] == "Running"],
        "the release's pods to end", 90,
    )  # fmt: skip


def test_installed_again_it_goes_on_where_it_was(platform: Platform, workdir: Path) -> None:
    from tests.e2e.conftest import CHART

    name = name_of(platform, "trainingruns", TEAM, OUTPUT)
    before = platform.kube.status("trainingruns", name, TEAM)
    platform.install(CHART, workdir)
    assert platform.kube.status("trainingruns", name, TEAM)["digest"] == before["digest"]
    for title, seconds in platform.figures.items():
        print(f"{title}: {seconds:.1f} s")
