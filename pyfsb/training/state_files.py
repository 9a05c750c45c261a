# SPDX-License-Identifier: Apache-2.0
"""The layout of a saved state: names, and safetensors headers written and read by hand.

    state/step-00000100/rank-00000.safetensors  one process's fragments: KIND/PARAMETER, flat fp32
                        index.json              which file holds which elements of a parameter
                        state.json              position and the digest of every file; written last

Called by the writer process, so it is light: standard library only. Never opens a file.

Source: safetensors format (8-byte little-endian header length, JSON header, data).
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pyfsb.errors import CheckpointError

FOLDER: Final = "state"
STATE_NAME: Final = "state.json"
INDEX_NAME: Final = "index.json"
FORMAT_VERSION: Final = 2
ALIGNMENT: Final = 64
"""Data begin at a multiple of this many bytes, so that a mapped file holds aligned arrays."""
ITEM_BYTES: Final = 4
_STEP_NAME: Final = re.compile(r"step-(\d{8,})")


def step_name(step: int) -> str:
    """Return the name of the folder of a step's state."""
    return f"step-{step:08d}"


def step_of(name: str) -> int | None:
    """Return the step that a folder's name tells; None when it is no state's."""
    match = _STEP_NAME.fullmatch(name)
    return int(match[1]) if match else None


def rank_name(rank: int) -> str:
    """Return the name of a process's file."""
    return f"rank-{rank:05d}.safetensors"


def entry_name(rank: int, save: str) -> str:
    """Return the name of the note in which a process says that its file is there.

    Args:
        rank: Number of the process.
        save: Names one attempt to save: notes of an earlier one are not taken for this one's.
    """
    return f"rank-{rank:05d}.{save}.json"


def build_header(tensors: Iterable[tuple[str, int]]) -> tuple[bytes, dict[str, int]]:
    """Return a safetensors header and where each tensor begins in the file.

    Args:
        tensors: Names and numbers of elements of flat fp32 tensors, in the order of the file.
    """
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, numel in tensors:
        end = offset + numel * ITEM_BYTES
        entries[name] = {"dtype": "F32", "shape": [numel], "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(len(text) + 8) % ALIGNMENT)
    begin = len(text) + 8
    offsets = {
        name: begin + entry["data_offsets"][0]
        for name, entry in entries.items()
        if name != "__metadata__"
    }
    return struct.pack("<Q", len(text)) + text, offsets


def read_header(data: memoryview, name: str) -> dict[str, tuple[int, int]]:
    """Return for each tensor where it begins in the file and how many elements it has.

    Args:
        data: The file.
        name: Its name, for errors.

    Raises:
        CheckpointError: It is no safetensors file of fp32 tensors.
    """
    try:
        (length,) = struct.unpack("<Q", data[:8])
        if 8 + length > len(data):
            raise ValueError(f"its header of {length} bytes is longer than the file")
        entries: Mapping[str, Any] = json.loads(bytes(data[8 : 8 + length]))
        found = {}
        for key, entry in entries.items():
            if key == "__metadata__":
                continue
            start, end = entry["data_offsets"]
            if entry["dtype"] != "F32" or not 0 <= start <= end <= len(data) - 8 - length:
                raise ValueError(f"{key} has dtype {entry['dtype']} at {start} to {end}")
            found[key] = (8 + length + start, (end - start) // ITEM_BYTES)
    except (ValueError, KeyError, TypeError, struct.error) as exc:
        raise CheckpointError(f"{name} is no safetensors file of a saved state: {exc}") from None
    return found


def merge_index(entries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the content of index.json from the notes of all processes."""
    index: dict[str, Any] = {}
    for entry in entries:
        for name, (shape, start, numel) in entry["parameters"].items():
            parameter = index.setdefault(name, {"shape": shape, "dtype": "F32", "fragments": []})
            parameter["fragments"].append({"file": entry["path"], "start": start, "numel": numel})
    for parameter in index.values():
        parameter["fragments"].sort(key=lambda fragment: fragment["start"])
    return index
