# SPDX-License-Identifier: Apache-2.0
"""`fsb data prepare`, `fsb train run`, `fsb evaluate run`: one stage of a spec at a time."""

from __future__ import annotations

import argparse

from pyfsb.cli import summary, train
from pyfsb.cli.arguments import Commands, add_output, add_spec, read_spec
from pyfsb.cli.run import check
from pyfsb.config import Stage
from pyfsb.engines.local import run_stage
from pyfsb.engines.protocol import RunResult
from pyfsb.errors import EXIT_OK, ConfigError

_VERBS = {
    "data": ("prepare", Stage.DATA, "make token shards and validated rows"),
    "train": ("run", Stage.TRAINING, "pretrain on prepared data"),
    "evaluate": ("run", Stage.EVALUATION, "fine-tune on the tasks and score them"),
}


def add_commands(commands: Commands) -> None:
    """Add the three nouns."""
    for noun, (verb, stage, text) in _VERBS.items():
        verbs = commands.add_parser(noun, help=text).add_subparsers(metavar="VERB", required=True)
        parser = verbs.add_parser(verb, help=text)
        add_spec(parser)
        add_output(parser)
        parser.set_defaults(handler=_run, stage=stage)
        if stage is Stage.TRAINING:
            train.add_verb(verbs)


def _run(arguments: argparse.Namespace) -> int:
    spec, stage = read_spec(arguments), arguments.stage
    if stage not in spec.stages:
        wanted = ", ".join(spec.stages)
        raise ConfigError(f"{arguments.spec} has no stage {stage}; it has {wanted}")
    check(spec)
    result = RunResult(stages=[run_stage(spec, stage)])
    summary.show(spec, result, arguments.form)
    return EXIT_OK
