# SPDX-License-Identifier: Apache-2.0
"""Make the keys of the development object store, once; a Job of the chart runs this first.

A Secret that is there is never changed. Keys come from the system's random source and are written
nowhere but into the cluster.
"""

from __future__ import annotations

import base64
import os
import secrets
import sys
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def read_keys(core: client.CoreV1Api, namespace: str, name: str) -> dict[str, str] | None:
    """Return the keys of a Secret, or None where there is none."""
    try:
        data = core.read_namespaced_secret(name, namespace).data or {}
    except ApiException as exc:
        if exc.status == 404:
            return None
        raise
    missing = [key for key in KEYS if not data.get(key)]
    if missing:
        sys.exit(
            f"Secret {namespace}/{name} has no {' and no '.join(missing)}; delete or complete it"
        )
    return {key: base64.b64decode(data[key]).decode() for key in KEYS}


def make_secret(name: str, keys: dict[str, str], endpoint: str, region: str) -> dict[str, Any]:
    """Return a Secret with everything an AWS client needs."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "fengshenbang"}},
        "stringData": {
            **keys,
            "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_REGION": region,
            "FSB_S3_ADDRESSING": "path",
        },
    }


def main() -> None:
    """Give every namespace the same keys; one that has others is an error."""
    config.load_incluster_config()
    core = client.CoreV1Api()
    name, namespaces = os.environ["FSB_SECRET"], os.environ["FSB_NAMESPACES"].split(",")
    found = {namespace: read_keys(core, namespace, name) for namespace in namespaces}
    known = [keys for keys in found.values() if keys]
    if any(keys != known[0] for keys in known):
        there = ", ".join(namespace for namespace, keys in found.items() if keys)
        sys.exit(f"Secrets {name} of {there} differ; delete all but one")
    keys = known[0] if known else {key: secrets.token_hex(20) for key in KEYS}
    secret = make_secret(name, keys, os.environ["FSB_ENDPOINT"], os.environ["FSB_REGION"])
    for namespace in namespaces:
        if found[namespace] is None:
            core.create_namespaced_secret(namespace, secret)
            sys.stdout.write(f"made Secret {namespace}/{name}\n")


main()
