"""Raw text to a served model by one command, while the release is upgraded under it."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from pyfsb import records, storage
from pyfsb.training.meters import StepMetrics
from tests.conftest import ROOT
from tests.e2e.conftest import BUCKET, CHART, HOME, TEAMS, Platform, write_cluster_spec
from tests.e2e.kube import GROUP, wait_for
from tests.e2e.test_01_install import OLD_COLUMN, OLD_FIELD
from tests.helpers.specs import fsb, fsb_command

TEAM = TEAMS[0]
OUTPUT = f"{BUCKET}/runs/e2e"
WIDE = ("--engine", "kubernetes", "--nodes", "2", "--processes-per-node", "2")


def start_run(spec: Path, log: Path, namespace: str) -> subprocess.Popen[bytes]:
    """Start `fsb run` against the cluster, two nodes with two processes each."""
    command = fsb_command("run", str(spec), *WIDE, "--namespace", namespace, "--output", "json")
    return subprocess.Popen(
        command, cwd=ROOT, stdout=log.with_suffix(".out").open("wb"), stderr=log.open("wb")
    )


def end_of(process: subprocess.Popen[bytes], log: Path, seconds: float) -> dict[str, Any]:
    """Wait for `fsb run`; returns what it printed."""
    code = process.wait(seconds)
    assert code == 0, log.read_text()[-4000:]
    found: dict[str, Any] = json.loads(log.with_suffix(".out").read_text())
    return found


def name_of(platform: Platform, kind: str, namespace: str, output: str) -> str:
    """Return the resource of a kind that works on an output."""

    def look() -> str | None:
        for item in platform.kube.list(f"{kind}.{GROUP}", namespace):
            if item["spec"].get("run", {}).get("output") == output:
                return str(item["metadata"]["name"])
        return None

    return wait_for(look, f"a {kind} for {output}", 120)


def losses(output: str) -> dict[int, float]:
    """Return the loss of each step of a run's training."""
    lines = storage.read_text(f"{output}/training/metrics.jsonl").splitlines()
    steps: list[StepMetrics] = [json.loads(line) for line in lines]
    assert len({step["step"] for step in steps}) == len(steps), "a step was logged twice"
    return {step["step"]: step["loss"] for step in steps}


@pytest.fixture(scope="module")
def running(platform: Platform, store: str, workdir: Path) -> tuple[subprocess.Popen[bytes], Path]:
    spec, log = write_cluster_spec(workdir, OUTPUT), workdir / "run.log"
    platform.figures["started"] = time.monotonic()
    return start_run(spec, log, TEAM), log


def test_training_runs_on_two_nodes_and_reports_progress(
    platform: Platform, running: tuple[subprocess.Popen[bytes], Path]
) -> None:
    name = name_of(platform, "trainingruns", TEAM, OUTPUT)
    began = time.monotonic()

    def look() -> dict[str, Any] | None:
        status = platform.kube.status("trainingruns", name, TEAM)
        return status if (status.get("progress") or {}).get("step") else None

    status = wait_for(look, f"progress of {name}; see {running[1]}", 150)
    platform.figures["TrainingRun applied to first reported step"] = time.monotonic() - began
    assert status["phase"] == "Running"
    assert status["progress"]["totalSteps"] == 60
    assert float(status["progress"]["loss"]) > 0
    pods = platform.kube.list("pods", TEAM, "-l", f"{GROUP}/run={name}")
    assert len(pods) == 2
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    table = platform.kube("get", "trainingruns", "-n", TEAM)
    assert name in table


def test_an_upgrade_leaves_the_run_alone(
    platform: Platform, running: tuple[subprocess.Popen[bytes], Path], workdir: Path
) -> None:
    name = name_of(platform, "trainingruns", TEAM, OUTPUT)
    before = platform.kube.list("pods", TEAM, "-l", f"{GROUP}/run={name}")
    resource = platform.kube.get(f"trainingruns.{GROUP}", name, TEAM)
    platform.install(CHART, workdir)
    crd = platform.kube.get("crd", f"trainingruns.{GROUP}")
    assert crd
    version = crd["spec"]["versions"][0]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert OLD_FIELD in spec["properties"]
    assert OLD_COLUMN in [column["name"] for column in version["additionalPrinterColumns"]]
    after = platform.kube.get(f"trainingruns.{GROUP}", name, TEAM)
    assert resource and after
    assert after["metadata"]["uid"] == resource["metadata"]["uid"]
    now = platform.kube.list("pods", TEAM, "-l", f"{GROUP}/run={name}")
    uids = {pod["metadata"]["uid"] for pod in before}
    assert {pod["metadata"]["uid"] for pod in now} <= uids
    status = platform.kube.wait_for_phase("trainingruns", name, TEAM, "Succeeded", seconds=200)
    assert not status.get("restarts")
    record = records.read_record(status["record"])
    assert record.digest == status["digest"]


def test_the_run_ends_with_scores_and_an_answer(
    platform: Platform, running: tuple[subprocess.Popen[bytes], Path]
) -> None:
    process, log = running
    shown = end_of(process, log, 400)
    platform.figures["fsb run, raw text to a served model"] = (
        time.monotonic() - platform.figures.pop("started")
    )
    assert [stage["stage"] for stage in shown["stages"]][-1] == "serving"
    assert len(losses(OUTPUT)) == 60
    name = name_of(platform, "evaluations", TEAM, OUTPUT)
    status = platform.kube.status("evaluations", name, TEAM)
    assert status["phase"] == "Succeeded"
    assert status["gatePassed"] is True
    assert {score["task"] for score in status["scores"]} == {"tnews"}
    assert all(score["numRows"] > 300 for score in status["scores"])
    served = records.read_record(f"{OUTPUT}/serving")
    assert served.kind == "ServingRecord"
    for kind in ("datapreparations", "trainingruns", "evaluations", "servedmodels"):
        print(platform.kube("get", f"{kind}.{GROUP}", "-n", TEAM))


def test_the_same_command_finds_its_work_done(platform: Platform, workdir: Path) -> None:
    began = time.monotonic()
    done = fsb("run", str(workdir / "spec.yaml"), *WIDE, "--namespace", TEAM, "--output", "json")
    assert done.returncode == 0, done.stderr[-3000:]
    platform.figures["the same fsb run again"] = time.monotonic() - began
    assert all(stage["was_complete"] for stage in json.loads(done.stdout)["stages"][:3])


def test_the_leaderboard_shows_it(platform: Platform) -> None:
    import urllib.request

    with platform.kube.forward(HOME, "svc/fengshenbang-leaderboard", 80) as port:

        def look() -> bool:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                return "tnews" in answer.read().decode()

        assert wait_for(look, "the run on the leaderboard", 90)


def test_get_and_logs_show_it(platform: Platform) -> None:
    shown = fsb("get", "--namespace", TEAM)
    assert shown.returncode == 0, shown.stderr
    for kind in ("TrainingRun", "Evaluation", "ServedModel"):
        assert kind in shown.stdout
    name = name_of(platform, "trainingruns", TEAM, OUTPUT)
    details = fsb("get", "TrainingRun", name, "--namespace", TEAM, "--output", "json")
    assert json.loads(details.stdout)["status"]["phase"] == "Succeeded"
    missing = fsb("get", "TrainingRun", f"{name}x", "--namespace", TEAM)
    assert missing.returncode == 2
    assert name in missing.stderr
