# SPDX-License-Identifier: Apache-2.0
"""`helm test`: a namespace's pods can write to the storage, read what they wrote, and delete it."""

from __future__ import annotations

import os
import sys
import uuid

from pyfsb import storage
from pyfsb.errors import FsbError


def main() -> int:
    """Write, read and delete one small file."""
    uri = storage.join(os.environ["FSB_ROOT"], f"helm-test/{uuid.uuid4().hex}")
    try:
        storage.write_text(uri, "fengshenbang")
        text = storage.read_text(uri)
        storage.delete(uri)
    except FsbError as exc:
        sys.stdout.write(f"{exc}\n")
        return 1
    is_well = text == "fengshenbang"
    verdict = "well" if is_well else f"read {text!r}, wrote another text"
    sys.stdout.write(f"{uri}: {verdict}\n")
    return 0 if is_well else 1


sys.exit(main())
