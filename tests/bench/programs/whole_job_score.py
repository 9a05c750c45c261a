"""The held-out loss of `whole_job`: one program for the weights of all sides.

Runs in the peer's environment: `python - SETTINGS_JSON`; prints one JSON line with, for every
folder of weights, nats per hidden token twice: hidden one by one, and hidden as whole words.
Documents are cut as the trainings cut them; what is hidden depends on the seed alone.
"""

from __future__ import annotations

import json
import random
import sys

import jieba
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer


def hide(texts, tokenizer, length, seed):
    """Return ids and, for tokens and for words, the positions to hide, of every text."""
    rows = []
    for number, text in enumerate(texts):
        encoded = tokenizer(text, truncation=True, max_length=length, return_offsets_mapping=True)
        spans = encoded["offset_mapping"]
        inner = [place for place, (start, end) in enumerate(spans) if end > start]
        if len(inner) < 8:
            continue
        draw = random.Random(seed * 1_000_003 + number)
        count = max(1, round(0.15 * len(inner)))
        single = draw.sample(inner, count)
        word_of, start = {}, 0
        for word_number, word in enumerate(jieba.cut(text)):
            word_of.update(dict.fromkeys(range(start, start + len(word)), word_number))
            start += len(word)
        words = {}
        for place in inner:
            words.setdefault(word_of[spans[place][0]], []).append(place)
        whole = []
        for key in draw.sample(sorted(words), len(words)):
            if len(whole) >= count:
                break
            whole += words[key]
        rows.append((encoded["input_ids"], single, whole))
    return rows


@torch.no_grad()
def measure(model, rows, tokenizer, which):
    """Return the mean loss at hidden positions."""
    total, count = 0.0, 0
    ordered = sorted(rows, key=lambda row: len(row[0]))
    for first in range(0, len(ordered), 32):
        part = ordered[first : first + 32]
        width = max(len(row[0]) for row in part)
        ids = torch.full((len(part), width), tokenizer.pad_token_id)
        labels = torch.full((len(part), width), -100)
        for number, row in enumerate(part):
            ids[number, : len(row[0])] = torch.tensor(row[0])
            places = torch.tensor(row[which])
            labels[number, places] = ids[number, places]
            ids[number, places] = tokenizer.mask_token_id
        mask = (torch.arange(width) < torch.tensor([len(row[0]) for row in part])[:, None]).long()
        logits = model(input_ids=ids, attention_mask=mask).logits[labels >= 0]
        total += float(
            torch.nn.functional.cross_entropy(logits, labels[labels >= 0], reduction="sum")
        )
        count += len(logits)
    return total / count


def main() -> None:
    settings = json.loads(sys.argv[1])
    tokenizer = AutoTokenizer.from_pretrained(settings["tokenizer"])
    with open(settings["held_out"], encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    rows = hide(texts, tokenizer, settings["max_tokens"], seed=7)
    found = []
    for folder in settings["folders"]:
        model = AutoModelForMaskedLM.from_pretrained(folder).eval()
        losses = [measure(model, rows, tokenizer, which) for which in (1, 2)]
        found.append(losses)
        target = settings.get("target")
        if target is not None and losses[0] <= target[0] and losses[1] <= target[1]:
            break
    print(json.dumps({"losses": found, "num_documents": len(rows)}))


if __name__ == "__main__":
    main()
