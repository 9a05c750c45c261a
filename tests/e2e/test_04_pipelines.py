"""The `end_to_end` pipeline against the cluster gives the records of the local run.

KFP's backend is not installed: its local runner runs the same components on this machine, and they
apply the same custom resources as they would in a task's pod.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pyfsb import records, storage
from tests.conftest import ROOT
from tests.e2e.conftest import BUCKET, TEAMS, Platform, write_cluster_spec
from tests.e2e.kube import GROUP
from tests.helpers.specs import fsb

OUTPUT = f"{BUCKET}/runs/pipeline"
PLACES = (
    "data/corpus", "training", "evaluation", "evaluation/tnews/finetune-42",
    "evaluation/tnews/ngram-42", "serving",
)  # fmt: skip
SMALL = {
    "training": {"max_steps": 20, "checkpoint_every_steps": 20},
    "evaluation": {
        "tasks": ["tnews"],
        "finetune": {
            "optimizer": {"learning_rate": 0.003}, "batch": {"tokens": 1024}, "num_epochs": 1,
            "max_steps": 120, "max_tokens": 48,
        },
    },
    "serving": {"question": "中国女排夺得世界杯冠军", "port": 0},
}  # fmt: skip


def test_the_pipeline_on_the_cluster_gives_the_local_records(
    platform: Platform, store: str, workdir: Path
) -> None:
    on_cluster = write_cluster_spec(workdir, OUTPUT, "pipeline.yaml", name="pipe", **SMALL)
    script = (
        "import sys\n"
        "from kfp import local\n"
        "from pipelines.end_to_end import end_to_end\n"
        "from pipelines.local_engine import without_retries\n"
        "runner = local.SubprocessRunner(use_venv=False)\n"
        "local.init(runner, pipeline_root=sys.argv[2], raise_on_error=True)\n"
        "with open(sys.argv[1], encoding='utf-8') as file:\n"
        "    text = file.read()\n"
        "with without_retries(end_to_end):\n"
        "    end_to_end(spec=text, engine='kubernetes')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(on_cluster), str(workdir / "kfp")], cwd=ROOT,
        capture_output=True, text=True, timeout=400, check=False,
        env={**os.environ, "FSB_NAMESPACE": TEAMS[0]},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-4000:]
    local = write_cluster_spec(workdir, str(workdir / "local"), "local.yaml", name="pipe", **SMALL)
    done = fsb("run", str(local), timeout=400)
    assert done.returncode == 0, done.stderr[-4000:]
    for place in PLACES:
        ours = records.read_record(storage.join(OUTPUT, place)).digest
        theirs = records.read_record(storage.join(str(workdir / "local"), place)).digest
        assert ours == theirs, place
    kinds = ("datapreparations", "trainingruns", "evaluations", "servedmodels")
    for kind in kinds:
        found = platform.kube.list(f"{kind}.{GROUP}", TEAMS[0])
        assert any(item["metadata"]["name"].startswith("pipe") for item in found), kind
