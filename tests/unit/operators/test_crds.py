from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest
import yaml

from operators.crds import build_crd, crd_files
from pyfsb.resources import KINDS
from tests.unit.operators.test_gang import make_run

BY_KIND = {kind.kind: build_crd(kind) for kind in KINDS}


def schema_of(kind: str) -> dict[str, Any]:
    value: dict[str, Any] = BY_KIND[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return value


def check(kind: str, spec: dict[str, Any]) -> None:
    """Validate as the API server does, with OpenAPI's exclusive bounds in JSON schema's form."""
    jsonschema.Draft4Validator(schema_of(kind)).validate({"spec": spec})


def walk(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value, *(found for item in value.values() for found in walk(item))]
    return [found for item in value for found in walk(item)] if isinstance(value, list) else []


@pytest.mark.parametrize("kind", list(BY_KIND))
def test_schemas_are_structural(kind: str) -> None:
    for part in walk(schema_of(kind)):
        assert not {"$ref", "anyOf", "oneOf", "const", "prefixItems", "$defs"} & set(part)
        if isinstance(part.get("properties"), dict) and "type" in part:
            assert part["type"] == "object"


@pytest.mark.parametrize("kind", ["TrainingRun", "Evaluation"])
def test_the_run_spec_is_checked_field_by_field(kind: str) -> None:
    check(kind, {"run": make_run()})
    check(kind, {"run": make_run(evaluation={"finetune": {"max_steps": 3}}), "nodes": 4})
    for wrong in (
        {"run": make_run(optimizer={"learning_rate": 0})},
        {"run": make_run(seed="x")},
        {"run": make_run(data={"segmenter": "jeiba"})},
        {"run": {}},
        {"run": make_run(), "nodes": 0},
        {"run": make_run(), "pool": "A_100"},
        {},
    ):
        with pytest.raises(jsonschema.ValidationError):
            check(kind, wrong)


def test_a_run_keeps_what_its_author_wrote() -> None:
    spec = schema_of("TrainingRun")["properties"]["spec"]["properties"]
    assert not [part for part in walk(spec["run"]) if "default" in part]
    assert spec["nodes"]["default"] == 1
    assert spec["restart"]["properties"]["limit"]["default"] == 5


def test_every_field_is_described_and_every_column_exists() -> None:
    for kind in KINDS:
        root = schema_of(kind.kind)["properties"]
        for part in ("spec", "status"):
            for name, field in root[part]["properties"].items():
                assert field.get("description"), f"{kind.kind}.{part}.{name}"
        for title, _, path in kind.columns:
            where: Any = {
                "properties": {**root, "metadata": {"properties": {"creationTimestamp": 1}}}
            }
            for name in path.strip(".").split("."):
                assert name in where["properties"], title
                where = where["properties"][name]


def test_crds_outlive_the_chart() -> None:
    for name, text in crd_files().items():
        crd = yaml.safe_load(text)
        assert name == f"{crd['spec']['names']['plural']}.yaml"
        assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_names_are_as_long_as_what_is_named_after_them_allows() -> None:
    for kind in KINDS:
        (rule,) = schema_of(kind.kind)["x-kubernetes-validations"]
        pattern = re.fullmatch(r"self\.metadata\.name\.matches\('(.*)'\)", rule["rule"])
        assert pattern
        ending = "-predictor" if kind.kind == "ServedModel" else "-worker-510"
        longest = "a" * (63 - len(ending))
        for good in ("a", "run-1", longest):
            assert re.search(pattern[1], good), good
        for bad in ("1-run", "a.b", "a-", f"{longest}a"):
            assert not re.search(pattern[1], bad), bad
