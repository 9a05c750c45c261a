"""Does pretraining help? TNEWS fine-tuned from pretrained and from random weights.

Same fine-tuning, five seeds, compared in pairs; all of the raw corpus, 8,000 labelled rows, scored
on FewCLUE's test_public without overlapping texts. Prints the difference with its p-value.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pyfsb import records
from pyfsb.evaluation.statistics import paired_difference
from pyfsb.records import CheckpointRecord, EvalReport, Score
from tests.conftest import ROOT
from tests.helpers.specs import fsb

DEMO = str(ROOT / "docs/examples/demo.yaml")
SEEDS = (1, 2, 3, 4, 5)


def main() -> None:
    data = os.environ.get("FSB_DATA")
    if not data:
        print("FSB_DATA is not set: not measured")
        return
    scores: dict[str, Score] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, steps in (("pretrained", 1200), ("random", 0)):
            output = Path(folder, name)
            sets = [
                f"output={output}", f"data.root={data}", f"training.max_steps={steps}",
                "evaluation.tasks=[tnews]", "evaluation.runners=[finetune]",
                f"evaluation.finetune.seeds={list(SEEDS)}", "serving.is_enabled=false",
            ]  # fmt: skip
            done = fsb("run", DEMO, *[p for s in sets for p in ("--set", s)], timeout=7200)
            assert done.returncode == 0, done.stderr[-2000:]
            report = records.read_record(str(output / "evaluation"))
            base = records.read_record(str(output / "training"))
            assert isinstance(report, EvalReport)
            assert isinstance(base, CheckpointRecord)
            scores[name] = report.scores[0]
            print(
                f"{name:10} {base.step} steps, {base.num_tokens / 1e6:.2f} M tokens, loss "
                f"{base.loss or float('nan'):.3f}: {[round(v, 4) for v in report.scores[0].seed_values]}",
                flush=True,
            )
    first, second = scores["pretrained"], scores["random"]
    result = paired_difference(first.seed_values, second.seed_values)
    print(
        f"n = {first.num_rows}, majority {first.majority_value:.3f}; pretrained - random = "
        f"{result.mean:+.4f} [{result.interval[0]:+.4f}, {result.interval[1]:+.4f}], "
        f"p = {result.p_value:.3g} (paired t-test, {len(SEEDS)} seeds)"
    )
