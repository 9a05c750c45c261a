"""A model store with versions whose checkpoints nobody looks at."""

from __future__ import annotations

import json
from typing import Any

from pyfsb import storage
from pyfsb.versions import ModelVersion


def put_version(
    store: str, number: int, *, name: str = "sentiment", **changes: Any
) -> ModelVersion:
    """Write the document of a version; its checkpoint is s3://bucket/vN."""
    fields = {
        "name": name, "number": number, "checkpoint": f"s3://bucket/v{number}",
        "digest": f"sha256:{number}", "created_at": "2026-01-01T00:00:00+00:00", **changes,
    }  # fmt: skip
    version = ModelVersion.model_validate(fields)
    place = storage.join(store, name, "versions", f"{number:06d}.json")
    storage.write_text(place, json.dumps(version.to_json()))
    return version


def gate(has_passed: bool) -> dict[str, Any]:
    """Return a gate's result."""
    return {
        "task": "t", "runner": "finetune", "has_passed": has_passed, "reason": "the figures",
        "p_value": 0.1,
    }  # fmt: skip
