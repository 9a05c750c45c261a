"""Peer of `whole_job`: datasets + tokenizers + Trainer, as transformers' run_mlm example does it.

Runs in the peer's environment: `python - SETTINGS_JSON`; prints one JSON line. It saves a
checkpoint every few steps and stops after a number of seconds; what it has learned by then is
measured by `whole_job_score`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import chain

import torch
from datasets import load_dataset
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)


class Stopwatch(TrainerCallback):
    """Notes the clock and the CPU at every saved checkpoint, and ends the training in time."""

    def __init__(self, started: float, limit_cpu_seconds: float) -> None:
        self.started = started
        self.limit_cpu_seconds = limit_cpu_seconds
        self.saved: list[tuple[int, float, float]] = []

    def on_save(self, args, state, control, **_):
        self.saved.append((state.global_step, time.time() - self.started, cpu_seconds()))

    def on_step_end(self, args, state, control, **_):
        if cpu_seconds() > self.limit_cpu_seconds:
            control.should_save = True
            control.should_training_stop = True
        return control


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its workers that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def prepare(settings, tokenizer):
    """Tokenise the corpus: a document a row, cut; or everything in rows of equal length."""
    length, workers = settings["max_tokens"], settings["num_workers"]
    raw = load_dataset(
        "json", data_files=settings["files"], split="train", cache_dir=settings["cache"]
    )

    if settings["variant"] == "line_by_line":

        def tokenize_rows(examples):
            texts = [text for text in examples["text"] if text and not text.isspace()]
            return tokenizer(
                texts, truncation=True, max_length=length, return_special_tokens_mask=True,
                padding="max_length" if settings["pads_to_max"] else False,
            )  # fmt: skip

        return raw.map(
            tokenize_rows, batched=True, num_proc=workers, remove_columns=raw.column_names
        )

    def tokenize(examples):
        return tokenizer(examples["text"], return_special_tokens_mask=True)

    def group(examples):
        joined = {key: list(chain(*examples[key])) for key in examples}
        total = len(joined["input_ids"]) // length * length
        return {
            key: [value[start : start + length] for start in range(0, total, length)]
            for key, value in joined.items()
        }

    tokenized = raw.map(tokenize, batched=True, num_proc=workers, remove_columns=raw.column_names)
    return tokenized.map(group, batched=True, num_proc=workers)


def main() -> None:
    settings = json.loads(sys.argv[1])
    set_seed(settings["seed"])
    tokenizer = AutoTokenizer.from_pretrained(settings["tokenizer"])
    dataset = prepare(settings, tokenizer)
    config = AutoConfig.for_model(**settings["config"], vocab_size=len(tokenizer), pad_token_id=0)
    model = AutoModelForMaskedLM.from_config(config)
    stopwatch = Stopwatch(settings["started"], settings["limit_cpu_seconds"])
    prepared = time.time() - settings["started"]
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=settings["output"],
            per_device_train_batch_size=settings["batch_rows"],
            num_train_epochs=100,
            learning_rate=settings["learning_rate"],
            weight_decay=settings["weight_decay"],
            warmup_steps=settings["warmup_steps"],
            lr_scheduler_type="constant_with_warmup",
            max_grad_norm=1.0,
            save_steps=settings["save_every_steps"],
            save_only_model=True,
            logging_steps=50,
            report_to=[],
            seed=settings["seed"],
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=dataset,
        data_collator=DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=0.15),
        callbacks=[stopwatch],
    )
    trainer.train()
    print(
        json.dumps(
            {
                "saved": stopwatch.saved, "prepared_seconds": prepared, "num_rows": len(dataset),
                "num_steps": trainer.state.global_step, "threads": torch.get_num_threads(),
                "num_parameters": model.num_parameters(),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
