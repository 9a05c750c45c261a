# SPDX-License-Identifier: Apache-2.0
"""Upload the pipelines to a KFP API server: each content once, a new version when it changed.

Called by `python -m pipelines upload`, which the chart's Job runs. Never deletes a version: runs
and recurring runs refer to them.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, TypeVar

import kfp
import kfp_server_api  # type: ignore[import-untyped]
import urllib3

from pipelines.compile import Compiled
from pyfsb.errors import ClusterError, ConfigError

_PAUSE_SECONDS: Final = 5.0
_REFUSED: Final = {
    HTTPStatus.UNAUTHORIZED: "log in again, or give --token-file",
    HTTPStatus.FORBIDDEN: "this account needs the right to create pipelines there",
    HTTPStatus.NOT_FOUND: "is this a KFP API server of version 2?",
}
_PASSING: Final = (HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)
"""Answers after which another try may succeed: 409 is another uploader at the same moment."""
T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Which KFP."""

    host: str
    """URL of the API server."""
    namespace: str | None = None
    """Namespace of the pipelines where KFP keeps them apart by user. None: shared."""
    token: str | None = None
    """Bearer token."""
    certificate: str | None = None
    """File of a private authority."""
    wait_seconds: float = 600.0
    """How long to wait for a KFP that is away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """What became of one pipeline."""

    name: str
    """Its name in KFP."""
    version: str
    """Name of the version that is there now."""
    was_there: bool
    """True: nothing was sent."""


def upload_all(
    pipelines: Iterable[Compiled], target: Target, *, pause_seconds: float = _PAUSE_SECONDS
) -> list[Uploaded]:
    """Make sure that every pipeline is there in its present version.

    Args:
        pipelines: What to upload.
        target: Where.
        pause_seconds: Between two tries while KFP is away.

    Raises:
        ConfigError: KFP refuses it; says why and what would be right.
        ClusterError: KFP was away for longer than `wait_seconds`.
    """
    deadline = time.monotonic() + target.wait_seconds
    client = _patiently(partial(_connect, target), target, deadline, pause_seconds)
    return [
        _patiently(partial(_upload, client, one, target), target, deadline, pause_seconds)
        for one in pipelines
    ]


def _connect(target: Target) -> kfp.Client:
    client = kfp.Client(
        host=target.host,
        existing_token=target.token,
        ssl_ca_cert=target.certificate,
        # Any but the default: the client would ask the server whether it has users, five times.
        namespace=target.namespace or "-",
    )
    client.list_pipelines(page_size=1, namespace=target.namespace)
    return client


def _upload(client: kfp.Client, compiled: Compiled, target: Target) -> Uploaded:
    """Make sure of one pipeline; every step may have been done by an earlier try."""
    pipeline = _find_pipeline(client, compiled, target) or _create_pipeline(
        client, compiled, target
    )
    found = client.list_pipeline_versions(pipeline, filter=_named(compiled.version), page_size=1)
    was_there = bool(found.pipeline_versions)
    if not was_there:
        with tempfile.TemporaryDirectory() as folder:
            package = Path(folder, f"{compiled.name}.yaml")
            package.write_text(compiled.text, encoding="utf-8")
            client.pipeline_uploads.upload_pipeline_version(
                str(package),
                name=compiled.version,
                pipelineid=pipeline,
                description=compiled.description,
            )
    return Uploaded(name=compiled.name, version=compiled.version, was_there=was_there)


def _find_pipeline(client: kfp.Client, compiled: Compiled, target: Target) -> str | None:
    found = client.list_pipelines(
        filter=_named(compiled.title), namespace=target.namespace, page_size=10
    )
    same = [one.pipeline_id for one in found.pipelines or () if one.name in (None, compiled.name)]
    return same[0] if same else None


def _create_pipeline(client: kfp.Client, compiled: Compiled, target: Target) -> str:
    body = kfp_server_api.V2beta1Pipeline(
        name=compiled.name,
        display_name=compiled.title,
        description=compiled.description,
        namespace=target.namespace,
    )
    made: str = client.pipelines.pipeline_service_create_pipeline(body).pipeline_id
    return made


def _named(name: str) -> str:
    """Return a filter for one name, as the API takes it."""
    one = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [one]})


def _patiently(action: Callable[[], T], target: Target, deadline: float, pause_seconds: float) -> T:
    """Try until it succeeds, is refused, or time is up."""
    while True:
        try:
            return action()
        except kfp_server_api.ApiException as exc:
            words = _words(exc)
            if exc.status and exc.status < 500 and exc.status not in _PASSING:
                remedy = _REFUSED.get(exc.status, "see the KFP API server's log")
                raise ConfigError(
                    f"KFP at {target.host} answered {exc.status}: {words}; {remedy}"
                ) from None
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            words = str(exc)
        if time.monotonic() > deadline:
            raise ClusterError(
                f"KFP at {target.host} did not take the pipelines within "
                f"{target.wait_seconds:g} s: {words[:300]}; run it again when KFP is there"
            ) from None
        _log.warning("KFP is not there yet (%s); trying again", words[:200])
        time.sleep(pause_seconds)


def _words(exc: Any) -> str:
    """Return what the API server says, without headers."""
    text = exc.body.decode("utf-8", "replace") if isinstance(exc.body, bytes) else exc.body or ""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    told = value.get("message") or value.get("error") if isinstance(value, dict) else None
    return str(told or text or exc.reason)[:500]
