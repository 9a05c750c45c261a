# SPDX-License-Identifier: Apache-2.0
"""`name@alias` in a custom resource: which version of the platform's model store that is."""

from __future__ import annotations

from operators.places import PVC_SCHEME, Placing, to_claim
from operators.settings import OperatorSettings
from pyfsb import versions
from pyfsb.errors import ConfigError
from pyfsb.versions import ModelVersion


def resolve_reference(reference: str, settings: OperatorSettings) -> ModelVersion:
    """Return the version that a reference stands for now, its place as everybody names it.

    Raises:
        ConfigError: The platform has no model store.
        UnknownNameError: The store has no such name, alias or version.
        StorageError: The store failed; a later try may succeed.
    """
    if settings.model_store is None:
        raise ConfigError(
            f"{reference!r} names a version of the model store, but this platform has none; set "
            "modelStore in the chart's values, or give an s3:// or pvc:// checkpoint"
        )
    store = settings.model_store
    if store.startswith(PVC_SCHEME):  # the chart mounts its claim where stage pods have it
        store = Placing().place(store, "modelStore")
    version = versions.resolve(reference, store)
    return version.model_copy(update={"checkpoint": to_claim(version.checkpoint)})
