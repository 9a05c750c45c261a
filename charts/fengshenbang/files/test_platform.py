# SPDX-License-Identifier: Apache-2.0
"""`helm test`: the chart's servers answer, and the API server knows every kind that is needed."""

from __future__ import annotations

import json
import os
import ssl
import sys
import urllib.request

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
# Neither the cluster's own services nor the API server are behind a proxy.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def check_url(url: str) -> str | None:
    """Return what is wrong with a server, or None."""
    try:
        OPENER.open(url, timeout=10).read()
    except OSError as exc:
        return f"{url}: {exc}"
    return None


def check_kinds(api: str, group: str, plurals: list[str]) -> str | None:
    """Return what the API server does not serve of a group, or None."""
    with open(f"{ACCOUNT}/token") as file:
        headers = {"Authorization": f"Bearer {file.read()}"}
    context = ssl.create_default_context(cafile=f"{ACCOUNT}/ca.crt")
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        request = urllib.request.Request(f"{api}/apis/{group}", headers=headers)  # noqa: S310
        answer = opener.open(request, timeout=10)
        served = {resource["name"] for resource in json.load(answer)["resources"]}
    except OSError as exc:
        return f"{group}: {exc}"
    missing = [plural for plural in plurals if plural not in served]
    return f"{group}: no {', '.join(missing)}" if missing else None


def main() -> int:
    """Check everything and say everything that is wrong."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    found = [check_url(url) for url in os.environ["FSB_URLS"].split()]
    for text in os.environ["FSB_KINDS"].split():
        group, _, plurals = text.partition(":")
        found.append(check_kinds(f"https://{host}:{port}", group, plurals.split(",")))
    wrong = [text for text in found if text]
    sys.stdout.write("\n".join(wrong or ["the platform is well"]) + "\n")
    return 1 if wrong else 0


sys.exit(main())
