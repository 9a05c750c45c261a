from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from pyfsb.cli import cluster
from pyfsb.cli.__main__ import main
from pyfsb.engines import cluster_following
from pyfsb.errors import ConfigError
from pyfsb.resources import (
    DataPreparationResource,
    EvaluationResource,
    ServedModelResource,
    TrainingRunResource,
)
from pyfsb.schema import parse
from tests.conftest import ROOT
from tests.helpers.api_server import FakeApi, Json, stop_clock
from tests.unit.engines.test_cluster_client import PODS, pod

BASE = "/apis/fengshenbang.io/v1alpha1/namespaces"
DEMO = str(ROOT / "docs/examples/demo.yaml")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    fake = FakeApi()
    monkeypatch.setattr(cluster, "connect", lambda namespace: fake.client(namespace or "team"))
    stop_clock(monkeypatch, cluster, cluster_following)
    return fake


def put(api: FakeApi, plural: str, name: str, status: Json, namespace: str = "team") -> Json:
    metadata = {
        "name": name, "namespace": namespace, "uid": "u", "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [{"manager": "fsb"}],
    }  # fmt: skip
    kind = cluster.find_kind(plural).kind
    value = {"kind": kind, "metadata": metadata, "spec": {}, "status": status}
    return api.put(f"{BASE}/{namespace}/{plural}/{name}", value)


def fill(api: FakeApi) -> None:
    progress = {
        "step": 1200,
        "totalSteps": 5000,
        "loss": "3.21",
        "tokensPerSecond": 8400,
        "eta": "2h05m",
    }
    running = {"phase": "Running", "model": "Erlangshen", "message": "2 pods run", "restarts": 1}
    put(api, "trainingruns", "n", {**running, "progress": progress})
    put(api, "evaluations", "e", {"phase": "Succeeded", "gatePassed": True, "message": "complete"})
    put(
        api,
        "servedmodels",
        "s",
        {"phase": "Ready", "url": "http://s-predictor.team", "replicas": 2},
    )
    put(api, "trainingruns", "new", {"phase": "Starting", "message": "0 of 3 pods run"})
    blocked = {"phase": "Blocked", "message": "pod x: ImagePullBackOff"}
    put(api, "datapreparations", "d", blocked, namespace="other")


def test_all_kinds_stand_in_one_table(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    fill(api)
    assert main(["get"]) == 0
    text = capsys.readouterr().out
    for part in (
        "namespace team", "1,200/5,000", "3.21", "8,400", "2h05m", "passed", "Ready (2)",
        "http://s-predictor.team", "new: 0 of 3 pods run",
    ):  # fmt: skip
        assert part in text
    for part in ("complete", "2 pods run", "ImagePull", "DataPreparation"):
        assert part not in text
    assert main(["get", "-A"]) == 0
    text = capsys.readouterr().out
    assert "other/d" in text
    assert "pod x: ImagePullBackOff" in text
    assert main(["get", "dprep", "-n", "empty"]) == 0
    assert "nothing in namespace 'empty'; -A looks everywhere" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [100, 120])
def test_names_stay_whole_on_a_terminal(
    columns: int, api: FakeApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "a-run-of-thirty-two-letters-abcd-training-1a2b3c4d"
    progress = {"step": 1200, "totalSteps": 5000, "loss": "3.21", "tokensPerSecond": 8400}
    put(api, "trainingruns", name, {"phase": "Running", "progress": {**progress, "eta": "2h05m"}})
    put(api, "trainingruns", "ill", {"phase": "Failed", "message": "x " * 80, "progress": progress})
    console = Console(width=columns, markup=False, highlight=False)
    monkeypatch.setattr("pyfsb.cli.arguments.make_console", lambda: console)
    assert main(["get"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if line.startswith(name)]
    assert row.split()[1:-1] == ["Running", "1,200/5,000", "3.21", "8,400", "2h05m"]
    (row,) = [line for line in lines if line.startswith("ill ")]
    assert "8,400" not in row  # what has ended makes no tokens
    assert "ill: " + ("x " * 80).strip() in [line.strip() for line in lines]


def test_the_table_as_json_has_plain_values(
    api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(api)
    assert main(["get", "trainingruns", "--output", "json"]) == 0
    row, _ = json.loads(capsys.readouterr().out)
    assert row.pop("age_seconds") > 0
    assert row == {
        "kind": "TrainingRun", "namespace": "team", "name": "n", "phase": "Running",
        "model": "Erlangshen", "restarts": 1, "step": 1200, "total_steps": 5000, "loss": "3.21",
        "tokens_per_second": 8400, "eta": "2h05m",
    }  # fmt: skip


def test_one_resource_is_shown_with_conditions_and_scores(
    api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    condition = {
        "type": "Valid", "status": "False", "reason": "UnknownNameError",
        "message": "unknown node pool 'x'", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    score = {
        "task": "tnews", "runner": "finetune", "value": "0.5000", "interval": "0.4-0.6",
        "majority": "0.1", "numRows": 300,
    }  # fmt: skip
    status = {
        "phase": "Invalid",
        "conditions": [condition],
        "scores": [score],
        "gateReason": "p = 0.2",
    }
    put(api, "evaluations", "e", status)
    for arguments in (["evaluation", "e"], ["e"], ["evaluation/e"]):
        assert main(["get", *arguments]) == 0
        text = capsys.readouterr().out
        for part in ("Evaluation team/e: Invalid", "unknown node pool 'x'", "tnews", "p = 0.2"):
            assert part in text
    assert main(["get", "evaluation", "e", "--output", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["status"] == status
    assert "managedFields" not in shown["metadata"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["get", "trainingrnu"], "unknown kind or resource in namespace 'team' 'trainingrnu'"),
        (["get", "trainingrnu", "n"], "unknown kind 'trainingrnu'; did you mean 'trainingrun"),
        (["get", "trainingrun", "demo-trainig"], "did you mean 'demo-training'"),
        (["logs", "demo-trainig"], "did you mean 'demo-training'"),
        (["stop", "same"], "name one of trainingrun/same, evaluation/same"),
        (["stop", "s"], "`fsb stop s --delete` ends the service"),
    ],
)
def test_wrong_names_end_with_the_nearest(
    arguments: list[str], text: str, api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    put(api, "trainingruns", "demo-training", {})
    put(api, "trainingruns", "same", {})
    put(api, "evaluations", "same", {})
    put(api, "servedmodels", "s", {"phase": "Ready"})
    assert main(arguments) == 2
    assert text in capsys.readouterr().err


def test_logs_are_printed_as_people_read_them(
    api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    put(api, "trainingruns", "n", {"phase": "Running"})
    api.put(f"{PODS}/n-master-0", pod("n-master-0"))
    ours = {
        "time": "2026-01-01T10:20:30.123+00:00", "level": "INFO", "logger": "pyfsb.training",
        "message": "step 1",
    }  # fmt: skip
    lines = [json.dumps(ours), "plain", '{"other": 1}']
    stamped = "".join(f"2026-01-01T00:00:0{n}.0Z {line}\n" for n, line in enumerate(lines))
    api.texts[f"{PODS}/n-master-0/log"] = stamped
    assert main(["logs", "n"]) == 0
    text = capsys.readouterr().out
    assert text == '10:20:30 I pyfsb.training: step 1\nplain\n{"other": 1}\n'
    assert main(["logs", "trainingrun/n", "--raw", "--previous", "--lines", "5"]) == 0
    assert capsys.readouterr().out == "\n".join(lines) + "\n"
    asked = api.calls[-1][1]
    assert "previous=true" in asked
    assert "tailLines=5" in asked
    assert main(["logs", "n", "--rank", "1"]) == 75
    assert "no pod of rank 1: it has 1 now" in capsys.readouterr().err


def test_followed_logs_end_with_the_work(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    put(api, "trainingruns", "n", {"phase": "Starting"})
    looks = itertools.count(1)

    def on_look(resource: Json) -> None:
        number = next(looks)
        if number == 2:  # the pod comes later than the command
            api.put(f"{PODS}/n-master-0", pod("n-master-0"))
        text = "".join(f"2026-01-01T00:00:0{n}.0Z line {n}\n" for n in range(2, number + 1))
        api.texts[f"{PODS}/n-master-0/log"] = text
        resource["status"]["phase"] = "Succeeded" if number == 4 else "Running"

    api.on_look = on_look
    assert main(["logs", "n", "--follow"]) == 0
    assert capsys.readouterr().out == "line 2\nline 3\nline 4\n"


def test_a_run_is_stopped_resumed_and_deleted(
    api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    run = put(api, "trainingruns", "n", {"phase": "Running"})
    assert main(["resume", "n"]) == 0
    assert "is not stopped: Running" in capsys.readouterr().out
    assert main(["stop", "n"]) == 0
    assert run["spec"] == {"suspend": True}
    assert "`fsb resume n` goes on" in capsys.readouterr().out
    assert main(["resume", "n"]) == 0
    assert run["spec"] == {"suspend": False}
    run["status"]["phase"] = "Failed"
    assert main(["resume", "n"]) == 0
    assert "is not stopped: Failed; the same `fsb run` starts it again" in capsys.readouterr().out
    run["status"]["phase"] = "Invalid"
    assert main(["stop", "n"]) == 0
    assert "has already ended: Invalid" in capsys.readouterr().out
    run["status"]["phase"] = "Succeeded"
    assert main(["stop", "n"]) == 0
    assert "has already ended: Succeeded" in capsys.readouterr().out
    put(api, "servedmodels", "s", {"phase": "Ready"})
    assert main(["stop", "s", "--delete"]) == 0
    assert f"{BASE}/team/servedmodels/s" not in api.objects
    assert f"{BASE}/team/trainingruns/n" in api.objects


def test_options_of_the_cluster_need_its_engine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    output = f"output={tmp_path}/run"
    assert main(["run", DEMO, "--set", output, "--nodes", "2"]) == 2
    assert "--nodes 2: engine local has no such option; add --engine kub" in capsys.readouterr().err


def test_the_cluster_engine_refuses_a_laptops_folders_before_it_connects(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    for name in ("FSB_NODES", "FSB_POOL", "FSB_NAMESPACE"):
        monkeypatch.setenv(name, "")  # put back after the test: the command sets them
    command = ["run", DEMO, "--engine", "kubernetes", "--nodes", "2", "--pool", "training=a100"]
    assert main(command) == 2
    assert "pods cannot write to this machine's disk" in capsys.readouterr().err
    assert main([*command, "--set", "output=s3://b/x"]) == 2
    assert "`aws s3 cp --recursive" in capsys.readouterr().err
    assert main([*command, "--nodes", "none"]) == 2
    assert "FSB_NODES='none'; expected a whole number" in capsys.readouterr().err


def manifests() -> list[Json]:
    text = (ROOT / "docs/guides/cluster.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    return [yaml.safe_load(block) for block in blocks]


RESOURCES = {
    "DataPreparation": DataPreparationResource, "TrainingRun": TrainingRunResource,
    "Evaluation": EvaluationResource, "ServedModel": ServedModelResource,
}  # fmt: skip


@pytest.mark.parametrize("manifest", manifests(), ids=lambda manifest: manifest["kind"])
def test_every_manifest_of_the_guide_is_one_of_ours(manifest: Json) -> None:
    resource = parse(RESOURCES[manifest["kind"]], manifest, source="docs/guides/cluster.md")
    assert resource.to_manifest()["spec"]
    broken = {**manifest, "spec": {**manifest["spec"], "nods": 1}}
    with pytest.raises(ConfigError, match="nods"):
        parse(RESOURCES[manifest["kind"]], broken, source="docs/guides/cluster.md")


def test_the_guide_shows_every_kind() -> None:
    assert {manifest["kind"] for manifest in manifests()} == set(RESOURCES)
