# SPDX-License-Identifier: Apache-2.0
"""The sections of a run spec: each field with its unit, its range and the reason of its default.

Gathered by `pyfsb.config.run_spec`; those of training are in `training_sections`. Defaults live in
these two files and nowhere else. Never reads a file.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from pyfsb.config.corpus_sections import Column, GapSpec, KnowledgeSpec, NgramSpec, find_conflict
from pyfsb.config.corpus_sections import VocabularySpec as VocabularySpec
from pyfsb.config.training_sections import (
    BatchSpec,
    LoraSpec,
    OptimizerSpec,
    PositiveFloat,
    PositiveInt,
    Ratio,
)
from pyfsb.errors import did_you_mean, nearest_names
from pyfsb.schema import Schema

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]


class Stage(StrEnum):
    """The stages of a run, in order; each is one subprocess and, but for the pages, one record."""

    DATA = "data"
    TRAINING = "training"
    EVALUATION = "evaluation"
    LEADERBOARD = "leaderboard"
    SERVING = "serving"


class Family(StrEnum):
    """What goes in and what comes out of a model, whatever its architecture."""

    CLASSIFY = "classify"
    PAIR = "pair"
    TAG = "tag"
    FILL_MASK = "fill_mask"
    GENERATE = "generate"
    REWRITE = "rewrite"
    """One text in, another one out: encoder-decoders."""
    CHOOSE = "choose"
    """A text, a question and options in, one option out (UniMC)."""
    EXTRACT = "extract"
    """A text and the kinds that are looked for in, typed spans out (UBERT, UniEX)."""
    ANSWER = "answer"
    """A question and a text in, a span of the text out."""
    EMBED = "embed"
    """A text in, a vector out."""
    IMAGE_TEXT = "image_text"
    """Images and texts in, their similarities out (CLIP)."""
    CLASSIFY_IMAGE = "classify_image"
    """An image in, a label out."""


class ModelSpec(Schema):
    """Which model, and where its weights come from."""

    name: str
    """A registered name or alias; `fsb models list` shows them."""
    config: dict[str, bool | int | float | str] = {}
    """Overrides of the entry's config, such as `hidden_size: 128`; a checkpoint's is fixed."""
    checkpoint: str | None = None
    """First weights: a folder or s3:// (a run's training folder, or a Hugging Face folder with
    safetensors), hf://org/name or modelscope://org/name with or without @revision, a registered
    name (its published weights), or a version of the model store: name@alias or name@3. None:
    random weights."""


class TaskSpec(Schema):
    """A labelled data set of the user's own, in at most ten lines of YAML."""

    name: Name = "mine"
    """Name of the task in records, files and tables."""
    family: Literal[Family.CLASSIFY, Family.PAIR, Family.TAG] = Family.CLASSIFY
    """classify: one text, one label; pair: two texts, one label; tag: entities in a text."""
    text: str = "text"
    """Column or key of the (first) text."""
    text_pair: str | None = None
    """Column or key of the second text; required by family pair."""
    label: str = "label"
    """Column or key of the label; family tag: a list of {start, end, type}, end exclusive."""
    labels: tuple[str, ...] = ()
    """The allowed labels (tag: entity types). Empty takes those that occur, sorted."""
    template: str | None = None
    """Column or key of the name of the template that a row was made from. Rows of one template
    count as overlapping, as rows of one text do; a row without the key, or with a blank, has no
    template. None: no row has one."""

    @model_validator(mode="after")
    def _fields_fit_family(self) -> Self:
        if (self.family is Family.PAIR) != (self.text_pair is not None):
            raise ValueError("family pair, and only it, needs text_pair (the second text's key)")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must not repeat")
        return self


def _task_form(value: object) -> str:
    return "_path" if isinstance(value, str) else "_inline"


class BlendPart(Schema):
    """A prepared corpus that pretraining reads beside, or in place of, this run's own."""

    name: Name
    """Its name in logs and metrics."""
    uri: str
    """Folder or s3:// of the data stage of another run, with the same vocabulary."""
    weight: PositiveFloat | None = None
    """Its share of the samples, against the weights of the others. None takes its number of
    samples to the power of 1 / data.blend_temperature."""


class MixtureSet(Schema):
    """One labelled set of a mixture, with its own fields and labels."""

    name: Name
    """Its name in records, scores and messages."""
    train: str
    """Training rows: jsonl, json, CSV or TSV, relative to data.root."""
    test: str | None = None
    """Rows to score, in the same form. None splits them off `train`, as data.held_out_* say."""
    text: str = "text"
    """Column or key of the (first) text."""
    text_pair: str | None = None
    """Column or key of the second text; required by family pair."""
    label: str = "label"
    """Column or key of the label; family tag: of the entities."""
    label_map: dict[str, str] = {}
    """The set's labels (tag: entity types), each with the mixture's label that it becomes. Empty:
    the set uses the mixture's labels."""
    drop_unmapped: bool = False
    """Leave out and count rows with any other label. False: such a row is an error."""
    weight: PositiveFloat | None = None
    """Its share of the training rows, against the weights of the others. None takes its number
    of rows to the power of 1 / temperature."""
    template: str | None = None
    """Column or key of the name of the template that a row was made from, as in a task; names are
    compared within the set."""

    @field_validator("label_map", mode="before")
    @classmethod
    def _name_by_text(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {_label_text(key): _label_text(label) for key, label in value.items()}


class MixtureSpec(Schema):
    """Several labelled sets that one model is fine-tuned on, and scored on one by one."""

    name: Name = "mixture"
    """Name of the task that the model learns."""
    family: Literal[Family.CLASSIFY, Family.PAIR, Family.TAG] = Family.CLASSIFY
    """As of a task; the same for all sets."""
    labels: tuple[str, ...]
    """The model's labels (tag: entity types), which those of the sets become."""
    sets: tuple[MixtureSet, ...]
    """The sets; a set need not have every label."""
    temperature: PositiveFloat = 1.0
    """Above 1, small sets get more than their share, as data.blend_temperature."""

    @field_validator("labels", mode="before")
    @classmethod
    def _name_by_text(cls, value: Any) -> Any:
        return [_label_text(item) for item in value] if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _sets_fit(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must not repeat")
        num_needed = 1 if self.family is Family.TAG else 2
        if len(self.labels) < num_needed:
            known = ", ".join(self.labels) or "none"
            raise ValueError(f"family {self.family.value} needs {num_needed} labels, here: {known}")
        if not self.sets:
            raise ValueError("sets must be at least one")
        names = [part.name for part in self.sets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sets are named {twice[0]!r}; every set needs a name of its own")
        for part in self.sets:
            self._check_set(part)
        return self

    def _check_set(self, part: MixtureSet) -> None:
        if (self.family is Family.PAIR) != (part.text_pair is not None):
            raise ValueError(
                f"set {part.name!r}: family pair, and only it, needs text_pair (the second "
                "text's key)"
            )
        for own, label in part.label_map.items():
            if label not in self.labels:
                near = did_you_mean(nearest_names(label, self.labels))
                known = ", ".join(self.labels[:20])
                raise ValueError(
                    f"set {part.name!r}: label_map turns {own!r} into {label!r}, which is not one "
                    f"of labels ({known}){near}"
                )

    @property
    def task(self) -> TaskSpec:
        """The task that the mixture's rows make, once they are in one form."""
        return TaskSpec(
            name=self.name,
            family=self.family,
            text_pair="text_pair" if self.family is Family.PAIR else None,
            labels=self.labels,
        )


def _label_text(value: Any) -> Any:
    """Return a label that YAML reads as a number as the text that it has in a file."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class DataSpec(Schema):
    """Raw text, labelled rows, and how they become tokens."""

    root: str = "."
    """Folder or s3:// that the other paths of this section and of the tasks are relative to."""
    corpus: tuple[str, ...] = ()
    """Globs of raw text files (.jsonl, .txt, either with .gz) below root; empty: no pretraining."""
    text_field: str = "text"
    """Key of the text in JSON lines."""
    txt_documents: Literal["lines", "paragraphs"] = "lines"
    """In .txt files a document is one line, or the lines up to an empty one."""
    vocabulary: VocabularySpec = VocabularySpec()
    """The vocabulary that is trained or extended."""
    tokenizer: str | None = None
    """A tokenizer to use as it is, such as that of model.checkpoint: a folder, s3:// or
    hf://org/name[@revision] with tokenizer.json, vocab.txt, or vocab.json and merges.txt. None:
    `vocabulary`."""
    max_tokens: Annotated[int, Field(ge=8, le=65536)] = 512
    """Tokens of a training sample at most, special tokens included."""
    concatenate: bool = False
    """Join documents, each with the end token behind it, and cut them into samples of exactly
    max_tokens, as T5 does (T5 takes 568 and two special tokens: 570). False: samples end with
    sentences and documents."""
    columns: tuple[Column, ...] | None = None
    """What is computed of every token beside word and sentence bits: `gaps` (for gap_sentences),
    `knowledge` (for knowledge_masking). None: what the objective needs."""
    gaps: GapSpec = GapSpec()
    """Of column gaps."""
    knowledge: KnowledgeSpec = KnowledgeSpec()
    """Of column knowledge."""
    ngrams: NgramSpec | None = None
    """Of the lexicon ngram.txt. None: one is made for a ZEN, unless `tokenizer` has its own."""
    min_characters: Annotated[int, Field(ge=1)] = 5
    """Documents with fewer characters are dropped (reason too_short)."""
    segmenter: Literal["rjieba", "jieba"] = "rjieba"
    """Word boundaries for whole-word masking; rjieba is 15x faster and differs in ties only."""
    shard_tokens: PositiveInt = 32_000_000
    """Tokens of a shard file, about; 64 MB as uint16."""
    num_processes: PositiveInt | None = None
    """Worker processes. None takes one a core; the result does not depend on it."""
    train: str | None = None
    """A labelled CSV or jsonl of the user's own, relative to the working directory."""
    test: str | None = None
    """Held-out rows in the same form. None splits them off `train`."""
    task: Annotated[
        Annotated[TaskSpec, Tag("_inline")] | Annotated[str, Tag("_path")],
        Discriminator(_task_form),
    ] = TaskSpec()
    """What the labelled rows are: the fields of a task, or the path of a YAML file with them."""
    mixture: MixtureSpec | None = None
    """Several labelled sets in place of train, test and task. None: there is one, or none."""
    held_out_ratio: Ratio = 0.2
    """Share of `train` held out when `test` is None."""
    held_out_rows: PositiveInt = 300
    """Rows held out at least (the gate wants 300), but never more than 3 of 5 rows."""
    blend: tuple[BlendPart, ...] = ()
    """Further prepared corpora for pretraining; the run's own is part `corpus`."""
    blend_temperature: PositiveFloat = 1.0
    """Above 1, small corpora get more than their share (Conneau et al. 2020 take 1 / 0.3)."""
    corpus_weight: PositiveFloat | None = None
    """Weight of the run's own corpus in a blend, as BlendPart.weight."""
    shuffle_shards: PositiveInt | None = None
    """Shards whose samples are shuffled together, one such window after the other, so that a
    corpus need not lie on the node as a whole. None shuffles everything."""
    cache_bytes: PositiveInt | None = None
    """Bytes of shards that a node keeps of a corpus on S3; two windows must fit. None keeps all."""
    rows: tuple[str, ...] = ()
    """Files of rows (jsonl) below root, for objectives that learn from them: multiple_choice,
    extraction, sft and contrastive. Empty: none."""
    corpus_includes_train: bool = False
    """Add the texts of the labelled training rows (never the held-out ones) to the corpus."""

    @model_validator(mode="after")
    def _rows_come_from_one_place(self) -> Self:
        if self.mixture and (self.train or self.test or self.task != TaskSpec()):
            raise ValueError("mixture stands in place of train, test and task; give one of them")
        return self

    @model_validator(mode="after")
    def _tokens_come_from_one_place(self) -> Self:
        conflict = find_conflict(
            self.vocabulary, tokenizer=self.tokenizer, concatenate=self.concatenate,
            columns=self.columns,
        )  # fmt: skip
        if conflict:
            raise ValueError(conflict)
        return self


class FinetuneSpec(Schema):
    """Fine-tuning before a task is scored."""

    optimizer: OptimizerSpec = OptimizerSpec(learning_rate=2e-5)
    """2e-5 is the common rate for published encoders; small ones from scratch want 5e-4."""
    batch: BatchSpec = BatchSpec(tokens=2048, micro_tokens=4096)
    """Batch sizes in tokens."""
    num_epochs: PositiveInt = 3
    """Passes over the training rows."""
    max_steps: PositiveInt | None = None
    """Steps at most. None: num_epochs alone decides."""
    min_steps: PositiveInt = 1
    """Steps at least: small sets are passed over more often than num_epochs to reach it."""
    max_tokens: Annotated[int, Field(ge=8)] = 128
    """Tokens of a row at most, special tokens included; longer texts are cut and counted."""
    seeds: tuple[int, ...] = (42,)
    """One fine-tuning each; scores are given as mean and spread, the first one is served."""
    lora: LoraSpec | None = None
    """Train low-rank adapters only; they are merged into the exported weights. None trains all."""
    patience: PositiveInt | None = None
    """Measurements without a better loss on the validation rows before training ends early; the
    best weights are exported. None never ends early and holds no rows out."""
    validate_every_steps: PositiveInt = 50
    """Steps between two measurements, with patience."""
    validation_ratio: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    """Share of the training rows held out for them, with patience; never of the scored rows."""

    @model_validator(mode="after")
    def _has_a_seed(self) -> Self:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds must be at least one number, none twice")
        return self


class GateSpec(Schema):
    """What a score must show before the model is served."""

    is_enabled: bool = True
    """False serves whatever the score; the ServingRecord says so."""
    max_p_value: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.001
    """Of the one-sided exact binomial test against the majority baseline."""
    min_rows: PositiveInt = 300
    """Held-out rows that share no text with training rows."""


class EvaluationSpec(Schema):
    """What to score and how."""

    tasks: tuple[str, ...] = ()
    """Registered tasks or suites; `fsb tasks list` shows them. The user's own task comes on top."""
    runners: tuple[Literal["finetune", "ngram"], ...] = ("finetune", "ngram")
    """finetune: this run's model; ngram: character n-gram linear model, the reference row."""
    finetune: FinetuneSpec = FinetuneSpec()
    """Fine-tuning settings, the same for all tasks."""
    overrides: dict[str, FinetuneSpec] = {}
    """Fine-tuning settings of single tasks, in place of the above."""
    gate: GateSpec = GateSpec()
    """The condition for serving."""


class ServingSpec(Schema):
    """Which task to serve, where, and what to ask at the end of the run."""

    is_enabled: bool = True
    """False ends the run with the leaderboard."""
    task: str | None = None
    """A task of this run. None takes the user's own task, else the first one."""
    runner: Literal["finetune", "ngram", "best"] = "finetune"
    """Whose model to serve; best takes the higher score and doubles the gate's p-value for it."""
    host: str = "127.0.0.1"
    """Address to listen on; in a pod 0.0.0.0."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Port to listen on; 0 takes any free one."""
    question: str | None = None
    """Text to ask the served model. None takes the first held-out row."""
    max_batch_rows: PositiveInt = 256
    """Rows of one request at most; more answer 413."""
    max_request_bytes: PositiveInt = 4 * 2**20
    """Bytes of one request body at most; more answer 413."""
    max_concurrent_requests: PositiveInt = 32
    """Requests in work or waiting at most; more answer 503."""
    request_timeout_seconds: PositiveFloat = 30.0
    """A request not answered within this time ends with 504."""
    startup_timeout_seconds: PositiveFloat = 120.0
    """Time for the server to become ready at the end of a run."""
