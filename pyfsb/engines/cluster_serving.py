# SPDX-License-Identifier: Apache-2.0
"""The serving stage in a cluster: gate, ServedModel, one question over V2, the same record.

Called by the cluster engine. The service stays: what a run starts here, `fsb stop` ends.
"""

from __future__ import annotations

import logging
import time
from typing import Final
from urllib.parse import urlsplit

from pyfsb import records
from pyfsb.config import RunSpec, Stage
from pyfsb.engines.cluster_client import ClusterClient, resource_path
from pyfsb.engines.cluster_following import (
    POLL_SECONDS,
    Notify,
    View,
    attach,
    follow,
    patiently,
    read_view,
)
from pyfsb.engines.cluster_resources import ClusterOptions, build_served_model, resource_name
from pyfsb.engines.serve import (
    ask_server,
    build_question,
    passed_report,
    read_answer,
    record_answer,
    served_score,
)
from pyfsb.errors import NotReadyError
from pyfsb.records import EvalReport
from pyfsb.resources.status import EvaluationStatus, Phase, ServedModelStatus
from pyfsb.schema import Json

_STARTUP_SECONDS: Final = 900.0
"""Time for image, weights and server at least: nodes may have to be made first."""
_ASKING_SECONDS: Final = 60.0
"""A service that has just become ready may refuse for a moment."""
_HTTP_PORT: Final = 80
_log = logging.getLogger(__name__)


def serve_in_cluster(
    client: ClusterClient, spec: RunSpec, options: ClusterOptions, *, notify: Notify
) -> None:
    """Serve the run's model, ask it a question and write the ServingRecord.

    Raises:
        GateError: The score does not allow serving.
        ConfigError: The API server or the operator refuses the ServedModel.
        NotReadyError: It did not become ready or did not answer in time.
    """
    started = time.monotonic()
    report = passed_report(spec)
    score, checkpoint = served_score(spec, report)
    evaluation = _find_evaluation(client, spec, options, report)
    manifest = build_served_model(spec, options, evaluation=evaluation, checkpoint=checkpoint)
    name = manifest["metadata"]["name"]
    _tell_what_it_replaces(client, manifest)
    attach(client, manifest)
    wanted = records.read_record(checkpoint).digest
    limit_seconds = max(spec.serving.startup_timeout_seconds, _STARTUP_SECONDS)
    view = follow(
        client, "ServedModel", name, notify=notify, until=lambda seen: _is_served(seen, wanted),
        blocked_limit_seconds=options.blocked_limit_seconds, limit_seconds=limit_seconds,
    )  # fmt: skip
    # KServe's way: in the URL the model has the service's name, whatever it serves just now.
    endpoint = f"{_service_url(view)}/v2/models/{name}/infer"
    question, answer = _ask_patiently(client, spec, report, endpoint)
    record_answer(
        spec, report, seconds=time.monotonic() - started, endpoint=endpoint,
        model_name=score.task, question=question, answer=answer, is_running=True,
    )  # fmt: skip
    _log.info("%s stays; `%s` ends it", view.place, view.how_to_end)


def _tell_what_it_replaces(client: ClusterClient, manifest: Json) -> None:
    """Say that a service of the run's name serves something else: perhaps it is a colleague's."""
    path = resource_path("ServedModel", client.namespace, manifest["metadata"]["name"])
    found = patiently(lambda: client.get(path))
    before = {key: (found or {}).get("spec", {}).get(key) for key in ("evaluation", "model")}
    after = {key: manifest["spec"].get(key) for key in before}
    if found and before != after:
        _log.warning(
            "%s serves %s until now; this run updates it", read_view(found).place,
            before["evaluation"] or before["model"],
        )  # fmt: skip


def _find_evaluation(
    client: ClusterClient, spec: RunSpec, options: ClusterOptions, report: EvalReport
) -> str | None:
    """Return the Evaluation of this cluster that made the report, or None."""
    name = options.evaluation or resource_name(spec, Stage.EVALUATION)
    path = resource_path("Evaluation", client.namespace, name)
    found = patiently(lambda: client.get(path))
    if found:
        status = read_view(found).status
        assert isinstance(status, EvaluationStatus)
        if status.digest == report.digest and status.gate_passed:
            return name
    _log.info("%s was evaluated elsewhere; its report says that the gate has passed", spec.output)
    return None


def _is_served(view: View, digest: str) -> bool:
    """Say whether the service answers with the wanted model, and not with an earlier one."""
    assert isinstance(view.status, ServedModelStatus)
    is_wanted = view.status.digest in (None, "", digest)
    return view.phase is Phase.READY and view.is_current and is_wanted


def _service_url(view: View) -> str:
    assert isinstance(view.status, ServedModelStatus)
    url = view.status.url or f"http://{view.name}-predictor.{view.namespace}.svc.cluster.local"
    return url.rstrip("/")


def _ask_patiently(
    client: ClusterClient, spec: RunSpec, report: EvalReport, endpoint: str
) -> tuple[Json, Json]:
    started = time.monotonic()
    while True:
        try:
            return _ask(client, spec, report, endpoint)
        except NotReadyError:
            if time.monotonic() - started > _ASKING_SECONDS:
                raise
            time.sleep(POLL_SECONDS)


def _ask(
    client: ClusterClient, spec: RunSpec, report: EvalReport, endpoint: str
) -> tuple[Json, Json]:
    """Ask over the pod network from a pod, through the API server from anywhere else."""
    if client.is_inside:
        return ask_server(spec, report, endpoint)
    tensors, body = build_question(spec, report)
    place = urlsplit(endpoint)
    service = str(place.hostname).partition(".")[0]
    response = client.ask_service(
        service, place.port or _HTTP_PORT, place.path, body,
        timeout_seconds=spec.serving.request_timeout_seconds,
    )  # fmt: skip
    return tensors, read_answer(response)
