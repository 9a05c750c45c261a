# SPDX-License-Identifier: Apache-2.0
"""The cluster engine: each stage a custom resource, which the operator carries out.

`fsb run --engine kubernetes` runs a whole spec; pipelines' components call `run_stage_on_cluster`
for one stage. Names follow from the run, so whoever is cut off finds the work again, and Ctrl-C
leaves it running. Imports no stage and no Kubernetes client: that is `cluster_client`'s.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

from pyfsb import storage
from pyfsb.config import RunSpec, Stage, pin_checkpoint
from pyfsb.engines.cluster_client import ClusterClient, connect
from pyfsb.engines.cluster_following import (
    Notify,
    attach,
    check_installed,
    end_command,
    follow,
    patiently,
)
from pyfsb.engines.cluster_logs import LogTail
from pyfsb.engines.cluster_progress import LineReporter, reporting
from pyfsb.engines.cluster_resources import (
    KIND_OF,
    ClusterOptions,
    build_gang,
    check_places,
    read_options,
    resource_name,
    upload_inputs,
)
from pyfsb.engines.cluster_serving import serve_in_cluster
from pyfsb.engines.completion import find_complete, read_spec
from pyfsb.engines.local import StageFailedError, stage_command, write_spec
from pyfsb.engines.protocol import RunResult, StageResult
from pyfsb.errors import (
    ConfigError,
    DataError,
    FsbError,
    NotReadyError,
    StorageError,
)
from pyfsb.processes import run_child
from pyfsb.storage.locks import LEASE_SECONDS, hold_lock

__all__ = ["ClusterOptions", "resource_name", "run", "run_stage_on_cluster"]

_LOCK_PAUSE_SECONDS: Final = 5.0
_log = logging.getLogger(__name__)


def run(spec: RunSpec, result: RunResult, *, keeps_serving: bool) -> None:
    """Run every stage of a spec that is not complete, in the cluster.

    Args:
        spec: The run.
        result: Gets each stage as it ends.
        keeps_serving: Serve again when an earlier run has; the service stays in any case.

    Raises:
        ConfigError: A place of the spec is out of the pods' reach, or the operator refuses it.
        DataError: A stage failed.
        GateError: The score does not allow serving.
        NotReadyError: Another run holds the output, or something did not start in time.
        ClusterError, StorageError: The cluster or the store cannot be reached.
    """
    for stage in spec.stages:  # a wrong option is told before anything is done
        read_options(stage, os.environ)
    spec = pin_checkpoint(spec)
    check_places(spec)
    client = connect()
    check_installed(client)
    _check_storage(spec)
    with hold_lock(spec.output):
        spec = upload_inputs(spec)
        before = read_spec(spec.output)
        complete = {stage: find_complete(spec, stage, before) for stage in spec.stages}
        write_spec(spec)
        with reporting() as notify:
            for stage in spec.stages:
                done = complete[stage]
                if done and not (stage is Stage.SERVING and keeps_serving):
                    _log.info("[%s] complete since %s", stage, done.records[0].created_at)
                elif stage is Stage.LEADERBOARD:
                    done = _find_pages(spec, result)
                else:
                    options = read_options(stage, os.environ)
                    done = _carry_out(client, spec, stage, options, notify)
                result.stages.append(done)


def run_stage_on_cluster(
    spec: RunSpec, stage: Stage, options: ClusterOptions, *, notify: Notify | None = None
) -> StageResult:
    """Run one stage of a spec as a custom resource, unless it is complete.

    Called again for the same run, it follows the resource that is there.

    Args:
        spec: The run.
        stage: Any but the leaderboard, whose pages the evaluation makes.
        options: Where and how widely.
        notify: Gets what changed as plain values: kind, namespace, name, phase, message, step,
            total_steps, loss, tokens_per_second, mfu, eta, eta_seconds, task, restarts. None
            writes lines to the log.

    Raises:
        FsbError: As `run`.
    """
    spec = pin_checkpoint(spec)
    check_places(spec)
    client = connect(options.namespace)
    patiently(lambda: check_installed(client))
    _check_storage(spec)
    with _holding_patiently(spec.output):
        spec = upload_inputs(spec)
        done = find_complete(spec, stage, read_spec(spec.output))
        write_spec(spec)
        return done or _carry_out(client, spec, stage, options, notify or LineReporter())


def _carry_out(
    client: ClusterClient, spec: RunSpec, stage: Stage, options: ClusterOptions, notify: Notify
) -> StageResult:
    """Bring a stage about and return what it left on storage."""
    started = time.monotonic()
    name = options.name or resource_name(spec, stage)
    try:
        if stage is Stage.SERVING:
            if options.pod:
                _log.warning(
                    "pod settings do not apply to a ServedModel: %s", ", ".join(options.pod)
                )
            serve_in_cluster(client, spec, options, notify=notify)
        else:
            _run_gang(client, spec, stage, options, notify=notify)
    except (KeyboardInterrupt, SystemExit):
        _log.warning(
            "%s %s/%s goes on in the cluster: the same command follows it again, `fsb logs %s -f "
            "-n %s` shows its log, `%s` ends it",
            KIND_OF[stage], client.namespace, name, name, client.namespace,
            end_command(KIND_OF[stage], name, client.namespace),
        )  # fmt: skip
        raise
    done = find_complete(spec, stage, read_spec(spec.output))
    if done is None:
        raise DataError(
            f"{KIND_OF[stage]} {client.namespace}/{name} succeeded, but {spec.output_of(stage)} "
            "holds no record: pods and this machine use different stores; compare "
            "AWS_ENDPOINT_URL_S3 here with the one in the credentials secret"
        )
    return StageResult(
        stage=stage,
        seconds=time.monotonic() - started,
        was_complete=False,
        places=done.places,
        records=done.records,
    )


def _run_gang(
    client: ClusterClient, spec: RunSpec, stage: Stage, options: ClusterOptions, *, notify: Notify
) -> None:
    manifest = build_gang(spec, stage, options)
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    before = read_spec(spec.output)
    attach(client, manifest, is_complete=lambda: find_complete(spec, stage, before) is not None)
    follow(
        client, kind, name, notify=notify, blocked_limit_seconds=options.blocked_limit_seconds,
        while_running=_passing_logs_on(client, kind, name) if options.shows_logs else None,
    )  # fmt: skip


def _passing_logs_on(client: ClusterClient, kind: str, name: str) -> Callable[[], None]:
    """Return what writes the first pod's new lines to stderr, as far as they can be had."""
    tail = LogTail(client, kind, name)

    def pass_on() -> None:
        try:
            lines = tail.read()
        except FsbError as exc:  # a pod between two lives, a lost node: the work goes on
            _log.debug("no log of %s %s: %s", kind, name, exc)
            return
        for line in lines:
            sys.stderr.write(f"{line}\n")

    return pass_on


def _find_pages(spec: RunSpec, result: RunResult) -> StageResult:
    """Return the pages that the Evaluation made, or make them of a report made elsewhere."""
    started = time.monotonic()
    folder = spec.output_of(Stage.LEADERBOARD)
    was_there = storage.exists(storage.join(folder, "leaderboard.html"))
    if not was_there:
        end = run_child(stage_command(spec, Stage.LEADERBOARD))
        if end.signal_number is not None:
            raise KeyboardInterrupt
        if end.code:
            raise StageFailedError(Stage.LEADERBOARD, end.code)
    return StageResult(
        stage=Stage.LEADERBOARD,
        seconds=time.monotonic() - started,
        was_complete=was_there and result.stages[-1].was_complete,
        places=(folder,),
        records=(),
    )


def _check_storage(spec: RunSpec) -> None:
    """Check that this machine reaches the store: records are read from here.

    Raises:
        ConfigError, StorageError: It does not; says what to set.
    """
    try:
        read_spec(spec.output)
    except (ConfigError, StorageError, DataError) as exc:
        raise type(exc)(
            f"{exc}. The run's records are read from here, too: set AWS_ENDPOINT_URL_S3, "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to the store that the pods use "
            "(docs/guides/cluster.md)"
        ) from None


@contextlib.contextmanager
def _holding_patiently(output: str) -> Iterator[None]:
    """Hold an output; the lock of a launcher that was killed elsewhere is waited out."""
    deadline = time.monotonic() + 1.5 * LEASE_SECONDS
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(hold_lock(output))
                break
            except NotReadyError as exc:
                if time.monotonic() > deadline:
                    raise
                _log.info("%s", exc)
                time.sleep(_LOCK_PAUSE_SECONDS)
        yield
