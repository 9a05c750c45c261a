"""What goes wrong on a cluster: lost pods, wrong specs, missing things, ended workflows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pyfsb import storage
from pyfsb.config import load_spec
from tests.e2e.conftest import BUCKET, TEAMS, Platform, cluster_spec, write_cluster_spec
from tests.e2e.kube import GROUP, Kube, wait_for
from tests.e2e.test_02_run import OUTPUT, end_of, losses, name_of, start_run
from tests.helpers.specs import fsb

TEAM = TEAMS[1]
AGAIN = f"{BUCKET}/runs/killed"


def resource(
    kind: str, name: str, output: str, *, spec: dict[str, Any] | None = None, **run: Any
) -> dict[str, Any]:
    """Return a custom resource over the real files."""
    return {
        "apiVersion": f"{GROUP}/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": TEAM},
        "spec": {"run": cluster_spec(output, **run), **(spec or {})},
    }  # fmt: skip


def test_a_deleted_worker_changes_no_loss(platform: Platform, store: str, workdir: Path) -> None:
    """The gang restarts from its last checkpoint; every loss equals the undisturbed run's."""
    spec = write_cluster_spec(workdir, AGAIN, "killed.yaml", evaluation={}, serving={})
    process = start_run(spec, workdir / "killed.log", TEAM)
    name = name_of(platform, "trainingruns", TEAM, AGAIN)

    def has_state() -> bool:
        files = storage.list_files(f"{AGAIN}/training/state")
        return any(file.path.endswith("state.json") for file in files)

    wait_for(has_state, "a saved state", 200)
    worker = f"{name}-worker-0"
    old = platform.kube.get("pod", worker, TEAM)
    assert old
    lost = time.monotonic()
    platform.kube("delete", "pod", worker, "-n", TEAM, "--grace-period=0", "--force")
    wait_for(
        lambda: platform.kube.status("trainingruns", name, TEAM).get("restarts"),
        "a restart of the gang", 60,
    )  # fmt: skip

    def runs_again() -> bool:
        status = platform.kube.status("trainingruns", name, TEAM)
        return status.get("phase") in ("Running", "Succeeded")

    wait_for(runs_again, "the gang to run again", 120)
    platform.figures["worker deleted to gang running again"] = time.monotonic() - lost
    end_of(process, workdir / "killed.log", 300)
    status = platform.kube.status("trainingruns", name, TEAM)
    assert status["phase"] == "Succeeded"
    assert status["restarts"] == 1
    assert losses(AGAIN) == losses(OUTPUT)
    events = platform.kube("get", "events", "-n", TEAM, "-o", "jsonpath={.items[*].reason}")
    assert "GangRestart" in events


def test_a_suspended_run_stops_and_goes_on(platform: Platform, store: str, workdir: Path) -> None:
    output = f"{BUCKET}/runs/suspended"
    spec = write_cluster_spec(
        workdir, output, "suspended.yaml", evaluation={}, serving={},
        training={"max_steps": 4000, "num_epochs": 999, "checkpoint_every_steps": 10},
    )  # fmt: skip
    run = load_spec(str(spec)).to_json()
    copy_data(output)
    manifest = resource("TrainingRun", "suspended", output)
    manifest["spec"]["run"] = run
    platform.kube.apply(manifest)
    wait_for_step(platform.kube, "suspended", 5)
    stopped = fsb("stop", "suspended", "--namespace", TEAM)
    assert stopped.returncode == 0, stopped.stderr
    platform.kube.wait_for_phase("trainingruns", "suspended", TEAM, "Suspended")
    wait_for(
        lambda: not platform.kube.list("pods", TEAM, "-l", f"{GROUP}/run=suspended"),
        "its pods to end", 90,
    )  # fmt: skip
    states = storage.list_files(f"{output}/training/state")
    assert any(file.path.endswith("state.json") for file in states), "SIGTERM saves"
    assert fsb("resume", "suspended", "--namespace", TEAM).returncode == 0
    platform.kube.wait_for_phase("trainingruns", "suspended", TEAM, "Running")
    wait_for(
        lambda: "continuing from step" in fsb("logs", "suspended", "--namespace", TEAM).stdout,
        "it continues from its state", 60,
    )  # fmt: skip
    platform.kube("delete", f"trainingruns.{GROUP}", "suspended", "-n", TEAM)
    wait_for(
        lambda: not platform.kube.list("pods", TEAM, "-l", f"{GROUP}/run=suspended"),
        "owner references clean up", 120,
    )  # fmt: skip
    assert not platform.kube.get("pytorchjobs.kubeflow.org", "suspended", TEAM)


def copy_data(output: str) -> None:
    """Give an output the prepared data of the first run."""
    for file in storage.list_files(f"{OUTPUT}/data"):
        content = storage.read_bytes(f"{OUTPUT}/data/{file.path}")
        storage.write_bytes(f"{output}/data/{file.path}", content)


def wait_for_step(kube: Kube, name: str, step: int) -> None:
    def look() -> bool:
        status = kube.status("trainingruns", name, TEAM)
        assert status.get("phase") not in ("Failed", "Invalid"), status.get("message")
        return ((status.get("progress") or {}).get("step") or 0) >= step

    wait_for(look, f"step {step} of {name}", 150)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"run": {"optimizer": {"learning_rate": -1}}}, "spec.run.optimizer.learning_rate"),
        ({"nodes": 0}, "spec.nodes"),
        ({"run": {"output": "/tmp/run"}}, "run.output must start with s3:// or pvc://"),
        ({"nods": 2}, "spec.nods"),
        ({"resources": {"memory": "much"}}, "spec.resources.memory"),
    ],
)
def test_the_api_server_refuses_a_wrong_spec(
    platform: Platform, change: dict[str, Any], words: str
) -> None:
    manifest = resource("TrainingRun", "refused", f"{BUCKET}/runs/refused")
    spec = manifest["spec"]
    spec["run"].update(change.pop("run", {}))
    spec.update(change)
    assert words in platform.kube.apply(manifest, is_refused=True)


WRONG: list[tuple[str, dict[str, Any], dict[str, Any], str, str]] = [
    ("model", {}, {"model": {"name": "Erlangshen-MegatronBert-13B"}}, "Invalid", "did you mean"),
    ("pool", {"pool": "a1000"}, {}, "Invalid", "unknown node pool"),
    ("image", {"image": "localhost/nowhere:1"}, {}, "Blocked", "localhost/nowhere:1"),
    ("room", {"resources": {"memory": "900Gi"}}, {}, "Blocked", "Insufficient memory"),
    ("data", {}, {}, "Failed", "/data/corpus"),
    ("bucket", {}, {"output": "s3://no-such-bucket/run"}, "Failed", "no-such-bucket"),
]


@pytest.fixture(scope="module")
def wrong_runs(platform: Platform, store: str) -> None:
    for name, spec, run, _, _ in WRONG:
        manifest = resource(
            "TrainingRun", f"wrong-{name}", f"{BUCKET}/runs/wrong-{name}", spec=spec
        )
        manifest["spec"]["run"].update(run)
        platform.kube.apply(manifest)


@pytest.mark.parametrize(("name", "phase", "words"), [(w[0], w[3], w[4]) for w in WRONG])
def test_what_cannot_work_says_so(
    platform: Platform, wrong_runs: None, name: str, phase: str, words: str
) -> None:
    name = f"wrong-{name}"
    status = platform.kube.wait_for_phase("trainingruns", name, TEAM, phase)
    assert words in status["message"]
    assert words in platform.kube("describe", f"trainingruns.{GROUP}", name, "-n", TEAM)
    assert phase in fsb("get", "TrainingRun", name, "--namespace", TEAM).stdout
    platform.kube("delete", f"trainingruns.{GROUP}", name, "-n", TEAM, "--wait=false")


def test_a_terminated_workflow_takes_its_run_with_it(platform: Platform, store: str) -> None:
    """The Workflow is played by this test: no Argo controller is installed."""
    flow = {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
        "metadata": {"name": "flow", "namespace": TEAM}, "spec": {},
    }  # fmt: skip
    platform.kube.apply(flow)
    found = platform.kube.get("workflows.argoproj.io", "flow", TEAM)
    assert found
    output = f"{BUCKET}/runs/of-a-workflow"
    copy_data(output)
    long = {"max_steps": 4000, "num_epochs": 999}
    stopper = {"workflow": "flow", "uid": found["metadata"]["uid"]}
    platform.kube.apply(
        resource("TrainingRun", "of-a-flow", output, spec={"stopsWith": stopper}, training=long)
    )
    platform.kube.wait_for_phase("trainingruns", "of-a-flow", TEAM, "Running")
    platform.kube("delete", "workflows.argoproj.io", "flow", "-n", TEAM)
    status = platform.kube.wait_for_phase("trainingruns", "of-a-flow", TEAM, "Failed", seconds=60)
    assert "workflow" in status["message"]
    wait_for(
        lambda: not platform.kube.list("pods", TEAM, "-l", f"{GROUP}/run=of-a-flow"),
        "its pods to end", 90,
    )  # fmt: skip
    platform.kube("delete", f"trainingruns.{GROUP}", "of-a-flow", "-n", TEAM)
