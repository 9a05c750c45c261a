from __future__ import annotations

from pathlib import Path

import pytest

from pyfsb.engines.cluster_client import connect
from pyfsb.engines.cluster_logs import LogTail
from pyfsb.errors import ClusterError, ConfigError, FsbError, NotReadyError
from tests.helpers.api_server import FakeApi, Json, refuse

RUNS = "/apis/fengshenbang.io/v1alpha1/namespaces/team/trainingruns"
PODS = "/api/v1/namespaces/team/pods"


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


def test_a_field_that_the_cluster_does_not_know_is_no_outage(api: FakeApi) -> None:
    words = "failed to create typed patch object: .spec.run.trainig: field not declared in schema"
    try:
        refuse(500, words)
    except Exception as exc:
        api.failures = [exc]
    with pytest.raises(ConfigError, match="the cluster refuses it: .*spec.run.trainig"):
        api.client().apply(f"{RUNS}/n", {})


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (422, ConfigError, "the cluster refuses it: spec.nodes"),
        (404, ConfigError, "the cluster refuses it: spec.nodes.*; choose a namespace with -n"),
        (401, ConfigError, "log in again"),
        (403, ConfigError, "this user may not: spec.nodes"),
        (500, ClusterError, "the API server answered 500"),
    ],
)
def test_refusals_of_the_api_server_carry_its_words(
    status: int, kind: type[FsbError], text: str, api: FakeApi
) -> None:
    client = api.client()
    api.services = lambda path, body: None
    try:
        refuse(status, "spec.nodes: must be 1 or more")
    except Exception as exc:
        api.failures = [exc]
    with pytest.raises(kind, match=text):
        client.apply(f"{RUNS}/n", {})


def test_lists_are_read_page_by_page(api: FakeApi) -> None:
    for number in range(5):
        api.put(f"{RUNS}/r{number}", {"metadata": {"name": f"r{number}"}})
    assert len(api.client().list_objects(RUNS)) == 5
    with pytest.raises(ConfigError, match="the cluster has no widgets; is the chart installed"):
        api.client().list_objects("/apis/x/v1/widgets")


def test_without_any_cluster_it_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    for place in ("", str(tmp_path / "nothing")):
        monkeypatch.setenv("KUBECONFIG", place)
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(ConfigError, match="no cluster: .*; set KUBECONFIG"):
            connect()
    (tmp_path / "broken").write_text("{not: [yaml")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "broken"))
    with pytest.raises(ConfigError, match="no cluster: .*; set KUBECONFIG"):
        connect()


KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: k, user: u, namespace: mine}}]
clusters: [{name: k, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: secret}}]
"""


def test_the_namespace_is_the_one_asked_for_else_the_kubeconfigs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("FSB_NAMESPACE", raising=False)
    assert connect().namespace == "mine"
    monkeypatch.setenv("FSB_NAMESPACE", "team")
    assert connect().namespace == "team"
    assert connect("other").namespace == "other"
    with pytest.raises(ClusterError, match="cannot reach the cluster at https://127.0.0.1:1"):
        connect().get("/version")


def pod(name: str, *, role: str = "Master", index: int = 0, uid: str = "1", **state: Json) -> Json:
    labels = {
        "fengshenbang.io/run": "n", "training.kubeflow.org/replica-type": role,
        "training.kubeflow.org/replica-index": str(index),
    }  # fmt: skip
    statuses = [{"name": "pytorch", "state": state or {"running": {}}}]
    metadata = {"name": name, "labels": labels, "uid": uid}
    return {"metadata": metadata, "status": {"containerStatuses": statuses}}


def test_logs_come_line_by_line_through_a_restart(api: FakeApi) -> None:
    for worker in (pod("n-worker-1", role="worker", index=1), pod("n-worker-0", role="worker")):
        api.put(f"{PODS}/{worker['metadata']['name']}", worker)
    api.put(f"{PODS}/n-master-0", pod("n-master-0"))
    log = f"{PODS}/n-master-0/log"
    api.texts[log] = "2026-01-01T00:00:01.5Z one\n2026-01-01T00:00:02.5Z two\n"
    tail = LogTail(api.client(), "TrainingRun", "n")
    assert tail.read() == ["one", "two"]
    api.texts[log] = '2026-01-01T00:00:02.5Z two\n2026-01-01T00:00:03.5Z {"a": 1}\n'
    assert tail.read() == ['{"a": 1}']
    assert "sinceTime=2026-01-01T00%3A00%3A02.5Z" in api.calls[-1][1]
    api.put(f"{PODS}/n-master-0", pod("n-master-0", uid="2"))
    api.texts[log] = "2026-01-01T00:00:01.0Z of the next pod\n"
    assert tail.read() == ["of the next pod"]
    api.put(f"{PODS}/n-master-0", pod("n-master-0", waiting={"reason": "Creating"}))
    assert tail.read() == []
    api.texts[f"{PODS}/n-worker-1/log"] = "2026-01-01T00:00:01.0Z third\n"
    assert LogTail(api.client(), "TrainingRun", "n", rank=2).read() == ["third"]
    with pytest.raises(NotReadyError, match="no pod of rank 3: it has 3 now"):
        LogTail(api.client(), "TrainingRun", "n", rank=3).read()
    del api.objects[f"{PODS}/n-master-0"]
    with pytest.raises(NotReadyError, match="no pod of rank 0: it has 2 now"):
        LogTail(api.client(), "TrainingRun", "n").read()
