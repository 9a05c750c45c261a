from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyfsb.cli import models_check
from pyfsb.cli.__main__ import main
from pyfsb.cli.models_ranking import Wish, can_finetune, family_of, rank
from pyfsb.cli.models_recommend import parse_amount
from pyfsb.config import Family
from pyfsb.errors import ConfigError, UnknownNameError
from pyfsb.processes import ChildEnd
from pyfsb.registry import Score, all_entries, find_entry
from pyfsb.training.pools import find_pool

A100 = find_pool("a100-40")
Fsb = Callable[..., tuple[int, str]]


@pytest.fixture
def fsb(capsys: pytest.CaptureFixture[str]) -> Fsb:
    def run(*arguments: str) -> tuple[int, str]:
        code = main(["models", *arguments])
        captured = capsys.readouterr()
        return code, captured.out or captured.err

    return run


def names(text: str) -> list[str]:
    return [entry["name"] for entry in json.loads(text)]


def wish(task: str, **changes: Any) -> Wish:
    return Wish(**{"task": task, "pool": A100, "precision": "bf16", **changes})


def test_list_has_all_and_filters(fsb: Fsb) -> None:
    assert len(names(fsb("list", "--output", "json")[1])) == 53
    found = names(fsb("list", "--series", "燃灯", "--family", "REWRITE", "--output", "json")[1])
    assert len(found) == 10
    assert all(name.startswith("Randeng") for name in found)
    assert names(fsb("list", "--architecture", "vit", "--output", "json")[1]) == ["Taiyi-vit-87M-D"]
    assert len(names(fsb("list", "--task", "多模态", "--output", "json")[1])) == 6
    code, table = fsb("list", "--family", "choose")
    assert code == 0
    assert "3 models" in table
    assert "Erlangshen-UniMC-RoBERTa-110M-Chinese" in table


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["list", "--series", "Randen"], "did you mean 'Randeng'"),
        (["list", "--family", "rewrit"], "did you mean 'rewrite'"),
        (["list", "--catalogue", "--series", "Taiyi"], "leave it or --catalogue out"),
        (["show", "Randeng-T5-77N"], "did you mean 'Randeng-T5-77M'"),
        (["search", "pegasus", "zebra"], "unknown words in the registry"),
        (["check"], "names, or --all"),
        (["check", "--all", "Randeng-T5-77M"], "names, or --all"),
        (["recommend", "--task", "tnew"], "did you mean 'tnews'"),
        (["recommend", "--task", "tnews", "--gpu-memory", "much"], "--gpu-memory much"),
        (["recommend", "--task", "tnews", "--device", "a100"], "unknown pool"),
        (["recommend", "--task", "tnews", "--device", "v100-32", "--precision", "bf16"], "fp16"),
        (["fetch", "NEZHA-base"], "has no class in transformers"),
        (["fetch", "EduBERT"], "no repository is known"),
    ],
)
def test_wrong_arguments_end_with_2_and_say_what_is_right(
    fsb: Fsb, arguments: list[str], text: str
) -> None:
    code, shown = fsb(*arguments)
    assert code == 2
    assert text in shown


def test_the_catalogue_is_listed_with_reasons(fsb: Fsb) -> None:
    rows = json.loads(fsb("list", "--catalogue", "--output", "json")[1])
    assert len(rows) == 150
    tagged = json.loads(fsb("list", "--catalogue", "--family", "tag", "--output", "json")[1])
    assert 0 < len(tagged) < 150
    assert all("tag" in row["families"] for row in tagged)
    assert "150 models of 49 headings" in fsb("list", "--catalogue")[1]
    electra = fsb("list", "--catalogue", "--architecture", "electra", "--output", "json")[1]
    assert {row["heading"] for row in json.loads(electra)} == {"ELECTRA"}
    images = json.loads(fsb("list", "--catalogue", "--task", "MM", "--output", "json")[1])
    assert len(images) == 10


def test_show_finds_both_and_keeps_what_has_no_class(fsb: Fsb) -> None:
    assert "architecture: megatron-t5" in fsb("show", "燃灯-7.7B")[1]
    shown = json.loads(fsb("show", "NEZHA-base", "--output", "json")[1])
    assert shown["architecture"] is None
    assert shown["why_not"]
    assert "heading: 周文王" in fsb("show", "Zhouwenwang base(L12)", "--catalogue")[1]
    assert json.loads(fsb("show", "二郎神-1.3B", "--output", "json")[1])["paper_number"] == 8


def test_search_looks_through_both(fsb: Fsb) -> None:
    found = json.loads(fsb("search", "roformer", "--output", "json")[1])
    assert any(row["heading"] == "RoFormer" for row in found["catalogue"])
    assert found["models"][0]["name"].startswith("Erlangshen-Longformer")
    table = fsb("search", "摘要")[1]
    assert "Randeng-BART-139M-SUMMARY" in table


def test_recommend_ranks_by_the_published_score_and_says_why(fsb: Fsb) -> None:
    code, text = fsb("recommend", "--task", "tnews", "--gpu-memory", "24GB", "--output", "json")
    assert code == 0
    found = json.loads(text)["recommended"]
    scores = [made["score"] for made in found if made["score"] is not None]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) >= 9
    first = found[0]
    assert first["name"] == "Erlangshen-MegatronBert-3.9B-Chinese"
    assert first["device"] == "rtx3090-24"
    assert "tnews accuracy 0.6048 (unsaid rows, model card)" in first["reasons"]
    assert any("estimated, not measured" in reason for reason in first["reasons"])


def test_limits_leave_models_out_and_say_so(fsb: Fsb) -> None:
    arguments = ["recommend", "--task", "tnews", "--gpu-memory", "24", "--latency", "20"]
    value = json.loads(fsb(*arguments, "--max-parameters", "800M", "--output", "json")[1])
    left_out = {refusal["name"]: refusal["why"] for refusal in value["left_out"]}
    assert left_out["Erlangshen-MegatronBert-1.3B"] == "has 1,257 M parameters"
    assert left_out["Taiyi-Roberta-124M-D"] == "does not read zh"
    assert value["recommended"][0]["name"] == "Erlangshen-ZEN2-668M-Chinese"
    slow = json.loads(fsb(*arguments, "--output", "json")[1])["left_out"]
    assert any(r["why"].endswith("ms (estimated)") and "3.9B" in r["name"] for r in slow)
    assert "left out:\n" in fsb(*arguments)[1]


def test_memory_counts_for_serving_and_with_finetune_for_that_too() -> None:
    served = {made.name for made in rank(all_entries(), wish("generate", memory_bytes=8e9))[0]}
    assert "Wenzhong-GPT2-110M" in served
    assert "Wenzhong-GPT2-3.5B" not in served
    every = rank(all_entries(), wish("lcsts"))[0]
    fitting = rank(all_entries(), wish("lcsts", needs_finetuning=True, memory_bytes=10e9))[0]
    assert {made.name for made in fitting} < {made.name for made in every}
    assert all(made.fits_finetuning and made.finetune_bytes <= 10e9 for made in fitting)


def test_what_reads_no_text_needs_no_language(fsb: Fsb) -> None:
    found = json.loads(fsb("recommend", "--task", "classify_image", "--output", "json")[1])
    assert [made["name"] for made in found["recommended"]] == ["Taiyi-vit-87M-D"]


def test_contradicting_scores_count_by_the_lower_one() -> None:
    first = rank(all_entries(), wish("lcsts"))[0][0]
    assert (first.name, first.score) == ("Randeng-Pegasus-523M-Summary-Chinese", 0.48)
    assert "contradicted by 0.4942 (IDEA-CCNL/Fengshenbang-LM: fengshen/" in first.reasons[1]


def test_ready_means_without_fine_tuning() -> None:
    found = rank(all_entries(), wish("fewclue", is_ready=True))[0]
    assert [made.score for made in found] == [0.6453, 0.5901, 0.557]
    assert all(made.is_ready and "zero-shot" in made.reasons[1] for made in found)
    pairs = rank(all_entries(), wish("ocnli", is_ready=True))[0]
    assert {made.name.rpartition("-")[2] for made in pairs} == {"NLI"}


def test_more_tokens_and_slower_devices_take_longer() -> None:
    def seconds(**changes: Any) -> float:
        (made,), _ = rank([find_entry("Erlangshen-Roberta-330M-NLI")], wish("ocnli", **changes))
        return made.latency_seconds

    assert seconds(input_tokens=512) > seconds() > 0
    assert seconds(pool=find_pool("v100-32"), precision="fp16") > seconds()
    assert seconds(precision="fp32") > seconds()


def test_long_inputs_need_positions() -> None:
    found = rank(all_entries(), wish("classify", input_tokens=4096))[0]
    assert {made.name for made in found} >= {"Erlangshen-Longformer-110M"}
    assert not any("Roberta" in made.name for made in found)


def test_the_catalogue_takes_part_when_asked(fsb: Fsb) -> None:
    arguments = ["recommend", "--task", "cluener", "--max-parameters", "50M", "--output", "json"]
    assert json.loads(fsb(*arguments)[1])["recommended"] == []
    found = json.loads(fsb(*arguments, "--catalogue", "--limit", "99")[1])["recommended"]
    assert {"RBT3", "ELECTRA-180g-small"} <= {made["name"] for made in found}


def test_an_unknown_score_does_not_count() -> None:
    entry = find_entry("Erlangshen-Longformer-110M")
    other = Score(task="chnsenticorp", metric="accuracy", value=0.99, source="test")
    (made,), _ = rank([entry.model_copy(update={"scores": (other,)})], wish("tnews"))
    assert made.score is None
    assert "by size" in made.reasons[1]


@pytest.mark.parametrize("family", Family)
def test_every_family_can_be_asked_for(family: Family) -> None:
    assert family_of(family.value) is family
    found, _ = rank(all_entries(), wish(family.value))
    assert found
    assert {made.family for made in found} == {family}


def test_only_heads_that_exist_can_be_fine_tuned() -> None:
    assert can_finetune(find_entry("Erlangshen-ZEN1-224M-Chinese"), Family.TAG)
    assert not can_finetune(find_entry("Taiyi-vit-87M-D"), Family.CLASSIFY)
    assert not can_finetune(find_entry("Randeng-T5-77M"), Family.TAG)
    with pytest.raises(UnknownNameError):
        family_of("nonsense")


@pytest.mark.parametrize(
    ("text", "value"), [("24", 24), ("24GB", 24), ("1.5B", 1.5e9), ("400m", 4e8), ("20 ms", 20)]
)
def test_amounts(text: str, value: float) -> None:
    assert parse_amount(text, "--x") == value


@pytest.mark.parametrize("text", ["", "0", "-3", "many", "1.5X"])
def test_amounts_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="--x"):
        parse_amount(text, "--x")


RESULT = {
    "name": "Randeng-T5-77M", "is_ok": True, "parameters": 60_746_112,
    "expected_parameters": 77_000_000, "first_loss": None, "last_loss": None, "answer": "",
    "seconds": 1.5, "note": "-21.1%: why",
}  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "code", "expected"),
    [
        ([RESULT], 0, 0),
        ([{**RESULT, "is_ok": False, "note": "the loss did not fall"}], 3, 3),
        ([], 3, 3),
        ([], 75, 75),
    ],
)
def test_check_starts_a_process_and_shows_what_it_wrote(
    fsb: Fsb, monkeypatch: pytest.MonkeyPatch, lines: list[Any], code: int, expected: int
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str]) -> ChildEnd:
        commands.append(command)
        path = Path(command[command.index("--results") + 1])
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return ChildEnd(code=code, signal_number=None)

    monkeypatch.setattr(models_check, "run_child", run)
    found, table = fsb("check", "randeng_t5_77m", "--full-size")
    assert found == expected
    assert commands[0][1:3] == ["-m", "pyfsb.evaluation.model_check_run"]
    assert commands[0][-2:] == ["--full-size", "Randeng-T5-77M"]
    assert f"{int(expected == 0)} of 1 entries work" in table
    for line in lines:
        assert line["note"] in table
    assert json.loads(fsb("check", "Randeng-T5-77M", "--output", "json")[1]) == lines
    fsb("check", "--all")
    assert len(commands[-1]) == 5 + 53
