# SPDX-License-Identifier: Apache-2.0
"""Bring one ServedModel nearer to what it asks for: resolve, judge, apply, report.

Called by `operators.reconcile` with a spec that the API server has accepted. A reference is
resolved at every look, so moving its alias is a rolling update.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from kubernetes import client

from operators.builders.inferenceservice import SERVICE_LABEL, build_inference_service
from operators.cluster import Cluster, check_owner
from operators.quantities import to_number
from operators.references import resolve_reference
from operators.reporting import Reporter, make_condition, merge_conditions, read_status
from operators.served.decide import Copy, Decision, Judgement, Sight, Wish, decide
from operators.served.observe import read_copies, read_evaluation, read_service, read_url
from operators.served.plan import Checkpoint, plan_service
from operators.settings import OperatorSettings
from operators.troubles import why_not_copied, why_not_started
from operators.workflows import has_stopper_ended
from pyfsb import versions
from pyfsb.errors import ConfigError
from pyfsb.resources import API_VERSION
from pyfsb.resources.kinds import ServedModelSpec
from pyfsb.resources.status import EvaluationStatus, Phase, ServedModelStatus
from pyfsb.schema import Json, digest

_SERVICE: Final = ("serving.kserve.io/v1beta1", "InferenceService")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedReconciler:
    """Brings services about; one for the whole operator."""

    cluster: Cluster
    settings: OperatorSettings
    reporter: Reporter
    applied: dict[str, str] = field(default_factory=dict)
    """Digest of the manifest that this process applied last, by uid of the ServedModel."""

    def carry_on(self, resource: Json, spec: ServedModelSpec) -> Phase:
        """Look at a ServedModel and do what is needed next.

        Raises:
            ConfigError: It cannot be carried out as it stands.
            NotReadyError: What a deleted resource of the same name left is not gone yet.
            FsbError: The API or the model store failed.
        """
        name, namespace = resource["metadata"]["name"], resource["metadata"]["namespace"]
        asked, asked_gate = self._ask(spec)
        found = self.cluster.get(*_SERVICE, namespace, name)
        check_owner(found, resource)
        pods = self.cluster.list_pods(namespace, SERVICE_LABEL, name) if found else []
        copies = self._explain(namespace, pods, read_copies(pods))
        is_short = found is not None and len(copies) < spec.scale.min_replicas
        decision = decide(
            Sight(
                asked=asked,
                asked_gate=asked_gate,
                evaluation=self._judge(spec, namespace),
                needs_gate=spec.gate == "required",
                num_copies=spec.scale.min_replicas,
                service=read_service(found),
                copies=copies,
                refusal=self._why_short(namespace, name) if is_short else "",
                stopper_ended=has_stopper_ended(self.cluster, spec.stops_with, namespace),
            )
        )
        self._do(decision, resource, spec, found)
        self._report(
            resource, spec, decision, num_ready=sum(copy.is_ready for copy in copies),
            url=read_url(found, name=name, namespace=namespace) if decision.serve else None,
        )  # fmt: skip
        return decision.phase

    def _explain(
        self, namespace: str, pods: list[client.V1Pod], copies: tuple[Copy, ...]
    ) -> tuple[Copy, ...]:
        """Return the copies, with what events say about one that says nothing itself."""
        uids = {pod.metadata.name: pod.metadata.uid for pod in pods}
        for number, copy in enumerate(copies):
            if copy.is_ready or copy.trouble:
                continue
            trouble = why_not_started(self.cluster, namespace, uids[copy.name])
            if trouble:
                told = replace(
                    copy, trouble=trouble.reason, message=trouble.message, is_blocked=True
                )
                return (*copies[:number], told, *copies[number + 1 :])
            break  # what keeps many from starting is the same for all
        return copies

    def _why_short(self, namespace: str, name: str) -> str:
        deployment = f"{name}-predictor"
        return why_not_copied(self.cluster, namespace, deployment, self.reporter.clock())

    def _ask(self, spec: ServedModelSpec) -> tuple[Checkpoint | None, bool | None]:
        """Return the checkpoint that is named, and what the model store's gate says about it."""
        if spec.model is None:
            return None, None
        if not versions.is_reference(spec.model):
            return Checkpoint(uri=spec.model), None
        version = resolve_reference(spec.model, self.settings)
        asked = Checkpoint(uri=version.checkpoint, digest=version.digest, version=version.number)
        return asked, version.gate.has_passed if version.gate else None

    def _judge(self, spec: ServedModelSpec, namespace: str) -> Judgement | None:
        """Return what the Evaluation that is named says."""
        if spec.evaluation is None:
            return None
        found = self.cluster.get(API_VERSION, "Evaluation", namespace, spec.evaluation)
        if found is None:
            return read_evaluation(spec.evaluation, None)
        status = read_status(found)
        assert isinstance(status, EvaluationStatus)
        return read_evaluation(spec.evaluation, status)

    def _do(
        self, decision: Decision, resource: Json, spec: ServedModelSpec, found: Json | None
    ) -> None:
        """Make the service what it should be."""
        metadata = resource["metadata"]
        name, namespace, uid = metadata["name"], metadata["namespace"], metadata["uid"]
        if decision.wish is Wish.ABSENT and found:
            self.cluster.delete(*_SERVICE, namespace, name, found["metadata"]["uid"])
        if decision.wish is not Wish.SERVING or decision.serve is None:
            return
        service = plan_service(
            name=name, namespace=namespace, spec=spec, checkpoint=decision.serve,
            settings=self.settings,
        )  # fmt: skip
        manifest = build_inference_service(service, self.settings)
        # A field that is asked for no more stands in what was found: only applying takes it away.
        if found and _has(found, manifest) and self.applied.get(uid) == digest(manifest):
            return
        self.cluster.apply(manifest, resource)
        self.applied[uid] = digest(manifest)

    def _report(
        self,
        resource: Json,
        spec: ServedModelSpec,
        decision: Decision,
        *,
        num_ready: int,
        url: str | None,
    ) -> None:
        before = read_status(resource)
        assert isinstance(before, ServedModelStatus)
        generation, now = resource["metadata"]["generation"], self.reporter.clock()
        verdicts = {"GatePassed": decision.gate, "Ready": decision.readiness}
        conditions = [
            make_condition(
                before, type_=type_, is_true=verdict.is_true, reason=verdict.reason,
                message=verdict.message, now=now, generation=generation,
            )
            for type_, verdict in verdicts.items()
        ]  # fmt: skip
        valid = make_condition(
            before, type_="Valid", is_true=True, reason="Valid", message="", now=now,
            generation=generation,
        )  # fmt: skip
        served, told = decision.serve, decision.decisive
        after = before.model_copy(
            update={
                "phase": decision.phase, "message": told.message,
                "observed_generation": generation,
                "conditions": merge_conditions(before.conditions, valid, *conditions),
                "model": spec.model if _is_named(spec) else _end_of(served),
                "checkpoint": served.uri if served else None,
                "digest": served.digest if served else None,
                "version": served.version if served else None,
                "url": url, "replicas": num_ready,
            }
        )  # fmt: skip
        self.reporter.write(resource, before, after, reason=told.reason, message=told.message)


def _is_named(spec: ServedModelSpec) -> bool:
    return spec.model is not None and versions.is_reference(spec.model)


def _end_of(checkpoint: Checkpoint | None) -> str | None:
    """Return the end of a checkpoint's URI: what tells it from others of its run."""
    return "/".join(checkpoint.uri.rstrip("/").split("/")[-2:]) if checkpoint else None


def _has(found: object, asked: object) -> bool:
    """Say whether an object has every value that is asked for; what others added is left out."""
    if isinstance(asked, dict):
        return isinstance(found, dict) and all(
            key in found and _has(found[key], value) for key, value in asked.items()
        )
    if isinstance(asked, list):
        return (
            isinstance(found, list)
            and len(found) == len(asked)
            and all(_has(one, other) for one, other in zip(found, asked, strict=True))
        )
    return found == asked or _is_same_quantity(found, asked)


def _is_same_quantity(found: object, asked: object) -> bool:
    """Say whether two texts are one quantity: KServe writes 1024Mi as 1Gi."""
    if not (isinstance(found, str) and isinstance(asked, str)):
        return False
    try:
        return to_number(found) == to_number(asked)
    except ConfigError:
        return False
