# SPDX-License-Identifier: Apache-2.0
"""The words beside the fields of the pipelines' forms; one field means the same in all of them.

KFP takes the descriptions that the UI shows from a pipeline's docstring; `with_fields` writes them
there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar

from pipelines.environment import store_root

OUTPUT: Final = f"{store_root()}/runs/{{run}}"
"""Where a run of a form writes to unless somebody says otherwise."""
FIELDS: Final = {
    "batch_tokens": "Tokens of one optimizer step over all devices.",
    "checkpoint": (
        "Weights to start from, an s3:// folder or name@alias of the model store. Empty, for "
        "pretraining only: random weights."
    ),
    "corpus": (
        "Raw text, a file or a glob on the store, such as s3://bucket/corpus/**/*.jsonl.gz "
        "(.jsonl, .txt, either with .gz)."
    ),
    "data_root": "Folder on the store with the files of the tasks (clue/, fewclue/).",
    "engine": "kubernetes. Only kfp.local on one machine knows local, too.",
    "family": (
        "classify (one text, one label), pair (two texts, one label) or tag (entities in a text)."
    ),
    "label_column": "Column or key of the label; family tag, a list of {start, end, type}.",
    "labels": "The allowed labels, separated by commas. Empty takes those that occur.",
    "learning_rate": "Peak learning rate.",
    "max_steps": "Optimizer steps at most.",
    "max_tokens": "Tokens of a sample at most; longer texts are cut.",
    "model": "Registered name of the model; `fsb models list` shows them.",
    "name": "Name of the run, of its own task and of its service.",
    "nodes": "Pods that train together.",
    "num_epochs": "Passes over the text or the rows at most.",
    "output": (
        "Folder on the store for everything the run writes. {run} becomes the run's id; without "
        "it a second run goes on with what is complete."
    ),
    "pool": "Node pool of the chart for data, training and evaluation.",
    "processes_per_node": "Training processes of a pod. 0 takes one for each of its devices.",
    "register_as": "Name in the model store to register the result under. Empty registers nothing.",
    "seed": "Seed of every random choice.",
    "seeds": "Seeds, separated by commas, one fine-tuning each; the first one's model is served.",
    "serve": "Serve the model if it passes the gate; the service stays.",
    "serving_pool": "Node pool of the chart for the service.",
    "settings": "Further settings of the run spec as YAML; they win over this form.",
    "spec": "Run spec, YAML text, as `fsb run` takes it; every path in it absolute or s3://.",
    "suite": "A suite, or tasks separated by commas; `fsb tasks list` shows both.",
    "test_file": "Held-out rows in the same form. Empty holds some of the rows out.",
    "text_column": "Column or key of the (first) text.",
    "text_pair_column": "Column or key of the second text; family pair only.",
    "train_file": "Labelled rows, a CSV with a header or a .jsonl on the store; UTF-8.",
}
"""What each field means: unit, form, and what 0 or nothing stands for."""
T = TypeVar("T", bound=Callable[..., Any])


def with_fields(pipeline: T) -> T:
    """Add the description of every parameter to a pipeline's docstring."""
    names = inspect.signature(pipeline).parameters
    lines = "\n".join(f"    {name}: {FIELDS[name]}" for name in names)
    pipeline.__doc__ = f"{inspect.getdoc(pipeline)}\n\nArgs:\n{lines}\n"
    return pipeline
