"""A cluster as its users see it: kubectl and helm as processes, nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml

Found = TypeVar("Found")
GROUP = "fengshenbang.io"


@dataclass(frozen=True)
class Kube:
    """kubectl and helm against the cluster of KUBECONFIG."""

    kubectl: str = "kubectl"
    helm: str = "helm"

    def __call__(self, *arguments: str, text: str | None = None, check: bool = True) -> str:
        """Run kubectl; returns its output, of a failure that was not to happen with stderr."""
        done = self.run(*arguments, text=text)
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr}{done.stdout}")
        return done.stdout

    def run(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.kubectl, *arguments], input=text, capture_output=True, text=True, timeout=180,
            check=False,
        )  # fmt: skip

    def run_helm(self, *arguments: str, timeout: float = 400) -> str:
        done = subprocess.run(
            [self.helm, *arguments], capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode:
            raise AssertionError(f"helm {' '.join(arguments)}: {done.stderr}{done.stdout}")
        return done.stdout

    def get(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """Return an object or None."""
        place = ("-n", namespace) if namespace else ()
        done = self.run("get", kind, name, *place, "-o", "json", "--ignore-not-found")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    def list(self, kind: str, namespace: str, *selector: str) -> list[dict[str, Any]]:
        return json.loads(self("get", kind, "-n", namespace, "-o", "json", *selector))["items"]

    def apply(self, manifest: dict[str, Any], *, is_refused: bool = False) -> str:
        """Apply a manifest; returns what the API server says when it refuses it."""
        done = self.run("apply", "--server-side", "-f", "-", text=yaml.safe_dump(manifest))
        if is_refused:
            assert done.returncode, f"accepted: {manifest}"
            return done.stderr
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self, kind: str, name: str, namespace: str) -> dict[str, Any]:
        found = self.get(f"{kind}.{GROUP}", name, namespace)
        return (found or {}).get("status") or {}

    def wait_for_phase(
        self, kind: str, name: str, namespace: str, *phases: str, seconds: float = 120
    ) -> dict[str, Any]:
        """Wait until a resource of ours is in one of the phases; returns its status.

        An end that was not asked for fails at once.
        """

        def look() -> dict[str, Any] | None:
            status = self.status(kind, name, namespace)
            phase = status.get("phase")
            if phase in phases:
                return status
            bad = {"Failed", "Invalid", "Succeeded"} - set(phases)
            assert phase not in bad, f"{kind} {name} is {phase}: {status.get('message')}"
            return None

        return wait_for(look, f"{kind} {namespace}/{name} in {phases}", seconds)

    @contextlib.contextmanager
    def forward(self, namespace: str, target: str, port: int) -> Iterator[int]:
        """Forward a free port of this machine to a service or pod."""
        process = subprocess.Popen(
            [self.kubectl, "port-forward", "-n", namespace, target, f":{port}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert "Forwarding from" in line, line + process.stdout.read()
            yield int(line.split("->")[0].rpartition(":")[2])
        finally:
            process.terminate()
            process.wait()


def wait_for(look: Callable[[], Found | None], what: str, seconds: float) -> Found:
    """Call until something comes back."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.5)


def from_environment() -> Kube:
    """Return the cluster of the environment, or fail: these tests were asked for."""
    assert os.environ.get("KUBECONFIG"), "set KUBECONFIG to the cluster to test on"
    kube = Kube(os.environ.get("KUBECTL", "kubectl"), os.environ.get("HELM", "helm"))
    assert "Ready" in kube("get", "nodes")
    return kube
