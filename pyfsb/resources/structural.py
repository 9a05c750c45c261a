# SPDX-License-Identifier: Apache-2.0
"""JSON schema of a pydantic class → the structural OpenAPI schema that a CRD asks for.

References are put in place, `X or null` becomes `nullable`, and what a structural schema cannot
say (several types for one value) is left open: the operator validates it again with the class.

Source: Kubernetes, "Extend the Kubernetes API with CustomResourceDefinitions", structural schemas.
"""

from __future__ import annotations

import re
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from pyfsb.schema import Json

_OPEN: Final[Json] = {"x-kubernetes-preserve-unknown-fields": True}
_COPIED: Final = (
    "type", "description", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength",
    "minItems", "maxItems", "maxProperties", "format",
)  # fmt: skip


def structural_schema(model: type[BaseModel], *, has_defaults: bool = True) -> Json:
    """Return the structural schema of a class.

    Args:
        model: Any pydantic class; its fields' aliases become the names.
        has_defaults: Whether the API server fills defaults in. An embedded run spec keeps what its
            author wrote: its defaults belong to the version of pyfsb that reads it.
    """
    whole = model.model_json_schema(by_alias=True, schema_generator=GenerateJsonSchema)
    return _convert(whole, whole.get("$defs", {}), has_defaults)


def _convert(value: Json, definitions: Json, has_defaults: bool) -> Json:
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        value = {**definitions[name], **{key: v for key, v in value.items() if key != "$ref"}}
    options = value.get("anyOf") or value.get("oneOf")
    if options:
        return _convert_options(value, options, definitions, has_defaults)
    result: Json = {key: value[key] for key in _COPIED if key in value}
    if "description" in result:
        result["description"] = " ".join(result["description"].split())
    if "const" in value:
        result |= {"type": "string", "enum": [value["const"]]}
    for edge in ("Minimum", "Maximum"):
        if f"exclusive{edge}" in value:
            result |= {edge.lower(): value[f"exclusive{edge}"], f"exclusive{edge}": True}
    if has_defaults and value.get("default") is not None:
        result["default"] = value["default"]
    return result | _children(value, definitions, has_defaults)


def _children(value: Json, definitions: Json, has_defaults: bool) -> Json:
    """Return the parts that hold schemas themselves."""
    result: Json = {}
    if "properties" in value:
        result["properties"] = {
            name: _convert(item, definitions, has_defaults)
            for name, item in value["properties"].items()
        }
        if value.get("required"):
            result["required"] = value["required"]
    if isinstance(value.get("additionalProperties"), dict):
        inner = _convert(value["additionalProperties"], definitions, has_defaults)
        result["additionalProperties"] = inner
    items = value.get("items") or next(iter(value.get("prefixItems", [])), None)
    if isinstance(items, dict):
        result["items"] = _convert(items, definitions, has_defaults)
    if value.get("type") == "object" and not {"properties", "additionalProperties"} & set(result):
        result |= _OPEN
    return result


def _convert_options(
    value: Json, options: list[Json], definitions: Json, has_defaults: bool
) -> Json:
    """Return the schema of `X or null`, or an open one for a value of several types."""
    described = {key: " ".join(value[key].split()) for key in ("description",) if key in value}
    others = [option for option in options if option.get("type") != "null"]
    if len(others) > 1:
        return described | _OPEN
    inner = _convert(others[0], definitions, has_defaults)
    default: dict[str, Any] = {}
    if has_defaults and value.get("default") is not None:
        default = {"default": value["default"]}
    is_nullable = {"nullable": True} if len(others) < len(options) else {}
    if is_nullable and "enum" in inner:  # the API server takes null for no member of any enum
        pattern = f"^({'|'.join(map(re.escape, inner['enum']))})$"
        inner = {**{key: v for key, v in inner.items() if key != "enum"}, "pattern": pattern}
    return inner | described | default | is_nullable
