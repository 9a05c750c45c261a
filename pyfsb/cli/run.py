# SPDX-License-Identifier: Apache-2.0
"""`fsb run` and `fsb explain`: the daily verbs."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from pyfsb import storage
from pyfsb.cli import summary
from pyfsb.cli.arguments import (
    Commands,
    add_output,
    add_spec,
    print_json,
    print_text,
    read_spec,
)
from pyfsb.config import RunSpec, Stage
from pyfsb.engines import find_engine
from pyfsb.engines.completion import record_places
from pyfsb.engines.protocol import RunResult
from pyfsb.errors import (
    EXIT_OK,
    EXIT_TERMINATED,
    CheckpointError,
    ConfigError,
    FsbError,
    UnknownNameError,
)
from pyfsb.evaluation.rows import check_files
from pyfsb.evaluation.suites import resolve_tasks
from pyfsb.processes import forwarding, report_error
from pyfsb.registry import ModelEntry, find_model
from pyfsb.schema import to_yaml
from pyfsb.training.architectures import merge_config, shape_of
from pyfsb.training.config import (
    build_deepspeed_config,
    build_rank_environment,
    build_torchrun_command,
)
from pyfsb.training.planner import check_placed

_GRACE_SECONDS = 40.0
"""Time for the server to answer what it has begun."""
_CLUSTER_ENGINE: Final = "kubernetes"
_CLUSTER_OPTIONS: Final = {
    "--namespace": ("FSB_NAMESPACE", "NAME", "namespace of the resources"),
    "--pool": ("FSB_POOL", "[STAGE=]POOL,…", "node pool of the chart, also by stage"),
    "--nodes": ("FSB_NODES", "N", "pods of training and evaluation"),
    "--processes-per-node": ("FSB_PROCESSES_PER_NODE", "N", "processes of each of them"),
    "--give-up-after": ("FSB_BLOCKED_SECONDS", "SECONDS", "longest wait for what cannot start"),
}
"""Option of `fsb run`: the environment variable that it sets, its value and its meaning."""


def add_commands(commands: Commands) -> None:
    """Add both verbs."""
    parser = commands.add_parser("run", help="run a spec from its data to the served model")
    add_spec(parser)
    add_output(parser)
    parser.add_argument(
        "--engine", default="local",
        help="where stages run: local, kfp-local or kubernetes (default: local)",
    )  # fmt: skip
    add_cluster_options(parser)
    parser.add_argument("--serve", action="store_true", help="keep serving after the last stage")
    parser.add_argument("--dry-run", action="store_true", help="do what `fsb explain` does")
    parser.set_defaults(handler=_run)
    explain = commands.add_parser("explain", help="show what a spec means, without doing it")
    add_spec(explain)
    add_output(explain)
    explain.set_defaults(handler=_explain)


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Add what a cluster needs to know beside the spec; engines read it from the environment."""
    group = parser.add_argument_group("options of --engine kubernetes")
    for option, (variable, metavar, text) in _CLUSTER_OPTIONS.items():
        letters = ["-n"] if option == "--namespace" else []
        group.add_argument(
            *letters, option, metavar=metavar, dest=variable, help=f"{text} (default: {variable})"
        )


def _set_cluster_options(arguments: argparse.Namespace) -> None:
    """Pass the cluster's options on to the engine.

    Raises:
        ConfigError: One is given for an engine that does not know it.
    """
    for option, (variable, _, _) in _CLUSTER_OPTIONS.items():
        value = getattr(arguments, variable)
        if value is None:
            continue
        if arguments.engine != _CLUSTER_ENGINE:
            raise ConfigError(
                f"{option} {value}: engine {arguments.engine} has no such option; "
                f"add --engine {_CLUSTER_ENGINE}"
            )
        os.environ[variable] = value


def _run(arguments: argparse.Namespace) -> int:
    spec = read_spec(arguments)
    if arguments.dry_run:
        return _explain(arguments)
    _set_cluster_options(arguments)
    check(spec, runs_here=arguments.engine != _CLUSTER_ENGINE)
    if arguments.engine == _CLUSTER_ENGINE:
        check_placed(spec, os.environ)
    engine, result = find_engine(arguments.engine), RunResult()
    code = EXIT_OK
    try:
        engine(spec, result, keeps_serving=arguments.serve)
    except FsbError as error:
        if not result.stages:
            raise
        summary.show(spec, result, arguments.form)
        report_error(error)
        return error.exit_code
    summary.show(spec, result, arguments.form)
    if result.server:
        code = _wait_for(result.server)
    return code


def check(spec: RunSpec, *, runs_here: bool = True) -> None:
    """Check names and files before anything is started.

    Args:
        spec: What is about to be run.
        runs_here: On this machine, so that its folders are there already.

    Raises:
        UnknownNameError: A model or task is not registered, or a setting names a task that this
            run does not score.
        ConfigError: The runner to serve is not among the runners, or an override of the model's
            config breaks its architecture.
        CheckpointError: The first weights are a folder that is not there.
        DataError: Files of a task are missing.
    """
    entry = find_model(spec.model.name)
    _check_names(spec)
    check_files(spec)
    if Stage.TRAINING in spec.stages and spec.model.checkpoint is None:
        _check_overrides(entry, spec.model.config)
    checkpoint = spec.model.checkpoint or ""
    if runs_here and checkpoint.startswith("/") and not Path(checkpoint).is_dir():
        raise CheckpointError(f"model.checkpoint = {checkpoint!r}: no such folder")


def _check_overrides(entry: ModelEntry, overrides: Mapping[str, Any]) -> None:
    """Refuse a config that breaks the architecture before the corpus is prepared for it.

    What the planner's arithmetic finds sound is taken to be so; of anything else the config's own
    class decides, which costs the import of a deep-learning library. Where there is none, as on a
    cluster's client, the training stage decides.
    """
    config = dict(entry.config)
    if all(type(value) is type(config.get(key)) is int for key, value in overrides.items()):
        try:
            shape_of(entry.architecture, merge_config(config, overrides))
        except ConfigError:
            pass
        else:
            return
    if find_spec("transformers"):
        from pyfsb.models.building import build_config

        build_config(entry, overrides, vocabulary=())


def _check_names(spec: RunSpec) -> None:
    """Check the settings that name a task or a runner of this run."""
    if Stage.EVALUATION not in spec.stages:
        return
    evaluation, serving = spec.evaluation, spec.serving
    tasks = [task.name for task in resolve_tasks(evaluation.tasks)]
    if spec.has_labelled_rows:
        tasks.append(spec.own_task.name)
    named = [("evaluation.overrides", name) for name in evaluation.overrides]
    for setting, name in [*named, *([("serving.task", serving.task)] if serving.task else [])]:
        if name not in tasks:
            raise UnknownNameError(f"task in {setting} (scored: {', '.join(tasks)})", name, tasks)
    if not evaluation.runners or serving.runner not in ("best", *evaluation.runners):
        known = ", ".join(evaluation.runners)
        raise ConfigError(
            f"serving.runner = {serving.runner!r} needs a model of that runner, but "
            f"evaluation.runners = [{known}]; add it there, or serve one of them or 'best'"
        )


def _wait_for(server: subprocess.Popen[bytes]) -> int:
    """Wait until the server ends or is told to: Ctrl-C is the usual end, and no failure."""
    with forwarding(server, grace_seconds=_GRACE_SECONDS) as stop:
        print_text("serving until Ctrl-C …")
        sys.stdout.flush()  # whoever reads a pipe waits for this line
        code = server.wait()
    if stop.signal_number == signal.SIGTERM:
        return EXIT_TERMINATED
    return EXIT_OK if stop.signal_number is not None else code


def _explain(arguments: argparse.Namespace) -> int:
    spec = read_spec(arguments)
    entry = find_model(spec.model.name)
    reads = {stage.value: _reads(spec, stage) for stage in spec.stages}
    writes = {
        stage.value: record_places(spec, stage) or [spec.output_of(stage)] for stage in spec.stages
    }
    command = build_torchrun_command(
        "pyfsb.training.run",
        ["--spec", storage.join(spec.output, "spec.yaml")],
        spec.parallelism,
        os.environ,
    )
    deepspeed = {
        "pretraining": build_deepspeed_config(spec.optimizer, spec.parallelism),
        "fine-tuning": build_deepspeed_config(spec.evaluation.finetune.optimizer, spec.parallelism),
    }
    environment = build_rank_environment(spec.parallelism)
    if arguments.form == "json":
        print_json(
            {
                "spec": spec.to_json(), "model": entry.to_json(), "stages": list(reads),
                "reads": reads, "writes": writes, "deepspeed": deepspeed,
                "torchrun": command, "environment": environment,
            }
        )  # fmt: skip
        return EXIT_OK
    print_text("# resolved spec\n" + to_yaml(spec.to_json()))
    print_text("# stages: what each reads and writes")
    for stage in spec.stages:
        print_text(f"{stage}:")
        print_text("".join(f"  reads  {place}\n" for place in reads[stage.value]))
        print_text("".join(f"  writes {place}\n" for place in writes[stage.value]))
    print_text("\n# DeepSpeed\n" + json.dumps(deepspeed, indent=2))
    settings = " ".join(f"{name}={value}" for name, value in environment.items())
    print_text(f"\n# command of the ranks\n{settings} \\\n  {' '.join(command)}")
    return EXIT_OK


def _reads(spec: RunSpec, stage: Stage) -> list[str]:
    """Return the places a stage reads."""
    root, stages = spec.data.root, spec.stages
    if stage is Stage.DATA:
        own = list(spec.labelled_files)
        return [*(storage.join(root, pattern) for pattern in spec.data.corpus), *own]
    first = [spec.model.checkpoint] if spec.model.checkpoint else []
    if stage is Stage.TRAINING:
        corpus = [storage.join(spec.output_of(Stage.DATA), "corpus")] if spec.data.corpus else []
        return [*corpus, *(part.uri for part in spec.data.blend), *first]
    if stage is Stage.EVALUATION:
        base = [spec.output_of(Stage.TRAINING)] if Stage.TRAINING in stages else first
        tasks = resolve_tasks(spec.evaluation.tasks)
        files = [storage.join(root, path) for task in tasks for path in (task.train, task.test)]
        labelled = storage.join(spec.output_of(Stage.DATA), "labelled")
        own = [labelled] if spec.has_labelled_rows else []
        return [*base, *files, *own]
    return [spec.output_of(Stage.EVALUATION)]
