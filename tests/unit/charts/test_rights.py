"""Who may do what: RBAC and NetworkPolicies."""

from __future__ import annotations

import pytest

from operators.cluster import Cluster
from pyfsb.resources import GROUP, KINDS
from tests.helpers.golden import assert_golden
from tests.helpers.helm import S3, Manifest, find, pod_specs, render
from tests.unit.charts.matrix import EVERYTHING, MATRIX

pytestmark = pytest.mark.helm
SCOPES = {"cluster": S3, "namespaces": (*S3, "operator.namespaces={team-a,team-b}")}


def rights(manifests: list[Manifest]) -> dict[str, list[str]]:
    """Return what each account may do: "NAMESPACE or *: verbs group/resource [names]"."""
    roles = {
        (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]): item["rules"]
        for item in manifests
        if item["kind"] in ("Role", "ClusterRole")
    }
    found: dict[str, list[str]] = {}
    for item in manifests:
        if item["kind"] not in ("RoleBinding", "ClusterRoleBinding"):
            continue
        place = item["metadata"].get("namespace")
        role = item["roleRef"]
        rules = roles[(role["kind"], place if role["kind"] == "Role" else None, role["name"])]
        lines = [
            f"{place or '*'}: {','.join(rule['verbs'])} {group or 'core'}/{resource}"
            + (f" {rule['resourceNames']}" if "resourceNames" in rule else "")
            for rule in rules
            for group in rule["apiGroups"]
            for resource in rule["resources"]
        ]
        for subject in item["subjects"]:
            found.setdefault(f"{subject['namespace']}/{subject['name']}", []).extend(lines)
    return {account: sorted(lines) for account, lines in sorted(found.items())}


@pytest.mark.parametrize("scope", SCOPES)
def test_rights_of_every_account(request: pytest.FixtureRequest, scope: str) -> None:
    sets = (*SCOPES[scope], "monitoring.dashboards.enabled=false")
    assert_golden(request, f"charts/rights_{scope}.json", rights(render(*sets)))


@pytest.mark.parametrize("name", MATRIX)
def test_nobody_gets_wildcards_or_reads_secrets(name: str) -> None:
    for item in render(*MATRIX[name]):
        if item["kind"] not in ("Role", "ClusterRole"):
            continue
        for rule in item["rules"]:
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
            if "secrets" in rule["resources"]:
                assert item["metadata"]["name"] == "fengshenbang-credentials"
                assert rule["verbs"] == ["create"] or rule["resourceNames"] == ["fengshenbang-s3"]


def test_stage_pods_may_do_nothing() -> None:
    manifests = render(*EVERYTHING)
    assert not [account for account in rights(manifests) if account.endswith("/fengshenbang-run")]
    accounts = [m for m in manifests if m["kind"] == "ServiceAccount"]
    assert all(account["automountServiceAccountToken"] is False for account in accounts)
    places = {
        account["metadata"]["namespace"]
        for account in accounts
        if account["metadata"]["name"] == "fengshenbang-run"
    }
    assert places == {"fengshenbang", "team-a", "team-b"}


def test_an_operator_of_some_namespaces_has_no_rights_elsewhere() -> None:
    operator = rights(render(*SCOPES["namespaces"]))["fengshenbang/fengshenbang-operator"]
    assert {line.partition(":")[0] for line in operator} == {"team-a", "team-b"}


def test_the_operator_may_watch_every_kind_of_ours() -> None:
    lines = rights(render(*S3))["fengshenbang/fengshenbang-operator"]
    for kind in KINDS:
        assert f"*: get,list,watch {GROUP}/{kind.plural}" in lines
        assert f"*: patch {GROUP}/{kind.plural}/status" in lines


def test_pipelines_may_make_every_kind_of_ours() -> None:
    lines = rights(render(*S3))["fengshenbang/pipeline-runner"]
    for kind in KINDS:
        wanted = f"fengshenbang: get,list,watch,create,patch,delete {GROUP}/{kind.plural}"
        assert wanted in lines


def test_roles_stand_in_every_namespace_with_runs() -> None:
    manifests = render(*S3, "namespaces={team-a,team-b}")
    found = {m["metadata"]["namespace"] for m in manifests if m["metadata"]["name"] == "fengshenbang-pipelines" and m["kind"] == "Role"}  # fmt: skip
    assert found == {"team-a", "team-b"}


def policies(manifests: list[Manifest]) -> dict[tuple[str, str], Manifest]:
    return {
        (item["metadata"]["namespace"], item["metadata"]["name"]): item["spec"]
        for item in manifests
        if item["kind"] == "NetworkPolicy"
    }


@pytest.mark.parametrize("name", MATRIX)
def test_everything_is_denied_first(name: str) -> None:
    found = policies(render(*MATRIX[name]))
    places = {place for place, _ in found}
    assert "fengshenbang" in places
    whole = "networkPolicies.wholeNamespaces=true" in MATRIX[name]
    ours = {} if whole else {"matchLabels": {"app.kubernetes.io/part-of": "fengshenbang"}}
    for place in places:
        assert found[place, "fengshenbang-deny"] == {
            "podSelector": ours,
            "policyTypes": ["Ingress", "Egress"],
        }


def test_the_denial_meets_every_pod_of_the_chart() -> None:
    manifests = render("storage.dev.enabled=true")
    for item in manifests:
        pod = item if item["kind"] == "Pod" else item.get("spec", {}).get("template")
        if pod and item["kind"] in ("Pod", "Deployment", "Job"):
            labels = pod["metadata"]["labels"]
            assert labels["app.kubernetes.io/part-of"] == "fengshenbang", item["metadata"]["name"]
    runtime = find(manifests, "ClusterServingRuntime", "fengshenbang")["spec"]
    assert runtime["labels"]["app.kubernetes.io/part-of"] == "fengshenbang"
    assert len(pod_specs(manifests)) >= 8


def test_runs_reach_one_another_the_store_and_the_progress_server_only() -> None:
    spec = policies(render(*EVERYTHING))["team-a", "fengshenbang-runs"]
    runs = {
        "podSelector": {"matchExpressions": [{"key": "fengshenbang.io/run", "operator": "Exists"}]}
    }
    assert spec["ingress"] == [{"from": [runs]}]
    peers, store, progress = spec["egress"]
    assert peers == {"to": [runs]}
    assert store["to"] == [{"ipBlock": {"cidr": "10.0.0.0/8"}}]
    assert [port["port"] for port in store["ports"]] == [443, 9443, 3128]
    assert progress["ports"] == [{"port": 8090, "protocol": "TCP"}]


def test_an_endpoint_without_a_port_takes_its_schemes() -> None:
    sets = ("storage.bucket=models", "storage.s3.endpoint=http://minio.local")
    spec = policies(render(*sets))["fengshenbang", "fengshenbang-runs"]
    assert [port["port"] for port in spec["egress"][1]["ports"]] == [443, 80]


def test_no_policy_when_turned_off() -> None:
    assert not policies(render(*S3, "networkPolicies.enabled=false"))


def test_people_get_what_fsb_does_with_the_roles_they_have() -> None:
    manifests = render(*S3)
    user = find(manifests, "ClusterRole", "fengshenbang-user")
    view = find(manifests, "ClusterRole", "fengshenbang-view")
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    assert user["metadata"]["labels"][f"{prefix}edit"] == "true"
    assert view["metadata"]["labels"][f"{prefix}view"] == "true"

    def may(role: Manifest, verb: str, group: str, resource: str) -> bool:
        return any(
            verb in rule["verbs"] and group in rule["apiGroups"] and resource in rule["resources"]
            for rule in role["rules"]
        )

    for kind in KINDS:
        for verb in ("create", "get", "list", "patch", "delete"):
            assert may(user, verb, GROUP, kind.plural)
        assert may(view, "watch", GROUP, kind.plural)
        assert not may(view, "create", GROUP, kind.plural)
    # The question that ends `fsb run`, and the log lines that it follows.
    assert may(user, "create", "", "services/proxy")
    assert may(user, "get", "", "pods/log")


def test_the_operator_may_do_what_its_code_does_and_no_more() -> None:
    """A new call of `operators.cluster` needs a look at the rights, and then stands here."""
    calls = {name for name, value in vars(Cluster).items() if callable(value) and name[0] != "_"}
    assert calls == {
        "get", "list_phases", "list_pods", "list_events", "review_token", "apply", "delete",
        "patch_status", "tell",
    }  # fmt: skip
    lines = rights(render(*S3))["fengshenbang/fengshenbang-operator"]
    assert "*: create,list core/events" in lines
    assert "*: list,watch core/pods" in lines
    assert "*: create,patch core/configmaps" in lines
