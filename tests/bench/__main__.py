"""`python -m tests.bench [NAME …]`: measure, with the peer beside it and the limit under it.

whole_job    B0   raw text to a fixed held-out loss, beside `datasets` + `Trainer`; wants FSB_DATA
loader       B5   shuffled samples and exact resume, beside MDS, webdataset and `datasets`
step         B6   a masked-LM step on one CPU thread, beside `Trainer`'s
gpu          B7   the same on an accelerator, and its MFU; says so where there is none
checkpoints  B11  stall of a save, beside torch.save and torch's distributed checkpoints
kill_group   B11  a training group killed 500 times: nothing torn, losses bit-equal
planner      B12  predicted time and memory against published and measured ones
upload       B13  a state to and from S3, beside boto3
meters            what the meters cost a step
data              tokenising and segmenting, beside `tokenizers` and jieba
kills             the demo, its whole process group killed at three random moments
masking      B2   batches of whole words hidden, beside `transformers` and jieba in the collator
columns           the data stage with gap sentences, with word weights, of every tokenizer kind
ngrams            ZEN's n-grams found in training batches, beside a dict of runs
pretraining       pretrained against random weights, five seeds, paired; needs FSB_DATA

With one NAME, further arguments are its own: `python -m tests.bench kill_group --count 20`.
"""

from __future__ import annotations

import argparse
import importlib
import sys

BENCHES = [line.split()[0] for line in (__doc__ or "").split("\n\n")[1].splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help="all, when none is given")
    found, rest = parser.parse_known_args()
    names = found.names[:1] if rest else found.names or BENCHES
    unknown = set(names) - set(BENCHES)
    if unknown or (rest and not names):
        shown = ", ".join(sorted(unknown)) or " ".join(rest)
        parser.error(f"unknown: {shown}; expected {', '.join(BENCHES)}")
    own = [value for value in sys.argv[1:] if value != names[0]] if rest else []
    for name in names:
        print(f"\n== {name}", flush=True)
        sys.argv = [f"python -m tests.bench {name}", *own]
        importlib.import_module(f"tests.bench.{name}").main()


if __name__ == "__main__":
    main()
