"""The demo run, looked at as its user does."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import pyfsb
from pyfsb import records
from pyfsb.records import CheckpointRecord, DatasetRecord, EvalReport, ServingRecord
from tests.conftest import ROOT, SAMPLES
from tests.helpers.specs import fsb, fsb_command
from tests.integration.conftest import DemoRun

pytestmark = pytest.mark.timeout(600)


def test_every_stage_leaves_its_record(demo: DemoRun) -> None:
    stages = demo.result["stages"]
    assert [stage["stage"] for stage in stages] == [
        "data", "training", "evaluation", "leaderboard", "serving",
    ]  # fmt: skip
    kinds = [record["kind"] for stage in stages for record in stage["records"]]
    assert kinds == ["DatasetRecord", "CheckpointRecord", "EvalReport", "ServingRecord"]
    assert not any(stage["was_complete"] for stage in stages)
    for name in ("leaderboard/leaderboard.html", "training/loss.png", "spec.yaml"):
        assert (demo.output / name).is_file()
    assert not list(demo.output.rglob(".partial*"))


def test_it_trained_in_two_processes_with_zero_1(demo: DemoRun) -> None:
    done = fsb("explain", *demo.arguments, "--output", "json")
    explained = json.loads(done.stdout)
    assert explained["deepspeed"]["pretraining"]["zero_optimization"]["stage"] == 1
    assert "--nproc-per-node 2" in " ".join(explained["torchrun"])
    record = records.read_record(str(demo.output / "training"))
    assert isinstance(record, CheckpointRecord)
    steps = (demo.output / "training/metrics.jsonl").read_text().split("\n")[:-1]
    assert [json.loads(line)["step"] for line in steps] == list(range(1, record.step + 1))
    assert record.loss is not None
    assert record.loss < json.loads(steps[0])["loss"] - 1.0


def test_scores_are_above_the_majority_on_rows_that_share_nothing(demo: DemoRun) -> None:
    report = records.read_record(str(demo.output / "evaluation"))
    assert isinstance(report, EvalReport)
    assert report.gate.has_passed
    assert {(score.task, score.runner) for score in report.scores} == {
        (task, runner) for task in ("tnews", "eprstmt") for runner in ("finetune", "ngram")
    }
    for score in report.scores:
        assert score.num_rows >= 300
        assert score.num_overlap == 0
        assert score.p_value < 0.001
        assert score.interval[0] > score.majority_value


def test_predictions_give_the_score_again(demo: DemoRun) -> None:
    report = records.read_record(str(demo.output / "evaluation"))
    assert isinstance(report, EvalReport)
    for score in report.scores:
        path = demo.output / f"evaluation/{score.task}/predictions-{score.runner}.jsonl"
        rows = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
        correct = sum(row["gold"] == row["answer"] for row in rows if not row["has_overlap"])
        assert correct == score.num_correct


def test_submissions_have_the_official_form(demo: DemoRun) -> None:
    for task, name in (("tnews", "tnewsf_predict.json"), ("eprstmt", "eprstmt_predict.json")):
        path = demo.output / f"evaluation/{task}/submission/finetune/{name}"
        rows = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
        inputs = (SAMPLES / f"fewclue/{task}/test.json").read_text().split("\n")[:-1]
        assert [row["id"] for row in rows] == [json.loads(line)["id"] for line in inputs]
        assert all(isinstance(row["label"], str) for row in rows)


def test_the_lineage_reaches_from_the_served_model_to_the_corpus(demo: DemoRun) -> None:
    tree = json.loads(
        fsb("records", "tree", str(demo.output / "serving"), "--output", "json").stdout
    )
    assert tree["kind"] == "ServingRecord"
    checkpoint, report = tree["made_from"]
    assert [item["kind"] for item in checkpoint["made_from"]] == [
        "CheckpointRecord",
        "DatasetRecord",
    ]
    corpus = checkpoint["made_from"][0]["made_from"][0]
    assert corpus["uri"] == str(demo.output / "data/corpus")
    assert report["made_from"][0]["digest"] == checkpoint["made_from"][0]["digest"]
    text = fsb("records", "tree", str(demo.output / "serving")).stdout
    assert "documents" in text
    assert "(changed since)" not in text
    assert fsb("records", "verify", str(demo.output / "training")).returncode == 0


def test_data_counts_add_up(demo: DemoRun) -> None:
    record = records.read_record(str(demo.output / "data/corpus"))
    assert isinstance(record, DatasetRecord)
    assert record.num_read == record.num_kept + sum(record.dropped.values())
    assert record.num_words < record.num_tokens


def test_a_moved_run_keeps_its_lineage(demo: DemoRun, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(demo.output, tmp_path / "moved")
    tree = json.loads(
        fsb("records", "tree", str(tmp_path / "moved/serving"), "--output", "json").stdout
    )
    corpus = tree["made_from"][0]["made_from"][0]["made_from"][0]
    assert corpus["uri"] == str(tmp_path / "moved/data/corpus")


def test_a_second_run_finds_everything_complete_and_says_so(demo: DemoRun) -> None:
    done = fsb("run", *demo.arguments)
    assert done.returncode == 0
    for stage in ("data", "training", "evaluation", "serving"):
        assert f"[{stage}] complete since" in done.stderr
    assert "(kept)" in done.stdout
    assert "not distinguishable" not in done.stdout


def test_the_table_says_what_happened(demo: DemoRun) -> None:
    text = fsb("run", *demo.arguments).stdout
    served = records.read_record(str(demo.output / "serving"))
    assert isinstance(served, ServingRecord)
    for part in (
        "documents", "gate passed", "majority", "asked    中国女排夺得世界杯冠军",
        "answered ", "leaderboard.html", "loss.png", "fsb records tree", served.endpoint,
    ):  # fmt: skip
        assert part in text, part


def test_other_settings_on_the_same_output_are_refused(demo: DemoRun) -> None:
    done = fsb("run", *demo.arguments, "--set", "training.max_steps=5")
    assert done.returncode == 2
    assert "training.max_steps: 1200 → 5" in done.stderr
    assert "choose another output" in done.stderr


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", _blocks(ROOT / "README.md", "python"))
def test_the_python_of_the_readme_runs(
    block: str, demo: DemoRun, capsys: pytest.CaptureFixture[str]
) -> None:
    code = block.replace("runs/demo", str(demo.output))
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()
    assert len([line for line in block.split("\n") if line.strip()]) <= 5


def _request(url: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data=data, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            text = response.read().decode()
            return response.status, json.loads(text) if text.startswith(("{", "[")) else text
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read().decode()


TEXTS = ["中国女排夺得世界杯冠军", "央行宣布下调利率", "古镇门票限时免费，值得一去"]


def test_python_and_both_protocols_give_the_same_answers(demo: DemoRun, free_port: int) -> None:
    checkpoint = str(demo.output / "evaluation/tnews/finetune-42")
    expected = [answer.to_json() for answer in pyfsb.load(checkpoint).predict(TEXTS)]
    server = subprocess.Popen(
        fsb_command("serve", checkpoint, "--port", str(free_port)),
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    base = f"http://127.0.0.1:{free_port}"
    try:
        _wait_until_ready(server, f"{base}/v2/health/ready")
        status, v1 = _request(f"{base}/v1/models/tnews:predict", {"instances": TEXTS})
        assert (status, v1["predictions"]) == (200, expected)
        tensor = {"name": "text", "shape": [3], "datatype": "BYTES", "data": TEXTS}
        status, v2 = _request(f"{base}/v2/models/tnews/infer", {"inputs": [tensor], "id": "7"})
        outputs = {output["name"]: output["data"] for output in v2["outputs"]}
        assert [json.loads(item) for item in outputs["result"]] == expected
        assert outputs["label"] == [answer["label"] for answer in expected]
        assert v2["id"] == "7"
        _check_surroundings(base)
        with ThreadPoolExecutor(16) as pool:
            answers = list(
                pool.map(
                    lambda _: _request(f"{base}/v1/models/tnews:predict", {"instances": TEXTS[:1]}),
                    range(100),
                )
            )
        assert {status for status, _ in answers} <= {200, 503}
        assert answers[0][1]["predictions"] == expected[:1]
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(40) == 0, server.stderr and server.stderr.read()[-2000:]
    assert server.stderr
    log = server.stderr.read()
    assert "Traceback" not in log
    assert "女排" not in log


def _check_surroundings(base: str) -> None:
    assert _request(f"{base}/v2/health/live") == (200, {"live": True})
    assert _request(f"{base}/v1/models/tnews")[0] == 200
    assert _request(f"{base}/v2/models/tnews")[1]["inputs"][0]["name"] == "text"
    assert _request(f"{base}/v1/models/other:predict", {"instances": ["x"]})[0] == 404
    status, text = _request(f"{base}/v1/models/tnews:predict", {"instances": [""]})
    assert (status, text) == (400, '{"error":"input 0: the text is empty"}')
    assert _request(f"{base}/v1/models/tnews:predict", {"instances": ["x"] * 257})[0] == 413
    assert _request(f"{base}/v1/models/tnews:predict", {"instances": ["x" * 5_000_000]})[0] == 413
    status, text = _request(f"{base}/metrics")
    assert status == 200
    assert 'fsb_serving_requests_total{model="tnews",status="400"}' in text
    assert 'fsb_serving_rows_total{model="tnews"}' in text
    assert "request_predict_seconds" in text


def _wait_until_ready(server: subprocess.Popen[str], url: str) -> None:
    import time

    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert server.poll() is None, server.stderr and server.stderr.read()
        try:
            if _request(url)[0] == 200:
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server did not become ready")


def test_a_taken_port_is_told_in_one_line(demo: DemoRun, free_port: int) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port))
        taken.listen()
        checkpoint = str(demo.output / "evaluation/tnews/finetune-42")
        done = fsb("serve", checkpoint, "--port", str(free_port))
        assert done.returncode == 2
        assert f"serving.port = {free_port}: taken by another process" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_checkpoint_with_a_flipped_bit_is_not_served(demo: DemoRun, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "broken"
    shutil.copytree(demo.output / "evaluation/tnews/finetune-42", folder)
    weights = folder / "model/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    done = fsb("predict", str(folder), "文")
    assert done.returncode == 3
    assert f"{weights} differs from its record" in done.stderr


def test_predict_and_leaderboard_commands(demo: DemoRun, tmp_path: Path) -> None:
    done = fsb("predict", str(demo.output / "evaluation/tnews/ngram-42"), *TEXTS)
    assert [json.loads(line)["label"] for line in done.stdout.split("\n")[:-1]]
    done = fsb("leaderboard", "build", str(demo.output), "--to", str(tmp_path / "board"))
    assert "2 boards, 4 rows" in done.stdout
    ours = (tmp_path / "board/leaderboard.md").read_text()
    assert ours == (demo.output / "leaderboard/leaderboard.md").read_text()


def test_transformers_loads_the_exports(demo: DemoRun) -> None:
    from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

    folder = demo.output / "training/model"
    assert AutoModelForMaskedLM.from_pretrained(folder).config.hidden_size == 128
    assert AutoTokenizer.from_pretrained(folder).mask_token == "[MASK]"
    tuned = AutoModelForSequenceClassification.from_pretrained(
        demo.output / "evaluation/tnews/finetune-42/model"
    )
    assert tuned.config.id2label[3] == "103"


def test_serve_keeps_serving_until_ctrl_c(demo: DemoRun, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(demo.output, tmp_path / "run")
    process = subprocess.Popen(
        fsb_command("run", *demo.arguments, "--set", f"output={tmp_path}/run", "--serve"),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    output = ""
    try:
        while "serving until Ctrl-C" not in output:
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            output += line
        served = records.read_record(str(tmp_path / "run/serving"))
        assert isinstance(served, ServingRecord)
        tensor = {"name": "text", "shape": [3], "datatype": "BYTES", "data": TEXTS}
        status, answer = _request(served.endpoint, {"inputs": [tensor]})
        assert status == 200
        assert len(answer["outputs"][0]["data"]) == 3
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert served.endpoint in output
    assert "Traceback" not in errors
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(served.endpoint, timeout=5)
