# SPDX-License-Identifier: Apache-2.0
"""The model card of a folder: README.md in Chinese and English, made of records and the registry.

Called by `exporting` and when a training publishes its weights. States what the records state and
nothing else: what was not measured or not published is said to be unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from pyfsb import records, storage
from pyfsb.config import Family
from pyfsb.consumption import ResourceUse
from pyfsb.errors import DataError
from pyfsb.models.architectures import find_architecture
from pyfsb.models.card_snippets import USAGES, write_snippet
from pyfsb.records import MODEL_FOLDER, CheckpointRecord, DatasetRecord, EvalReport, Score
from pyfsb.registry import ModelEntry, find_model

CARD_NAME: Final = "README.md"
CITATION: Final = """@article{fengshenbang,
  author  = {Jiaxing Zhang and Ruyi Gan and Junjie Wang and others},
  title   = {Fengshenbang 1.0: Being the Foundation of Chinese Cognitive Intelligence},
  journal = {CoRR},
  volume  = {abs/2209.02970},
  year    = {2022}
}"""
"""Source: arXiv:2209.02970."""
_METRIC_TASKS: Final = {
    Family.TAG: "token-classification",
    Family.ANSWER: "question-answering",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """What a card is made of; all but entry and family may be unknown."""

    entry: ModelEntry
    """The registered model."""
    family: Family
    """What this folder's head is for."""
    record: CheckpointRecord | None = None
    """Of our training. None: published weights, brought here."""
    corpora: tuple[DatasetRecord, ...] = ()
    """What it was trained on, from the record's lineage."""
    scores: tuple[Score, ...] = ()
    """Of this very model, measured by us."""
    source: str = ""
    """Where the weights are from, when they are not of our training."""


def write_card(folder: Path, facts: CardFacts) -> Path:
    """Write README.md into a model folder; returns its path."""
    header = yaml.safe_dump(build_header(facts), allow_unicode=True, sort_keys=False)
    parts = [
        _title(facts),
        _introduction(facts),
        _taxonomy(facts.entry),
        _corpus(facts),
        _compute(facts.record),
        _scores(facts),
        _limitations(facts),
        _usage(folder, facts),
        f"## 引用 Citation\n\n```bibtex\n{CITATION}\n```",
    ]
    path = folder / CARD_NAME
    path.write_text(f"---\n{header}---\n\n" + "\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def write_card_of(
    folder: Path, record: CheckpointRecord, *, base: str, reports: Sequence[EvalReport] = ()
) -> Path:
    """Write the card of a training's export.

    Args:
        folder: The model folder.
        record: Of the training.
        base: Folder or prefix of that record, from which its links lead.
        reports: Reports in which this model may be scored.
    """
    facts = CardFacts(
        entry=find_model(record.model),
        family=Family(record.family),
        record=record,
        corpora=find_corpora(record, base),
        scores=find_scores(record, reports),
    )
    return write_card(folder, facts)


def find_corpora(record: CheckpointRecord, base: str) -> tuple[DatasetRecord, ...]:
    """Return the records of what a model was trained on that its links still lead to."""
    found: list[DatasetRecord] = []
    for parent in record.parents:
        if parent.kind != "DatasetRecord":
            continue
        try:
            corpus = records.read_record(storage.resolve(parent.uri, base))
        except DataError:
            continue  # the card says so; the training itself does not depend on it any more
        if isinstance(corpus, DatasetRecord) and corpus.digest == parent.digest:
            found.append(corpus)
    return tuple(found)


def find_scores(record: CheckpointRecord, reports: Iterable[EvalReport]) -> tuple[Score, ...]:
    """Return the scores in reports that are of this very checkpoint."""
    rows = [score for report in reports for score in report.scores]
    return tuple(score for score in rows if score.checkpoint_digest == record.digest)


def build_header(facts: CardFacts) -> dict[str, Any]:
    """Return the YAML header that model hubs read. Source: the hub's model card specification."""
    entry = facts.entry
    own = find_architecture(entry.architecture) is not None
    tags = ["fengshenbang", entry.series.value, entry.task.value, entry.architecture]
    header: dict[str, Any] = {
        "language": list(entry.languages),
        "license": entry.licence.lower(),
        "library_name": "fengshenbang" if own else "transformers",
        "pipeline_tag": USAGES[facts.family].pipeline_tag,
        "tags": list(dict.fromkeys(tags)),
    }
    if facts.record is None and entry.hub_id:
        header["base_model"] = entry.hub_id
    if facts.scores:
        results = [_result(facts, score) for score in facts.scores]
        header["model-index"] = [{"name": _name(facts), "results": results}]
    return header


def _result(facts: CardFacts, score: Score) -> dict[str, Any]:
    low, high = score.interval
    kind = _METRIC_TASKS.get(facts.family, "text-classification")
    return {
        "task": {"type": kind, "name": score.task},
        "dataset": {"type": score.task, "name": score.task, "split": "held-out"},
        "metrics": [
            {
                "type": score.metric,
                "value": round(score.value, 4),
                "name": f"{score.metric} (n = {score.num_rows}, 95 % interval "
                f"{low:.4f}-{high:.4f}, majority {score.majority_value:.4f})",
            }
        ],
    }


def _name(facts: CardFacts) -> str:
    task = facts.record.task if facts.record else None
    return f"{facts.entry.name}-{task}" if task else facts.entry.name


def _title(facts: CardFacts) -> str:
    return f"# {_name(facts)}"


def _introduction(facts: CardFacts) -> str:
    entry, record = facts.entry, facts.record
    series = f"{entry.series.chinese} {entry.series.value}"
    if record is None:
        origin = facts.source or entry.hub_id
        chinese = f"{series} 系列的 {entry.architecture} 模型，权重来自 {origin}。"
        english = f"A {entry.architecture} of the {series} series; weights from {origin}."
    else:
        size = f"{record.num_parameters / 1e6:,.2f} M"
        chinese = (
            f"{series} 系列的 {entry.architecture} 模型，{size} 参数，训练目标 {record.objective}，"
            f"共 {record.step:,} 步、{record.num_tokens:,} 个词元。"
        )
        english = (
            f"A {entry.architecture} of the {series} series with {size} parameters, trained on "
            f"{record.objective} for {record.step:,} steps and {record.num_tokens:,} tokens."
        )
        if record.num_parameters < 0.5 * entry.num_parameters:
            chinese += f"规模小于发布的 {entry.name}，并非原模型。"
            english += f" Smaller than the published {entry.name}; not that model."
    labels = "、".join(record.labels if record else entry.labels)
    told = f"\n\n标签 Labels: {labels}" if labels else ""
    return f"## 简介 Brief Introduction\n\n{chinese}\n\n{english}{told}"


def _taxonomy(entry: ModelEntry) -> str:
    size = entry.num_parameters
    parameters = f"{size / 1e9:g}B" if size >= 1e9 else f"{size / 1e6:g}M"
    rest = entry.name.split("-")[-1] if entry.name.count("-") > 2 else "-"
    return (
        "## 模型分类 Model Taxonomy\n\n"
        "| 需求 Demand | 任务 Task | 系列 Series | 模型 Model | 参数 Parameter | 额外 Extra |\n"
        "|:---:|:---:|:---:|:---:|:---:|:---:|\n"
        f"| {entry.demand.chinese} {entry.demand.value} | {entry.task.chinese} {entry.task.value} "
        f"| {entry.series.chinese} {entry.series.value} | {entry.architecture} | {parameters} "
        f"| {rest} |"
    )


def _corpus(facts: CardFacts) -> str:
    lines = [
        f"- {corpus.form}: 读取 read {corpus.num_read:,}, 保留 kept {corpus.num_kept:,}, "
        f"词元 tokens {corpus.num_tokens:,}, 词表 vocabulary {corpus.vocabulary_size:,}, "
        f"`{corpus.digest}`" + (f" ({', '.join(_file_names(corpus))})" if corpus.inputs else "")
        for corpus in facts.corpora
    ]
    if facts.record is None:
        lines += _claims(facts.entry, ("corpus", "data"))
    if not lines:
        lines = ["- 未知 Unknown: 没有可读的数据记录 no record of the data is at hand."]
    return "## 训练数据 Corpus\n\n" + "\n".join(lines)


def _file_names(corpus: DatasetRecord) -> list[str]:
    names = [file.path for file in corpus.inputs]
    return names if len(names) <= 4 else [*names[:3], f"… {len(names)}"]


def _claims(entry: ModelEntry, subjects: tuple[str, ...]) -> list[str]:
    return [
        f"- 据 {claim.source}: {claim.statement} (published claim)"
        for claim in entry.claims
        if any(subject in claim.subject.lower() for subject in subjects)
    ]


def _compute(record: CheckpointRecord | None) -> str:
    head = "## 算力与能耗 Compute and Energy\n\n"
    used = record.resources if record else None
    if used is None:
        return head + "- 未知 Unknown: 没有记录 not recorded."
    lines = [
        f"- 设备 Devices: {used.num_devices} x {used.device}, "
        f"{used.device_seconds / 3600:,.3f} 设备小时 device hours, "
        f"{used.num_attempts} 次启动 starts",
        f"- 速度 Speed: {used.tokens_per_second:,.0f} tokens/s"
        + (f", MFU {used.mfu:.1%}" if used.mfu is not None else ""),
        *_energy(used),
    ]
    return head + "\n".join(lines)


def _energy(used: ResourceUse) -> list[str]:
    if used.kwh is None:
        return ["- 能耗 Energy: 未知 unknown, 未声明功率 no power was stated."]
    text = (
        f"- 能耗 Energy: {used.kwh:,.4g} kWh (按声明的 by the stated {used.watts_per_device:g} W "
        "每设备 per device)"
    )
    if used.kg_co2e is not None:
        text += f", {used.kg_co2e:,.4g} kg CO2e (电网 grid {used.kg_co2e_per_kwh:g} kg/kWh)"
    return [text]


def _scores(facts: CardFacts) -> str:
    head = "## 评测 Scores\n\n"
    if not facts.scores:
        published = [
            f"- {score.task} {score.metric} {score.value:g} ({score.split}; {score.source})"
            for score in facts.entry.scores
        ]
        none = (
            "本目录的权重没有由本平台测得的分数。 These weights were not scored by this platform."
        )
        if facts.record is not None or not published:
            return head + none
        return f"{head}{none} 发布者所述 As published:\n\n" + "\n".join(published)
    rows = [
        f"| {score.task} | {score.metric} | {score.value:.4f} | {score.num_rows} "
        f"| {score.interval[0]:.4f}–{score.interval[1]:.4f} | {score.majority_value:.4f} "
        f"| {', '.join(map(str, score.seeds))} |"
        for score in facts.scores
    ]
    return (
        f"{head}| 任务 Task | 指标 Metric | 分数 Score | n | 95 % 区间 Interval "
        "| 多数类 Majority | 种子 Seeds |\n|---|---|---|---|---|---|---|\n" + "\n".join(rows)
    )


def _limitations(facts: CardFacts) -> str:
    lines = [
        "- 模型可能重复训练文本中的错误与偏见；用于决策之前请在自己的数据上评测。",
        "- It may repeat errors and biases of its training text; evaluate it on your own data "
        "before it decides anything.",
    ]
    if facts.record:
        limit = facts.record.max_tokens
        lines.append(f"- 输入至多 {limit:,} 个词元。 Inputs have {limit:,} tokens at most.")
    for score in facts.scores:
        if score.is_degenerate:
            lines.append(f"- {score.task}: 答案几乎全为一类。 Nearly all answers are one label.")
    lines += [f"- {issue}" for issue in facts.entry.known_issues]
    lines += [f"- 未公布 Never published: {text}" for text in facts.entry.unknown]
    return "## 局限 Limitations\n\n" + "\n".join(lines)


def _usage(folder: Path, facts: CardFacts) -> str:
    needs = ""
    if find_architecture(facts.entry.architecture) is not None:
        needs = (
            "\n\n架构不在 transformers 中：先 `import pyfsb.models.loading`，Auto 类才认识它。 "
            "The architecture is not in transformers; `import pyfsb.models.loading` makes the Auto "
            "classes know it."
        )
    snippet = write_snippet(facts.family, mask_token=_mask_token(folder))
    return (
        "## 使用 Usage\n\n在本目录中运行。 Run it in this folder "
        "(`pip install fengshenbang[models]`)."
        f"{needs}\n\n```python\n{snippet}\n```"
    )


def _mask_token(folder: Path) -> str:
    path = folder / "tokenizer_config.json"
    value = json.loads(path.read_text("utf-8")).get("mask_token") if path.is_file() else None
    if isinstance(value, dict):
        value = value.get("content")
    return str(value or "[MASK]")


def model_folder_of(folder: Path) -> Path:
    """Return where the weights lie: `model/` of a checkpoint, else the folder itself."""
    inner = folder / MODEL_FOLDER
    return inner if inner.is_dir() else folder
