# SPDX-License-Identifier: Apache-2.0
"""What a cluster needs for runs, checked one by one, each with what to do about it.

Called by `fsb doctor`. Reads only, and goes on where it may not look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pyfsb.engines.cluster_client import ClusterClient
from pyfsb.errors import ConfigError, FsbError
from pyfsb.resources import API_VERSION, GROUP, KINDS
from pyfsb.schema import Json, parse_yaml_mapping

_CHART_LABELS: Final = "app.kubernetes.io/name=fengshenbang,app.kubernetes.io/component=operator"
_OLDEST_MINOR: Final = 34
_INSTALL: Final = "install the chart: helm install fengshenbang charts/fengshenbang"
_PSS: Final = "pod-security.kubernetes.io/enforce"
_DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"
_ACCOUNT: Final = "fengshenbang-run"
_RUNTIME: Final = "fengshenbang"


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    """failed: runs will not work; warning: some will not; skipped: could not be told."""
    found: str
    """What was found, with its value."""
    remedy: str = ""
    """What would make it right."""


def check_cluster(client: ClusterClient) -> list[Check]:
    """Return every check of a cluster, the ones that others depend on first."""
    reached = _check_server(client)
    if reached.verdict is Verdict.FAILED:
        return [reached]
    sections: tuple[tuple[str, Callable[[ClusterClient], Iterator[Check]]], ...] = (
        ("kinds", _check_kinds),
        ("operator", _check_operator),
        ("controllers", _check_controllers),
        ("serving", _check_serving),
        ("namespace", _check_namespace),
        ("storage class", _check_storage_class),
        ("rights", _check_rights),
    )
    found = [reached]
    for name, section in sections:
        try:
            found += section(client)
        except FsbError as exc:
            found.append(Check(name=name, verdict=Verdict.SKIPPED, found=str(exc)))
    return found


def _check_server(client: ClusterClient) -> Check:
    try:
        version = client.get("/version") or {}
    except FsbError as exc:
        return Check(
            name="API server", verdict=Verdict.FAILED, found=str(exc),
            remedy="check KUBECONFIG, the network and a proxy (NO_PROXY)",
        )  # fmt: skip
    minor = int("".join(filter(str.isdigit, str(version.get("minor", "0")))) or 0)
    is_old = minor < _OLDEST_MINOR
    return Check(
        name="API server",
        verdict=Verdict.WARNING if is_old else Verdict.OK,
        found=str(version.get("gitVersion")),
        remedy=f"tested from 1.{_OLDEST_MINOR} on" if is_old else "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Api:
    """An API group that something else installs."""

    title: str
    path: str
    resource: str
    without: Verdict
    remedy: str
    answers: bool = False
    """Something that runs answers for it; else its kinds may stand there without a controller."""


_APIS: Final = (
    _Api(
        title="PyTorchJob", path="/apis/kubeflow.org/v1", resource="pytorchjobs",
        without=Verdict.FAILED, remedy="install Kubeflow's Training Operator 1.9 (v1)",
    ),
    _Api(
        title="KServe", path="/apis/serving.kserve.io/v1beta1", resource="inferenceservices",
        without=Verdict.WARNING, remedy="nothing can be served: install KServe (Standard mode)",
    ),
    _Api(
        title="Kubeflow Pipelines", path="/apis/pipelines.kubeflow.org/v2beta1",
        resource="pipelines", without=Verdict.SKIPPED,
        remedy="only for pipelines as Kubernetes resources; KFP with a database has none",
    ),
    _Api(
        title="Argo Workflows", path="/apis/argoproj.io/v1alpha1", resource="workflows",
        without=Verdict.SKIPPED, remedy="only for pipelines in KFP's UI",
    ),
    _Api(
        title="Prometheus", path="/apis/monitoring.coreos.com/v1", resource="servicemonitors",
        without=Verdict.SKIPPED, remedy="only for metrics and alerts of the chart",
    ),
    _Api(
        title="metrics server", path="/apis/metrics.k8s.io/v1beta1", resource="pods",
        without=Verdict.WARNING, remedy="services do not scale by load: install metrics-server",
        answers=True,
    ),
)  # fmt: skip


def _check_kinds(client: ClusterClient) -> Iterator[Check]:
    ours = _resources(client, f"/apis/{API_VERSION}")
    missing = [kind.kind for kind in KINDS if kind.plural not in ours]
    yield Check(
        name="custom resources",
        verdict=Verdict.FAILED if missing else Verdict.OK,
        found=f"missing: {', '.join(missing)}" if missing else API_VERSION,
        remedy=_INSTALL if missing else "",
    )
    for api in _APIS:
        is_there = api.resource in _resources(client, api.path)
        there = api.path.removeprefix("/apis/") + ("" if api.answers else ", its kinds")
        yield Check(
            name=api.title,
            verdict=Verdict.OK if is_there else api.without,
            found=there if is_there else "not installed",
            remedy="" if is_there else api.remedy,
        )


def _check_operator(client: ClusterClient) -> Iterator[Check]:
    deployments = client.list_objects("/apis/apps/v1/deployments", labels=_CHART_LABELS)
    if not deployments:
        yield Check(
            name="operator", verdict=Verdict.FAILED, found="no Deployment with the chart's labels",
            remedy=_INSTALL,
        )  # fmt: skip
        return
    for deployment in deployments:
        yield _check_deployment("operator", deployment, Verdict.FAILED)
    namespace = deployments[0]["metadata"]["namespace"]
    maps = client.list_objects(f"/api/v1/namespaces/{namespace}/configmaps", labels=_CHART_LABELS)
    texts = [text for item in maps for text in (item.get("data") or {}).values()]
    for text in texts:
        settings = parse_yaml_mapping(text, source="the operator's settings")
        if "images" in settings:
            yield _check_watched(client, settings)
            yield from _check_pools(client, settings)


def _check_watched(client: ClusterClient, settings: Json) -> Check:
    watched = settings.get("namespaces") or []
    is_watched = not watched or client.namespace in watched
    remedy = f"add {client.namespace!r} to the chart's operator.namespaces, or choose one with -n"
    return Check(
        name="watched namespaces",
        verdict=Verdict.OK if is_watched else Verdict.FAILED,
        found=", ".join(watched) or "all",
        remedy="" if is_watched else remedy,
    )


def _check_pools(client: ClusterClient, settings: Json) -> Iterator[Check]:
    """Compare what each pool promises with the nodes that it selects."""
    nodes = client.list_objects("/api/v1/nodes")
    for name, pool in (settings.get("pools") or {}).items():
        chosen = [node for node in nodes if _is_selected(node, pool.get("nodeSelector") or {})]
        ready = [node for node in chosen if _is_ready(node)]
        device, wanted = pool.get("deviceResource"), pool.get("devicesPerNode") or 0
        able = [node for node in ready if not device or _count(node, device) >= max(1, wanted)]
        words = f"{len(ready)} of {len(chosen)} nodes ready"
        if device:
            words += f", {len(able)} with {max(1, wanted)} {device}"
        yield Check(
            name=f"pool {name}",
            verdict=Verdict.OK if able else Verdict.WARNING,
            found=words,
            remedy="" if able else "runs of this pool wait until it has such a node: check the "
            f"labels {pool.get('nodeSelector') or {}} and the device plugin",
        )  # fmt: skip


def _check_controllers(client: ClusterClient) -> Iterator[Check]:
    """Check the controllers of others: their kinds without them do nothing, silently."""
    deployments = client.list_objects("/apis/apps/v1/deployments")
    wanted = {"training-operator": Verdict.FAILED, "kserve-controller-manager": Verdict.WARNING}
    for name, worst in wanted.items():
        found = [item for item in deployments if item["metadata"]["name"] == name]
        if found:
            yield _check_deployment(name, found[0], worst)
        else:
            yield Check(
                name=name, verdict=Verdict.WARNING, found="no Deployment of that name",
                remedy="fine where it has another name; without it nothing happens",
            )  # fmt: skip


def _check_serving(client: ClusterClient) -> Iterator[Check]:
    kinds = {
        "clusterservingruntimes": "ClusterServingRuntime",
        "clusterstoragecontainers": "ClusterStorageContainer",
    }
    for kind, title in kinds.items():
        path = f"/apis/serving.kserve.io/v1alpha1/{kind}/{_RUNTIME}"
        is_there = client.get(path) is not None
        yield Check(
            name=title,
            verdict=Verdict.OK if is_there else Verdict.WARNING,
            found=_RUNTIME if is_there else f"no {_RUNTIME!r}",
            remedy="" if is_there else "nothing can be served: let the chart install it "
            "(KServe first)",
        )  # fmt: skip


def _check_namespace(client: ClusterClient) -> Iterator[Check]:
    path = f"/api/v1/namespaces/{client.namespace}"
    namespace = client.get(path)
    if namespace is None:
        yield Check(
            name="namespace", verdict=Verdict.FAILED, found=f"no namespace {client.namespace!r}",
            remedy="choose one with -n, or have it made",
        )  # fmt: skip
        return
    level = (namespace["metadata"].get("labels") or {}).get(_PSS, "not enforced")
    yield Check(
        name="namespace", verdict=Verdict.OK,
        found=f"{client.namespace}, Pod Security Standard {level}",
    )  # fmt: skip
    has_account = client.get(f"{path}/serviceaccounts/{_ACCOUNT}") is not None
    yield Check(
        name="service account",
        verdict=Verdict.OK if has_account else Verdict.FAILED,
        found=_ACCOUNT if has_account else f"no {_ACCOUNT!r} in {client.namespace}",
        remedy="" if has_account else f"add {client.namespace!r} to the chart's namespaces",
    )


def _check_storage_class(client: ClusterClient) -> Iterator[Check]:
    classes = client.list_objects("/apis/storage.k8s.io/v1/storageclasses")
    names = [
        item["metadata"]["name"]
        for item in classes
        if (item["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true"
    ]
    yield Check(
        name="default StorageClass",
        verdict=Verdict.OK if names else Verdict.SKIPPED,
        found=", ".join(names) or "none",
        remedy="" if names else "only for pvc:// outputs and the development object store",
    )


_GANG_VERBS: Final = ("create", "get", "list", "patch", "delete")
_ASK_ROLE: Final = "ask for the ClusterRole edit or fengshenbang-user (the chart's) there"


def _check_rights(client: ClusterClient) -> Iterator[Check]:
    """Ask the API server what this user may do: what `fsb run` does, and what `fsb logs` does."""
    for kind in KINDS:
        asked = [(verb, GROUP, kind.plural, "") for verb in _GANG_VERBS]
        yield _check_right(client, kind.plural, asked, Verdict.FAILED)
    pods = [("list", "", "pods", ""), ("get", "", "pods", "log")]
    yield _check_right(client, "pods and their logs", pods, Verdict.WARNING)
    if not client.is_inside:
        proxy = [("create", "", "services", "proxy")]
        yield _check_right(client, "asking services", proxy, Verdict.WARNING)


def _check_right(
    client: ClusterClient, name: str, asked: list[tuple[str, str, str, str]], without: Verdict
) -> Check:
    denied = [verb for verb, *rest in asked if not _may(client, verb, *rest)]
    words = f"may not {', '.join(denied)} in {client.namespace}"
    return Check(
        name=f"right: {name}",
        verdict=without if denied else Verdict.OK,
        found=words if denied else ", ".join(verb for verb, *_ in asked),
        remedy=_ASK_ROLE if denied else "",
    )


def _may(client: ClusterClient, verb: str, group: str, resource: str, part: str) -> bool:
    attributes = {
        "namespace": client.namespace, "verb": verb, "group": group, "resource": resource,
        "subresource": part,
    }  # fmt: skip
    review = client.create(
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        {
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        },
    )  # fmt: skip
    return bool(review["status"].get("allowed"))


def _resources(client: ClusterClient, path: str) -> set[str]:
    """Return the resources of an API group's version; none when it is not there."""
    try:
        found = client.get(path) or {}
    except ConfigError:
        return set()
    return {item["name"] for item in found.get("resources") or []}


def _check_deployment(name: str, deployment: Json, worst: Verdict) -> Check:
    wanted = deployment["spec"].get("replicas", 1)
    ready = (deployment.get("status") or {}).get("readyReplicas", 0)
    place = f"{deployment['metadata']['namespace']}/{deployment['metadata']['name']}"
    is_ready = ready >= max(1, wanted)
    return Check(
        name=name,
        verdict=Verdict.OK if is_ready else worst,
        found=f"{place}: {ready} of {wanted} ready",
        remedy="" if is_ready else f"kubectl -n {place.partition('/')[0]} describe deployment "
        f"{place.partition('/')[2]}",
    )  # fmt: skip


def _is_selected(node: Json, selector: Mapping[str, str]) -> bool:
    labels = node["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in selector.items())


def _is_ready(node: Json) -> bool:
    conditions: list[Any] = (node.get("status") or {}).get("conditions") or []
    is_up = any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
    return is_up and not (node.get("spec") or {}).get("unschedulable")


def _count(node: Json, device: str) -> int:
    text = str(((node.get("status") or {}).get("allocatable") or {}).get(device, "0"))
    return int(text) if text.isdigit() else 0
