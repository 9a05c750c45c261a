# SPDX-License-Identifier: Apache-2.0
"""CustomResourceDefinitions from the classes in `pyfsb.resources`; generated, never edited.

What the API server can check it checks: types, ranges, patterns and names by schema, relations
between fields by CEL.
"""

from __future__ import annotations

from typing import Final

from pyfsb.config import RunSpec
from pyfsb.resources import GROUP, KINDS, VERSION, Kind
from pyfsb.resources.structural import structural_schema
from pyfsb.schema import Json, to_yaml

_TEXT_LIMIT: Final = 2048
"""Characters of a text of the run spec at most: the API server bounds what CEL rules may cost."""
_LIST_LIMIT: Final = 256
"""Items of a list or mapping at most, for the same reason."""


def build_crd(kind: Kind) -> Json:
    """Return the CustomResourceDefinition of a kind."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{GROUP}",
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "shortNames": [kind.short],
                "categories": ["fengshenbang"],
            },
            "versions": [_version(kind)],
        },
    }


def crd_files() -> dict[str, str]:
    """Return every CRD: file name and YAML text."""
    return {f"{kind.plural}.yaml": to_yaml(build_crd(kind)) for kind in KINDS}


def _version(kind: Kind) -> Json:
    spec = structural_schema(kind.spec)
    if "run" in spec["properties"]:
        run = structural_schema(RunSpec, has_defaults=False)
        spec["properties"]["run"] = _bounded(run) | {
            "description": spec["properties"]["run"]["description"]
        }
    spec["x-kubernetes-validations"] = [
        {"rule": rule, "message": message} for rule, message in kind.rules
    ]
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": title, "type": form, "jsonPath": path} for title, form, path in kind.columns
        ],
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "description": kind.spec.__doc__,
                "required": ["spec"],
                "x-kubernetes-validations": [_name_rule(kind)],
                "properties": {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "metadata": {"type": "object"},
                    "spec": spec,
                    "status": structural_schema(kind.status, has_defaults=False),
                },
            }
        },
    }


def _name_rule(kind: Kind) -> Json:
    """Return the rule on a resource's name: its Services' names are DNS-1035 labels."""
    pattern = f"^[a-z]([-a-z0-9]{{0,{kind.name_length - 2}}}[a-z0-9])?$"
    return {
        "rule": f"self.metadata.name.matches('{pattern}')",
        "message": f"metadata.name: expected {kind.name_length} characters at most, a-z, 0-9 and "
        "'-', the first one a letter, the last one no '-': pods and services are named after it",
    }


def _bounded(value: Json) -> Json:
    """Return a schema whose texts, lists and mappings have an upper size."""
    result = dict(value)
    if value.get("type") == "string" and "enum" not in value:
        result.setdefault("maxLength", _TEXT_LIMIT)
    if value.get("type") == "array":
        result.setdefault("maxItems", _LIST_LIMIT)
        result["items"] = _bounded(value["items"])
    if "additionalProperties" in value:
        result.setdefault("maxProperties", _LIST_LIMIT)
        result["additionalProperties"] = _bounded(value["additionalProperties"])
    if "properties" in value:
        result["properties"] = {name: _bounded(item) for name, item in value["properties"].items()}
    return result
