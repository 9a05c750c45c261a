"""Served models: gate, scaling under load, and a change of model that no request notices."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pyfsb import storage
from tests.e2e.conftest import BUCKET, Platform
from tests.e2e.kube import GROUP, wait_for
from tests.e2e.test_02_run import OUTPUT, TEAM, name_of
from tests.helpers.specs import fsb

QUESTION = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["股市大涨"]}]}
STORE = f"{BUCKET}/models"


def served(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/v1alpha1", "kind": "ServedModel",
        "metadata": {"name": name, "namespace": TEAM}, "spec": spec,
    }  # fmt: skip


def ask(port: int, name: str, question: dict[str, Any] = QUESTION) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v2/models/{name}/infer", data=json.dumps(question).encode(),
        headers={"Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def ready_pods(platform: Platform, name: str) -> list[dict[str, Any]]:
    pods = platform.kube.list("pods", TEAM, "-l", f"serving.kserve.io/inferenceservice={name}")
    return [
        pod
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp")
        and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])
    ]


@pytest.fixture(scope="module")
def registered(platform: Platform, store: str) -> str:
    """Two versions of one model; the alias `production` stands on the first."""
    for runner in ("ngram-42", "finetune-42"):
        register = (
            "models", "register", "headlines", f"{OUTPUT}/evaluation/tnews/{runner}",
            "--evaluation", f"{OUTPUT}/evaluation", "--store", STORE,
        )  # fmt: skip
        refused = fsb(*register)
        assert refused.returncode == 2
        assert "If-Match" in refused.stderr, "rclone keeps no conditions; that must be said"
        done = fsb(*register, "--single-writer")
        assert done.returncode == 0, done.stderr
    refused = fsb(
        "models", "promote", "headlines@1", "production", "--store", STORE, "--single-writer"
    )
    assert refused.returncode == 3, "the gate is about the other runner"
    move("headlines@1", "--ignore-gate")
    return "headlines@production"


def move(reference: str, *options: str) -> None:
    done = fsb(
        "models", "promote", reference, "production", "--store", STORE, "--single-writer", *options
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_below_its_gate_nothing_is_served(platform: Platform, store: str) -> None:
    evaluation = name_of(platform, "evaluations", TEAM, OUTPUT)
    real = platform.kube.status("evaluations", evaluation, TEAM)
    platform.kube.apply(served("chance", evaluation="chance"))
    status = platform.kube.wait_for_phase("servedmodels", "chance", TEAM, "Pending")
    assert "chance" in status["message"]
    run = platform.kube.get(f"evaluations.{GROUP}", evaluation, TEAM)
    assert run
    spec = run["spec"]
    spec["run"]["evaluation"]["finetune"] |= {"max_steps": 1, "optimizer": {"learning_rate": 1e-9}}
    spec["run"]["evaluation"]["runners"] = ["finetune"]
    spec["run"] |= {"output": f"{BUCKET}/runs/chance", "name": "chance"}
    spec["run"]["model"]["checkpoint"] = f"{OUTPUT}/training"
    spec["run"]["data"]["corpus"] = []
    spec |= {"nodes": 1, "processesPerNode": 1}
    platform.kube.apply(
        {
            "apiVersion": f"{GROUP}/v1alpha1", "kind": "Evaluation",
            "metadata": {"name": "chance", "namespace": TEAM}, "spec": spec,
        }
    )  # fmt: skip
    done = platform.kube.wait_for_phase("evaluations", "chance", TEAM, "Succeeded", seconds=240)
    assert done["gatePassed"] is False
    status = platform.kube.wait_for_phase("servedmodels", "chance", TEAM, "Blocked", seconds=60)
    assert "majority" in status["message"]
    assert not platform.kube.get("inferenceservices.serving.kserve.io", "chance", TEAM)
    platform.kube("delete", f"servedmodels.{GROUP}", "chance", "-n", TEAM)
    assert real["gatePassed"] is True


def test_it_scales_under_load_and_back(platform: Platform, store: str) -> None:
    name = name_served_by_run(platform)
    patch = {"spec": {"scale": {"minReplicas": 1, "maxReplicas": 3, "targetCpuPercent": 30}}}
    platform.kube(
        "patch", f"servedmodels.{GROUP}", name, "-n", TEAM, "--type=merge", "-p", json.dumps(patch)
    )
    wait_for(
        lambda: any(
            hpa["spec"]["maxReplicas"] == 3
            for hpa in platform.kube.list("horizontalpodautoscalers", TEAM)
        ),
        "an autoscaler up to three", 60,
    )  # fmt: skip
    big = {"inputs": [{**QUESTION["inputs"][0], "shape": [64], "data": ["股市大涨" * 8] * 64}]}
    stopped = threading.Event()
    with platform.kube.forward(
        TEAM, f"pod/{ready_pods(platform, name)[0]['metadata']['name']}", 8080
    ) as port:
        assert ask(port, name)["outputs"]
        began = time.monotonic()

        def press() -> None:
            while not stopped.is_set():
                try:
                    ask(port, name, big)
                except OSError:
                    time.sleep(0.2)

        with ThreadPoolExecutor(4) as pool:
            for _ in range(4):
                pool.submit(press)
            try:
                wait_for(lambda: len(ready_pods(platform, name)) == 3, "three copies", 200)
            finally:
                stopped.set()
        platform.figures["load to three ready copies"] = time.monotonic() - began
    began = time.monotonic()
    wait_for(lambda: len(ready_pods(platform, name)) == 1, "one copy again", 200)
    platform.kube.wait_for_phase("servedmodels", name, TEAM, "Ready", seconds=60)
    platform.figures["end of load to one copy"] = time.monotonic() - began


def name_served_by_run(platform: Platform) -> str:
    """Return the ServedModel that `fsb run` made in test_02_run."""
    evaluation = name_of(platform, "evaluations", TEAM, OUTPUT)
    found = [
        item["metadata"]["name"]
        for item in platform.kube.list(f"servedmodels.{GROUP}", TEAM)
        if item["spec"].get("evaluation") == evaluation
    ]
    assert len(found) == 1, found
    return str(found[0])


def test_moving_an_alias_changes_the_model_without_losing_a_request(
    platform: Platform, registered: str
) -> None:
    platform.kube.apply(served("headlines", model=registered, gate="off"))
    status = platform.kube.wait_for_phase("servedmodels", "headlines", TEAM, "Ready", seconds=200)
    assert status["version"] == 1
    assert "ngram-42" in status["checkpoint"]
    outcomes: list[str] = []
    stopped = threading.Event()

    # Requests go through the service: of two pods, one of which ends, any may answer.
    def keep_asking() -> None:
        body = json.dumps(QUESTION)
        script = (
            "import json,os,time,urllib.request\n"
            f"url='http://headlines-predictor.{TEAM}.svc.cluster.local/v2/models/headlines/infer'\n"
            f"body={body!r}.encode()\n"
            "end=time.time()+float(os.environ['SECONDS'])\n"
            "while time.time()<end:\n"
            "  try:\n"
            "    r=urllib.request.Request(url,data=body,headers={'Content-Type':'application/json'})\n"
            "    with urllib.request.urlopen(r,timeout=10) as a: print(a.status,flush=True)\n"
            "  except Exception as e: print(type(e).__name__,e,flush=True)\n"
            "  time.sleep(0.1)\n"
        )
        outcomes.extend(run_in_pod(platform, script, seconds=90, stopped=stopped))

    asking = threading.Thread(target=keep_asking)
    asking.start()
    time.sleep(8)
    move("headlines@2")

    def look() -> bool:
        status = platform.kube.status("servedmodels", "headlines", TEAM)
        return status.get("version") == 2 and status.get("phase") == "Ready"

    wait_for(look, "version 2 to be served", 150)
    asking.join(180)
    good = outcomes.count("200")
    bad = [outcome for outcome in outcomes if outcome != "200"]
    assert good > 100, outcomes[-5:]
    assert not bad, bad[:5]
    done = fsb("models", "rollback", "headlines", "production", "--store", STORE, "--single-writer")
    assert done.returncode == 0, done.stderr
    platform.kube("delete", f"servedmodels.{GROUP}", "headlines", "-n", TEAM)


def run_in_pod(
    platform: Platform, script: str, *, seconds: int, stopped: threading.Event
) -> list[str]:
    """Run Python in a pod of the team's namespace, under PSS restricted; returns its lines."""
    image = (
        f"{platform.values['images']['operator']['repository']}:{platform.values['image']['tag']}"
    )
    name = "asker"
    platform.kube.apply(
        {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": TEAM, "labels": {f"{GROUP}/client": "true"}},
            "spec": {
                "restartPolicy": "Never", "automountServiceAccountToken": False,
                "securityContext": {
                    "runAsNonRoot": True, "runAsUser": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": "asker", "image": image,
                        "command": ["python3", "-c", script],
                        "env": [{"name": "SECONDS", "value": str(seconds)}],
                        "resources": {"limits": {"cpu": "200m", "memory": "128Mi"}},
                        "securityContext": {
                            "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
                        },
                    }
                ],
            },
        }
    )  # fmt: skip

    def ended() -> str | None:
        pod = platform.kube.get("pod", name, TEAM)
        phase = pod["status"].get("phase") if pod else None
        return phase if phase in ("Succeeded", "Failed") else None

    phase = wait_for(ended, "the asking pod to end", seconds + 60)
    lines = platform.kube("logs", name, "-n", TEAM).splitlines()
    platform.kube("delete", "pod", name, "-n", TEAM, "--wait=false")
    assert phase == "Succeeded", lines[-5:]
    return lines


def test_aliases_and_versions_are_kept(registered: str) -> None:
    shown = json.loads(
        fsb("models", "versions", "headlines", "--store", STORE, "--output", "json").stdout
    )
    assert [version["number"] for version in shown["versions"]] == [1, 2]
    assert storage.exists(f"{STORE}/headlines/versions/000001.json")
