"""`python -m tests.bench [NAME …]`: measure, with the peer beside it and the limit under it.

data         tokenising and segmenting, beside `tokenizers` and jieba
kills        the demo, its whole process group killed at three random moments
pretraining  pretrained against random weights, five seeds, paired; needs FSB_DATA
"""

from __future__ import annotations

import argparse

from tests.bench import data, kills, pretraining

BENCHES = {"data": data.main, "kills": kills.main, "pretraining": pretraining.main}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help="all, when none is given")
    names = parser.parse_args().names or list(BENCHES)
    unknown = set(names) - set(BENCHES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; expected {', '.join(BENCHES)}")
    for name in names:
        print(f"\n== {name}", flush=True)
        BENCHES[name]()


if __name__ == "__main__":
    main()
