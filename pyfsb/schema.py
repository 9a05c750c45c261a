# SPDX-License-Identifier: Apache-2.0
"""The base of everything that crosses a file, a wire or a process, and how such text is read.

Records, specs and requests derive from `Schema`: frozen, no unknown keys, every field documented
by the docstring below it. `parse` turns pydantic's errors into a `ConfigError` that names the
field, the value and the nearest right key. This module never reads or writes a file.
"""

from __future__ import annotations

import hashlib
import json
import re
import types
import typing
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from pyfsb.errors import ConfigError, did_you_mean, nearest_names

Json = dict[str, Any]
T = TypeVar("T", bound="Schema")

_UNION_TAGS = ("_inline", "_path")
"""Tags that discriminated unions of our schemas add to pydantic's error locations."""


class Schema(BaseModel):
    """A frozen value with documented fields that refuses unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    def to_json(self) -> Json:
        """Return plain JSON values, tuples as lists."""
        return self.model_dump(mode="json")


def parse(schema: type[T], value: Mapping[str, Any], *, source: str) -> T:
    """Validate a mapping.

    Args:
        schema: The class to build.
        value: Plain values, as read from YAML or JSON.
        source: Where the mapping came from, for the error text.

    Raises:
        ConfigError: Lists every wrong field with its value and what would be right.
    """
    try:
        return schema.model_validate(value)
    except ValidationError as exc:
        problems = [_explain(schema, problem) for problem in exc.errors(include_url=False)]
        raise ConfigError(f"{source}: " + "; ".join(problems)) from None


def canonical_json(value: object) -> str:
    """Return JSON text that is the same for equal values (sorted keys, no spaces, UTF-8)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: object) -> str:
    """Return `sha256:` and the hexadecimal hash of a value's canonical JSON.

    Source: our choice; sha256 for small texts only, files carry xxh3 (see `pyfsb.records`).
    """
    return "sha256:" + hashlib.sha256(canonical_json(value).encode()).hexdigest()


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and reads `1e-3` as a number, as YAML 1.2 does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping, refusing a key that stands twice."""
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                line = key_node.start_mark.line + 1
                raise ConfigError(f"line {line}: key {key!r} stands twice in one mapping")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse_yaml(text: str, *, source: str) -> object:
    """Read one YAML document into plain values.

    Raises:
        ConfigError: The text is not YAML; names the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader, see above
    except ConfigError as exc:
        raise ConfigError(f"{source}: {exc}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise ConfigError(f"{source}: not valid YAML: {exc}") from None


def parse_yaml_mapping(text: str, *, source: str) -> Json:
    """Read one YAML document that must be a mapping.

    Raises:
        ConfigError: The text is not YAML or its top level is something else.
    """
    value = parse_yaml(text, source=source)
    if not isinstance(value, dict):
        raise ConfigError(f"{source}: expected a mapping at the top, got {type(value).__name__}")
    return value


def to_yaml(value: object) -> str:
    """Return YAML text of plain values, keys in their own order, Chinese unescaped."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)


def _explain(schema: type[BaseModel], problem: ErrorDetails) -> str:
    location = problem["loc"]
    path = ".".join(str(part) for part in location if part not in _UNION_TAGS)
    if problem["type"] == "extra_forbidden":
        known = _fields_at(schema, location[:-1])
        near = nearest_names(str(location[-1]), known)
        hint = did_you_mean(near) or f"; known keys: {', '.join(sorted(known))}"
        return f"unknown key {path!r}{hint}"
    if problem["type"] == "missing":
        return f"missing key {path!r}"
    shown = repr(problem["input"])
    message = problem["msg"].removeprefix("Value error, ")
    if not path:  # a rule about several fields names them itself
        return message
    return f"{path} = {shown if len(shown) <= 80 else shown[:77] + '...'}: {message}"


def _fields_at(schema: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the keys allowed at a path of field names and positions."""
    if not location:
        return list(schema.model_fields)
    head, rest = location[0], tuple(part for part in location[1:] if part not in _UNION_TAGS)
    field = schema.model_fields.get(str(head))
    for candidate in _schemas_in(field.annotation if field else None):
        is_item = bool(rest) and str(rest[0]) not in candidate.model_fields
        return _fields_at(candidate, rest[1:] if is_item else rest)
    return []


def _schemas_in(annotation: object) -> list[type[BaseModel]]:
    """Return the schema classes named in an annotation, through unions and containers."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) is None and not isinstance(annotation, types.UnionType):
        return []
    return [found for part in typing.get_args(annotation) for found in _schemas_in(part)]
