"""Alerts and dashboards speak of metrics that the code has."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from prometheus_client import CollectorRegistry

from operators.metrics import Metrics
from operators.progress import reports
from tests.conftest import ROOT
from tests.helpers.helm import CHART, S3, find, render

METRIC = re.compile(r"\bfsb_[a-z_]+")
FUNCTIONS_ONLY = re.compile(r'"[^"]*"|\$\{?\w+\}?')
DASHBOARDS = sorted(CHART.glob("files/dashboards/*.json"))


def existing() -> dict[str, set[str]]:
    """Return the names that Prometheus sees, and the labels of each."""
    registry = CollectorRegistry()
    Metrics(registry)
    found: dict[str, set[str]] = {}
    for collector in list(registry._collector_to_names):
        add(found, collector)
    text = (ROOT / "serving/metrics.py").read_text(encoding="utf-8")
    for kind, name, labels in re.findall(
        r"(Counter|Gauge|Histogram)\(\s*\"(\w+)\".*?\[(.*?)\]", text, re.DOTALL
    ):
        series(
            found, kind.lower(), name.removesuffix("_total"), set(re.findall(r"\"(\w+)\"", labels))
        )
    for key in reports._GAUGES:
        found[f"fsb_run_{key}"] = {"kind", "namespace", "name"}
    return found


def add(found: dict[str, set[str]], collector: object) -> None:
    kind, name = collector._type, collector._name  # type: ignore[attr-defined]
    series(found, kind, name, set(collector._labelnames))  # type: ignore[attr-defined]


def series(found: dict[str, set[str]], kind: str, name: str, labels: set[str]) -> None:
    endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    for ending in endings[kind]:
        found[name + ending] = labels | ({"le"} if ending == "_bucket" else set())


def expressions() -> dict[str, str]:
    alerts = yaml.safe_load((CHART / "files/alerts.yaml").read_text(encoding="utf-8"))
    found = {rule["alert"]: rule["expr"] for group in alerts["groups"] for rule in group["rules"]}
    for path in DASHBOARDS:
        board = json.loads(path.read_text(encoding="utf-8"))
        for panel in board["panels"]:
            for target in panel["targets"]:
                found[f"{path.stem}: {panel['title']} {target['refId']}"] = target["expr"]
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                found[f"{path.stem}: ${variable['name']}"] = variable["query"]
    return found


def test_every_metric_exists() -> None:
    known = existing()
    for place, expression in expressions().items():
        names = METRIC.findall(expression)
        assert names, place
        for name in names:
            assert name in known, f"{place}: {name} is none of {sorted(known)}"


def test_every_selected_label_exists() -> None:
    known = existing()
    target = {"namespace", "pod", "job", "instance"}  # Prometheus adds these
    for place, expression in expressions().items():
        for name, selector in re.findall(r"\b(fsb_[a-z_]+)\{([^}]*)\}", expression):
            for label in re.findall(r"(\w+)\s*[=!]", selector):
                assert label in known[name] | target, f"{place}: {name} has no label {label}"


def test_the_important_things_are_shown() -> None:
    shown = {name for text in expressions().values() for name in METRIC.findall(text)}
    assert {name for name in existing() if name.startswith("fsb_run_")} <= shown
    assert {"fsb_operator_gang_restarts_total", "fsb_operator_resources", "fsb_operator_queue_depth",
            "fsb_serving_requests_total", "fsb_serving_request_seconds_bucket"} <= shown  # fmt: skip


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_hold_together(path) -> None:
    board = json.loads(path.read_text(encoding="utf-8"))
    assert board["uid"] == f"fengshenbang-{path.stem}"
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    for one in board["panels"]:
        box = one["gridPos"]
        assert box["x"] + box["w"] <= 24
        for other in board["panels"]:
            if other["id"] > one["id"]:
                place = other["gridPos"]
                apart_x = place["x"] >= box["x"] + box["w"] or box["x"] >= place["x"] + place["w"]
                apart_y = place["y"] >= box["y"] + box["h"] or box["y"] >= place["y"] + place["h"]
                assert apart_x or apart_y, (one["title"], other["title"])
    variables = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(board["panels"])))
    assert used <= variables


@pytest.mark.helm
def test_rules_and_monitors_are_rendered_with_the_labels_of_ones_prometheus() -> None:
    manifests = render(*S3, "monitoring.enabled=true", "monitoring.labels.release=prom",
                       "monitoring.servingSeconds=0.5")  # fmt: skip
    rules = find(manifests, "PrometheusRule", "fengshenbang")
    text = json.dumps(rules)
    assert "@" not in text
    assert "> 0.5" in text
    assert "{{ $labels.kind }}" in text
    names = {(m["kind"], m["metadata"]["name"]) for m in manifests}
    for kind, name in (("ServiceMonitor", "fengshenbang-operator"),
                       ("ServiceMonitor", "fengshenbang-progress"),
                       ("PodMonitor", "fengshenbang-serving")):  # fmt: skip
        assert (kind, name) in names
        assert find(manifests, kind, name)["metadata"]["labels"]["release"] == "prom"


@pytest.mark.helm
def test_monitored_ports_exist() -> None:
    manifests = render(*S3, "monitoring.enabled=true")
    for name in ("operator", "progress"):
        monitor = find(manifests, "ServiceMonitor", f"fengshenbang-{name}")["spec"]
        service = find(manifests, "Service", f"fengshenbang-{name}")
        assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= ports


@pytest.mark.helm
def test_dashboards_are_config_maps_for_the_sidecar() -> None:
    boards = [m for m in render(*S3) if m["metadata"]["name"].startswith("fengshenbang-dashboard")]
    assert len(boards) == len(DASHBOARDS) == 3
    for board in boards:
        assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
        (text,) = board["data"].values()
        assert json.loads(text)["title"].startswith("Fengshenbang")
