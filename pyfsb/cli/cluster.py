# SPDX-License-Identifier: Apache-2.0
"""`fsb get|logs|stop|resume`: custom resources in a cluster, for people."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from pyfsb.cli.arguments import (
    Commands,
    add_output,
    print_json,
    print_rows,
    print_table,
    print_text,
)
from pyfsb.engines.cluster_client import ClusterClient, connect, known_names, resource_path
from pyfsb.engines.cluster_following import View, patiently, read_view
from pyfsb.engines.cluster_logs import LogTail
from pyfsb.errors import EXIT_OK, ConfigError, NotReadyError, UnknownNameError
from pyfsb.resources import KINDS, Kind
from pyfsb.resources.status import (
    EvaluationStatus,
    GangStatus,
    Phase,
    ServedModelStatus,
)
from pyfsb.schema import Json, to_yaml

_LOG_SECONDS: Final = 1.0
_SILENT: Final = (Phase.RUNNING, Phase.SUCCEEDED, Phase.READY)
"""Phases that say enough by themselves."""
_ENDED: Final = (Phase.SUCCEEDED, Phase.FAILED)
_WHILE_RUNNING: Final = ("eta", "eta_seconds", "tokens_per_second")
_HEADER: Final = (
    "name", "phase", "step", "loss", "tokens/s", "ETA", "gate", "restarts", "age", "model",
)  # fmt: skip


def add_commands(commands: Commands) -> None:
    """Add the four verbs."""
    get = commands.add_parser(
        "get", help="list runs, evaluations and served models of a cluster, or show one",
        description="Without NAME a table of all resources (of one KIND); with NAME its "
        "conditions, scores and URL. KIND is a kind, its plural or its short name.",
    )  # fmt: skip
    get.add_argument("kind", metavar="KIND", nargs="?", help=", ".join(_kind_words()))
    get.add_argument("name", metavar="NAME", nargs="?", help="one resource in detail")
    get.add_argument("-A", "--all-namespaces", action="store_true", help="of every namespace")
    _add_namespace(get)
    add_output(get)
    get.set_defaults(handler=_get)
    logs = commands.add_parser("logs", help="print the log of a run's or a service's pod")
    _add_name(logs)
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the work ends")
    logs.add_argument(
        "--rank", type=int, default=0, metavar="N",
        help="which pod: 0 is the first, which reports; of a service copy N (default: 0)",
    )  # fmt: skip
    logs.add_argument("--previous", action="store_true", help="of the container before a restart")
    logs.add_argument(
        "--lines", type=int, default=200, metavar="N", help="lines from the end (default: 200)"
    )
    logs.add_argument("--raw", action="store_true", help="lines as they are, JSON as JSON")
    logs.set_defaults(handler=_logs)
    stop = commands.add_parser(
        "stop", help="stop a run; its saved states stay, `fsb resume` goes on from the last one"
    )
    _add_name(stop)
    stop.add_argument(
        "--delete", action="store_true",
        help="delete the resource: a service ends; what a run wrote to storage stays",
    )  # fmt: skip
    stop.set_defaults(handler=_stop)
    resume = commands.add_parser("resume", help="go on with a run that was stopped")
    _add_name(resume)
    resume.set_defaults(handler=_resume)


def find_kind(word: str) -> Kind:
    """Return the kind that a word means: its name, plural or short name, in any case.

    Raises:
        UnknownNameError: There is none; carries the nearest.
    """
    words = _kind_words()
    if word.lower() not in words:
        raise UnknownNameError("kind", word, words)
    return words[word.lower()]


def find_resource(client: ClusterClient, text: str) -> Json:
    """Return the resource that `NAME` or `KIND/NAME` means.

    Raises:
        UnknownNameError: There is none in the namespace; carries the nearest.
        ConfigError: Several kinds have one of that name.
    """
    word, separator, name = text.rpartition("/")
    kinds = [find_kind(word)] if separator else list(KINDS)
    everything = [item for kind in kinds for item in list_resources(client, kind, is_all=False)]
    found = [item for item in everything if item["metadata"]["name"] == name]
    if not found:
        what = kinds[0].kind if separator else "kind or resource"
        raise UnknownNameError(
            f"{what} in namespace {client.namespace!r}", name, known_names(everything)
        )
    if len(found) > 1:
        several = ", ".join(f"{item['kind'].lower()}/{name}" for item in found)
        raise ConfigError(f"{name!r} is several resources; name one of {several}")
    return found[0]


def list_resources(client: ClusterClient, kind: Kind, *, is_all: bool) -> list[Json]:
    """Return every resource of a kind; lists leave the kind out, it is put back."""
    path = resource_path(kind.kind, None if is_all else client.namespace)
    return [{**item, "kind": kind.kind} for item in client.list_objects(path)]


def _kind_words() -> dict[str, Kind]:
    """Return every word for a kind."""
    return {word: kind for kind in KINDS for word in (kind.kind.lower(), kind.plural, kind.short)}


def _add_namespace(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-n", "--namespace",
        help="namespace (default: FSB_NAMESPACE, else the pod's or the kubeconfig's)",
    )  # fmt: skip


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="as `fsb get` shows it; or KIND/NAME")
    _add_namespace(parser)


def _get(arguments: argparse.Namespace) -> int:
    word, client = arguments.kind, connect(arguments.namespace)
    if arguments.name:
        return _show(client, f"{word}/{arguments.name}", arguments.form)
    if word and word.lower() not in _kind_words():  # perhaps a name without its kind
        return _show(client, word, arguments.form)
    kinds = [find_kind(word)] if word else list(KINDS)
    is_all = arguments.all_namespaces
    found = [item for kind in kinds for item in list_resources(client, kind, is_all=is_all)]
    rows = [describe(item) for item in found]
    if arguments.form == "json":
        print_json(rows)
        return EXIT_OK
    if not rows:
        place = "the cluster" if is_all else f"namespace {client.namespace!r}"
        print_text(f"nothing in {place}; -A looks everywhere, -n NAME elsewhere")
        return EXIT_OK
    place = "every namespace" if is_all else f"namespace {client.namespace}"
    _print_rows(place, rows, has_namespaces=is_all)
    return EXIT_OK


def describe(resource: Json) -> Json:
    """Return what a table says about a resource, in flat plain values; nothing for None."""
    view = read_view(resource)
    status = view.status
    told = view.to_json()
    if view.phase in _SILENT:
        told.pop("message", None)
    if view.phase is not Phase.RUNNING:  # of what it was doing when it stopped
        told = {key: value for key, value in told.items() if key not in _WHILE_RUNNING}
    told["age_seconds"] = _age_seconds(resource)
    if isinstance(status, GangStatus | ServedModelStatus):
        told["model"] = status.model
    if isinstance(status, EvaluationStatus):
        told["gate_passed"] = status.gate_passed
    if isinstance(status, ServedModelStatus):
        told |= {"replicas": status.replicas, "url": status.url}
    return {key: value for key, value in told.items() if value is not None}


def _print_rows(place: str, rows: Iterable[Json], *, has_namespaces: bool) -> None:
    """Print a table a kind; columns that say nothing are left out, sentences stand below it."""
    by_kind: dict[str, list[Json]] = {}
    for row in rows:
        by_kind.setdefault(row["kind"], []).append(row)
    for kind, found in by_kind.items():
        cells = [_cells(row, has_namespace=has_namespaces) for row in found]
        shown = [n for n in range(len(_HEADER)) if n < 2 or any(row[n] for row in cells)]
        print_rows(
            f"{kind}: {place}",
            [_HEADER[number] for number in shown],
            [[row[number] for number in shown] for row in cells],
        )
        for (name, *_), row in zip(cells, found, strict=True):
            if words := row.get("message") or row.get("url"):
                print_text(f"{name}: {words}")
        print_text("")


def _cells(row: Json, *, has_namespace: bool) -> tuple[str, ...]:
    step, total = row.get("step"), row.get("total_steps")
    passed = row.get("gate_passed")
    rate = row.get("tokens_per_second")
    phase = row["phase"]
    if "replicas" in row:
        phase += f" ({row['replicas']})"
    return (
        f"{row['namespace']}/{row['name']}" if has_namespace else row["name"],
        phase,
        "" if step is None else f"{step:,}" + (f"/{total:,}" if total else ""),
        str(row.get("loss", "")),
        "" if rate is None else f"{rate:,}",
        str(row.get("eta", "")),
        "" if passed is None else ("passed" if passed else "not passed"),
        str(row.get("restarts", "")),
        _age(row["age_seconds"]),
        str(row.get("model", "")),
    )


def _show(client: ClusterClient, text: str, form: str) -> int:
    resource = find_resource(client, text)
    resource["metadata"].pop("managedFields", None)
    if form == "json":
        print_json(resource)
        return EXIT_OK
    view = read_view(resource)
    row = describe(resource)
    print_text(f"{view.place}: {view.phase}, {_age(row['age_seconds'])} old")
    if view.status.message:
        print_text(f"  {view.status.message}")
    told = [("", key, value) for key, value in _details(view).items() if value is not None]
    for _, key, value in told:
        print_text(f"  {key:17} {value}")
    conditions = [
        (item.type, item.status, item.reason, item.last_transition_time, item.message)
        for item in view.status.conditions
    ]
    if conditions:
        print_table("conditions", ("type", "status", "reason", "since", "message"), conditions)
    if isinstance(view.status, EvaluationStatus) and view.status.scores:
        header = ("task", "runner", "score", "95 % interval", "majority", "n")
        print_table(
            "scores", header,
            [(s.task, s.runner, s.value, s.interval, s.majority, str(s.num_rows))
             for s in view.status.scores],
        )  # fmt: skip
    if isinstance(view.status, GangStatus):
        print_text("run\n" + to_yaml({"run": resource["spec"].get("run")}))
    return EXIT_OK


def _details(view: View) -> Json:
    """Return the facts of a status that are neither conditions nor scores."""
    status = view.status
    if isinstance(status, ServedModelStatus):
        names = ("model", "checkpoint", "digest", "version", "url", "replicas")
        return {name: getattr(status, name) for name in names}
    assert isinstance(status, GangStatus)
    details: Json = {
        "model": status.model, "checkpoint": status.checkpoint, "started": status.start_time,
        "ended": status.completion_time, "restarts": status.restarts, "record": status.record,
        "digest": status.digest,
    }  # fmt: skip
    if status.progress:
        past = () if view.phase is Phase.RUNNING else _WHILE_RUNNING
        details |= status.progress.model_dump(exclude_none=True, exclude={"eta_seconds", *past})
    if isinstance(status, EvaluationStatus):
        details |= {"gate": status.gate_reason, "served": status.served_checkpoint}
    return details


def _logs(arguments: argparse.Namespace) -> int:
    client = connect(arguments.namespace)
    resource = find_resource(client, arguments.name)
    kind, name = resource["kind"], resource["metadata"]["name"]
    tail = LogTail(client, kind, name, rank=arguments.rank, num_lines=arguments.lines)
    lines = [] if arguments.follow else tail.read(is_previous=arguments.previous)
    for line in lines:
        print_text(line if arguments.raw else render_line(line))
    if arguments.follow:
        _follow_logs(client, kind, name, tail, is_raw=arguments.raw)
    elif not lines:
        raise NotReadyError(f"{kind} {name} has written nothing yet; -f waits for it")
    return EXIT_OK


def _follow_logs(
    client: ClusterClient, kind: str, name: str, tail: LogTail, *, is_raw: bool
) -> None:
    """Print lines until the work has ended; a pod between two lives is waited for."""
    while True:
        resource = patiently(lambda: client.get(resource_path(kind, client.namespace, name)))
        has_ended = resource is None or read_view(resource).phase in (*_ENDED, Phase.INVALID)
        try:
            lines = patiently(tail.read)
        except NotReadyError:
            if has_ended:
                raise
            lines = []
        for line in lines:
            print_text(line if is_raw else render_line(line))
        sys.stdout.flush()
        if has_ended:
            return
        time.sleep(_LOG_SECONDS)


def render_line(line: str) -> str:
    """Return a JSON log line of ours as a person reads it; any other line as it is."""
    try:
        value = json.loads(line)
        text = f"{value['time'][11:19]} {value['level'][0]} {value['logger']}: {value['message']}"
    except (ValueError, KeyError, TypeError, IndexError):
        return line
    return f"{text}\n{value['traceback']}" if value.get("traceback") else text


def _stop(arguments: argparse.Namespace) -> int:
    client = connect(arguments.namespace)
    resource = find_resource(client, arguments.name)
    view = read_view(resource)
    path = resource_path(view.kind, view.namespace, view.name)
    if arguments.delete:
        client.delete(path, resource["metadata"]["uid"])
        print_text(f"{view.place} is deleted; what it wrote to storage stays")
        return EXIT_OK
    if view.kind == "ServedModel":
        raise ConfigError(
            f"{view.place} cannot be suspended; `fsb stop {view.name} --delete` ends the service"
        )
    if view.phase in (*_ENDED, Phase.INVALID):
        print_text(f"{view.place} has already ended: {view.phase}")
        return EXIT_OK
    client.merge(path, {"spec": {"suspend": True}})
    print_text(f"{view.place} saves its state and stops; `fsb resume {view.name}` goes on")
    return EXIT_OK


def _resume(arguments: argparse.Namespace) -> int:
    client = connect(arguments.namespace)
    resource = find_resource(client, arguments.name)
    view = read_view(resource)
    if not resource["spec"].get("suspend"):
        again = "; the same `fsb run` starts it again" if view.phase is Phase.FAILED else ""
        print_text(f"{view.place} is not stopped: {view.phase}{again}")
        return EXIT_OK
    path = resource_path(view.kind, view.namespace, view.name)
    client.merge(path, {"spec": {"suspend": False}})
    print_text(f"{view.place} goes on from its last saved state")
    return EXIT_OK


def _age_seconds(resource: Json) -> int:
    text = resource["metadata"].get("creationTimestamp")
    made = datetime.fromisoformat(text) if text else datetime.now(UTC)
    return max(0, int((datetime.now(UTC) - made).total_seconds()))


def _age(seconds: int) -> str:
    """Return an age as kubectl writes it: the two largest units that say something."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
