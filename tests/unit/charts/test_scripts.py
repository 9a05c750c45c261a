"""The scripts that the chart's Jobs and test pods run."""

from __future__ import annotations

import base64
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path

import pytest
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from tests.helpers.helm import CHART, S3, pod_specs, render

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


class Core:
    """Secrets in memory, as CoreV1Api shows them."""

    def __init__(self) -> None:
        self.secrets: dict[tuple[str, str], dict[str, str]] = {}

    def read_namespaced_secret(self, name: str, namespace: str) -> client.V1Secret:
        if (namespace, name) not in self.secrets:
            raise ApiException(status=HTTPStatus.NOT_FOUND)
        values = self.secrets[namespace, name]
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        return client.V1Secret(data=data)

    def create_namespaced_secret(self, namespace: str, body: dict) -> None:
        self.secrets[namespace, body["metadata"]["name"]] = body["stringData"]


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    core = Core()
    monkeypatch.setattr(config, "load_incluster_config", lambda: None)
    monkeypatch.setattr(client, "CoreV1Api", lambda: core)
    for name, value in {
        "FSB_SECRET": "keys", "FSB_NAMESPACES": "a,b", "FSB_ENDPOINT": "http://s3:9000",
        "FSB_REGION": "here",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    return core


def run() -> None:
    exec((CHART / "files/dev_credentials.py").read_text(encoding="utf-8"), {})


def test_every_namespace_gets_the_same_fresh_keys(core: Core, capsys) -> None:
    run()
    assert set(core.secrets) == {("a", "keys"), ("b", "keys")}
    first, second = core.secrets.values()
    assert first == second
    assert first["AWS_ENDPOINT_URL_S3"] == "http://s3:9000"
    assert len(first["AWS_SECRET_ACCESS_KEY"]) == 40
    assert first["AWS_SECRET_ACCESS_KEY"] not in capsys.readouterr().out
    core.secrets.clear()
    run()
    assert core.secrets["a", "keys"] != first


def test_keys_that_are_there_stay_and_are_shared(core: Core) -> None:
    core.secrets["b", "keys"] = dict.fromkeys(KEYS, "mine")
    run()
    assert core.secrets["b", "keys"] == dict.fromkeys(KEYS, "mine")
    assert core.secrets["a", "keys"]["AWS_ACCESS_KEY_ID"] == "mine"


def test_two_pairs_of_keys_are_an_error(core: Core) -> None:
    core.secrets["a", "keys"] = dict.fromkeys(KEYS, "one")
    core.secrets["b", "keys"] = dict.fromkeys(KEYS, "two")
    with pytest.raises(SystemExit, match="of a, b differ"):
        run()


def test_half_a_pair_is_an_error(core: Core) -> None:
    core.secrets["a", "keys"] = {"AWS_ACCESS_KEY_ID": "one"}
    with pytest.raises(SystemExit, match="no AWS_SECRET_ACCESS_KEY"):
        run()


def storage_test(folder: Path) -> subprocess.CompletedProcess[str]:
    script = (CHART / "files/test_storage.py").read_text(encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-c", script], env={"FSB_ROOT": str(folder), "PATH": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_good_store_passes_and_is_left_as_it_was(tmp_path: Path) -> None:
    done = storage_test(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_bad_store_fails_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = storage_test(tmp_path / "file")
    assert done.returncode == 1
    assert str(tmp_path) in done.stdout


@pytest.mark.helm
def test_pods_run_the_files_as_they_are() -> None:
    specs = pod_specs(render("storage.dev.enabled=true"))
    for pod, name in (
        ("Job/fengshenbang/fengshenbang-credentials", "dev_credentials.py"),
        ("Pod/fengshenbang/fengshenbang-test-platform", "test_platform.py"),
        ("Pod/fengshenbang/fengshenbang-test-storage", "test_storage.py"),
    ):
        text = (CHART / "files" / name).read_text(encoding="utf-8")
        assert specs[pod]["containers"][0]["args"] == [text]
        compile(text, name, "exec")


@pytest.mark.helm
def test_the_platform_test_asks_where_the_servers_are() -> None:
    manifests = render(*S3)
    pod = pod_specs(manifests)["Pod/fengshenbang/fengshenbang-test-platform"]
    variables = {item["name"]: item["value"] for item in pod["containers"][0]["env"]}
    services = {m["metadata"]["name"]: m for m in manifests if m["kind"] == "Service"}
    urls = variables["FSB_URLS"].split()
    assert len(urls) == 2
    for url in urls:
        host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
        ports = [item["port"] for item in services[host.partition(".")[0]]["spec"]["ports"]]
        assert int(port) in ports
    assert "kubeflow.org/v1:pytorchjobs" in variables["FSB_KINDS"]
