# SPDX-License-Identifier: Apache-2.0
"""Make the sample data: `python docs/examples/make_samples.py [FOLDER]`.

Words, forms and passages in `samples/` are written for this project; this script only puts them
together, always in the same way. The result has the layout of the real benchmark files, so the
same run spec works on both. Rows carry the name of what they were made from: the benchmark files
their form (`template`), of which training and held-out files share none; the files of one's own
their set (`template_name`), of which no two share a form, a message body, a marked word or an
opinion.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from pyfsb.seeding import hash64

HERE = Path(__file__).parent
T = TypeVar("T")
Row = dict[str, Any]
TEMPLATE = "template_name"
NUM_SETS = 10
NUM_CORPUS_BODIES = 12
"""Message bodies of each label that the corpus quotes."""


def pick(items: Sequence[T], *key: int) -> T:
    """Return one item, chosen by the key alone."""
    return items[int(hash64(*key)) % len(items)]


def load(name: str) -> Any:
    """Return a file of `samples/`."""
    return yaml.safe_load((HERE / "samples" / name).read_text(encoding="utf-8"))


def headlines(topics: Row, forms: Sequence[str], split: str, per_label: int) -> list[Row]:
    """Return headlines of every topic; held-out rows also use words that training never saw."""
    rows: list[Row] = []
    seen: set[str] = set()
    for label, topic in topics.items():
        is_train = split == "train"
        things = topic["things"][:13] if is_train else topic["things"]
        events = topic["events"][:8] if is_train else topic["events"]
        number = count = 0
        while count < per_label:
            key = (int(label), len(split), number)
            form = int(hash64(*key, 0)) % len(forms)
            text = forms[form].format(t=pick(things, *key, 1), e=pick(events, *key, 2))
            number += 1
            if text not in seen:
                seen.add(text)
                count += 1
                rows.append({"label": label, "sentence": text, "template": f"{split}-{form}"})
    return shuffled(rows)


def reviews(words: Row, split: str, num_rows: int) -> list[Row]:
    """Return product reviews, half of each sentiment."""
    forms, rows, seen = words["reviews"][split], [], set()
    number = 0
    while len(rows) < num_rows:
        label = ("Positive", "Negative")[len(rows) % 2]
        key = (number, len(split), 5)
        opinions = words["opinions"][label]
        form = int(hash64(*key, 0)) % len(forms)
        first, second = pick(opinions, *key, 1), pick(opinions, *key, 2)
        product = pick(words["products"], *key, 3)
        text = forms[form].format(p=product, o=first, q=second)
        number += 1
        if text not in seen and first != second:
            seen.add(text)
            rows.append({"sentence": text, "label": label, "template": f"{split}-{form}"})
    return [{"id": place, **row} for place, row in enumerate(rows)]


def dealt(items: Sequence[T], number: int) -> Sequence[T]:
    """Return what one of the sets gets; no other set gets any of it."""
    return items[number::NUM_SETS]


def messages(words: Row) -> list[Row]:
    """Return messages to a shop with what they are about: a data set of one's own."""
    rows = []
    for number in range(NUM_SETS):
        for place, form in enumerate(dealt(words["messages"]["forms"], number)):
            for label, bodies in words["messages"]["labels"].items():
                for count, body in enumerate(dealt(bodies, number)):
                    text = form.format(m=body, n=order_number(number, place, count, len(rows)))
                    rows.append({"text": text, "label": label, TEMPLATE: f"set-{number}"})
    return shuffled(rows)


def pairs(words: Row, per_set: int) -> list[Row]:
    """Return pairs of messages with whether they ask the same; every other one does."""
    rows = []
    for number in range(NUM_SETS):
        forms = dealt(words["messages"]["forms"], number)
        topics = [dealt(bodies, number) for bodies in words["messages"]["labels"].values()]
        seen: set[tuple[str, str]] = set()
        count = 0
        while len(seen) < per_set:
            key, is_same = (number, count, 13), len(seen) % 2 == 0
            first, second = (pick(pick(topics, *key, 0), *key, place) for place in (1, 2))
            second = first if is_same else second
            texts = (
                pick(forms, *key, 3).format(m=first, n=order_number(*key, 4)),
                pick(forms, *key, 5).format(m=second, n=order_number(*key, 6)),
            )
            count += 1
            if texts not in seen and texts[0] != texts[1] and is_same == (first == second):
                seen.add(texts)
                answer = "是" if is_same else "否"
                row = {"question1": texts[0], "question2": texts[1], "same": answer}
                rows.append({**row, TEMPLATE: f"set-{number}"})
    return shuffled(rows)


def ratings(words: Row) -> list[Row]:
    """Return what guests say about a hotel, with their stars: names and labels of its own."""
    parts, rows = words["ratings"], []
    for number in range(NUM_SETS):
        forms, things = dealt(parts["forms"], number), dealt(parts["things"], number)
        for stars, opinions in parts["opinions"].items():
            for opinion in dealt(opinions, number):
                rows += [
                    {"comment": form.format(t=thing, o=opinion), "stars": stars,
                     TEMPLATE: f"set-{number}"}
                    for form in forms for thing in things
                ]  # fmt: skip
    return shuffled(rows)


def entities(words: Row, per_set: int) -> list[Row]:
    """Return reviews with products and opinions marked, some without either."""
    marked, rows = words["marked"], []
    for number in range(NUM_SETS):
        forms, nouns, verdicts, plain = (
            dealt(marked[name], number) for name in ("forms", "nouns", "verdicts", "plain")
        )
        texts: dict[str, list[Row]] = {text: [] for text in plain}
        count = 0
        while len(texts) < per_set:
            key = (number, count, 17)
            product = pick(marked["kinds"], *key, 1) + pick(nouns, *key, 2)
            first, second = (
                pick(marked["aspects"], *key, place) + pick(verdicts, *key, place, 0)
                for place in (3, 4)
            )
            text = pick(forms, *key, 5).format(p=product, o=first, q=second)
            count += 1
            if first == second:
                continue
            spans = [(product, "product"), (first, "opinion"), (second, "opinion")]
            found = [
                {"start": text.index(span), "end": text.index(span) + len(span), "type": kind}
                for span, kind in spans
                if span in text
            ]
            texts[text] = sorted(found, key=lambda item: item["start"])
        rows += [
            {"text": text, "entities": found, TEMPLATE: f"set-{number}"}
            for text, found in texts.items()
        ]
    return shuffled(rows)


def order_number(*key: int) -> int:
    """Return four digits."""
    return 1000 + int(hash64(*key)) % 9000


def documents(topics: Row, words: Row, passages: Sequence[Row], per_topic: int) -> Iterator[Row]:
    """Yield the corpus: passages, then texts about every topic, then chat with a shop."""
    for passage in passages:
        yield {"title": passage["title"], "text": passage["text"]}
    for label, topic in topics.items():
        for number in range(per_topic):
            sentences = []
            for place in range(2 + number % 3):
                key = (int(label), number, place, 19)
                sentence = pick(topic["sentences"], *key, 0)
                thing, event = pick(topic["things"], *key, 1), pick(topic["events"], *key, 2)
                sentences.append(sentence.format(t=thing, e=event))
            yield {"title": "", "text": "".join(dict.fromkeys(sentences))}
    labels = words["messages"]["labels"].values()
    bodies = [body for items in labels for body in items[:NUM_CORPUS_BODIES]]
    opinions = [opinion for items in words["opinions"].values() for opinion in items]
    for number in range(300):
        product, opinion = pick(words["products"], number, 23), pick(opinions, number, 29)
        yield {"title": "", "text": f"顾客问：{pick(bodies, number, 31)}？又说{product}{opinion}。"}


def shuffled(rows: list[Row]) -> list[Row]:
    """Return rows in an order that depends on their number alone."""
    return [
        rows[place] for place in sorted(range(len(rows)), key=lambda place: int(hash64(place, 37)))
    ]


def to_lines(rows: Sequence[Row]) -> str:
    """Return rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def to_csv(rows: Sequence[Row]) -> str:
    """Return rows as CSV with a header."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def make_files() -> dict[str, str]:
    """Return the text of every sample file by its path."""
    topics, words, passages = load("topics.yaml"), load("templates.yaml"), load("passages.yaml")
    forms = words["headlines"]
    held_out = headlines(topics, forms["held_out"], "held_out", 30)
    public = [
        {**row, "label": int(row["label"]), "id": place} for place, row in enumerate(held_out)
    ]
    unlabelled = [
        {"id": str(place), "sentence": row["sentence"]} for place, row in enumerate(held_out[:100])
    ]
    corpus = [
        {"id": f"sample-{place}", "source": "sample", "script": "hans", **document}
        for place, document in enumerate(documents(topics, words, passages, 110))
    ]
    dev = reviews(words, "held_out", 400)
    return {
        "rawcorpus/sample.jsonl.gz": to_lines(corpus),
        "clue/tnews_resplit/labelled_8000.json": to_lines(
            headlines(topics, forms["train"], "train", 100)
        ),
        "fewclue/tnews/test_public.json": to_lines(public),
        "fewclue/tnews/test.json": to_lines(unlabelled),
        "fewclue/eprstmt/train_few_all.json": to_lines(reviews(words, "train", 600)),
        "fewclue/eprstmt/dev_few_all.json": to_lines(dev),
        "fewclue/eprstmt/test.json": to_lines(
            [{"id": row["id"], "sentence": row["sentence"]} for row in dev[:100]]
        ),
        "own/messages.csv": to_csv(messages(words)),
        "own/ratings.csv": to_csv(ratings(words)),
        "own/questions.csv": to_csv(pairs(words, 60)),
        "own/reviews.jsonl": to_lines(entities(words, 60)),
    }


def main(folder: Path) -> None:
    """Write every file below a folder."""
    for name, text in make_files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = text.encode()
        path.write_bytes(gzip.compress(data, 9, mtime=0) if path.suffix == ".gz" else data)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "data")
