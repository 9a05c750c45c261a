"""Names and headers, read by the library whose format it is."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pyfsb.errors import CheckpointError
from pyfsb.training.state_files import (
    ALIGNMENT,
    build_header,
    merge_index,
    read_header,
    step_name,
    step_of,
)


def test_our_header_is_read_by_safetensors(tmp_path: Path) -> None:
    header, offsets = build_header([("weight/a.b", 3), ("exp_avg/文", 2)])
    assert len(header) % ALIGNMENT == 0
    path = tmp_path / "x.safetensors"
    path.write_bytes(header + np.arange(5, dtype=np.float32).tobytes())
    found = load_file(path)
    assert found["weight/a.b"].tolist() == [0, 1, 2]
    assert found["exp_avg/文"].tolist() == [3, 4]
    with memoryview(path.read_bytes()) as data:
        places = read_header(data, "x")
    assert places == {
        name: (offsets[name], numel) for name, numel in (("weight/a.b", 3), ("exp_avg/文", 2))
    }


@pytest.mark.parametrize(
    "data",
    [
        b"",
        struct.pack("<Q", 100) + b"{}",
        struct.pack("<Q", 3) + b"{x}",
        struct.pack("<Q", 60)
        + json.dumps({"a": {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}}).encode(),
        struct.pack("<Q", 60)
        + json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode(),
    ],
)
def test_what_is_no_state_file_is_named(data: bytes) -> None:
    with pytest.raises(CheckpointError, match="the-file is no safetensors file"):
        read_header(memoryview(data), "the-file")


def test_names_tell_steps() -> None:
    assert step_of(step_name(7)) == 7
    assert step_of(step_name(123_456_789)) == 123_456_789
    assert [step_of(name) for name in (".partial-step-00000001.x", "step-1", "other")] == [None] * 3


def test_the_index_is_sorted_by_start() -> None:
    index = merge_index(
        [
            {"path": "rank-1", "parameters": {"w": [[4], 2, 2]}},
            {"path": "rank-0", "parameters": {"w": [[4], 0, 2], "v": [[], 0, 1]}},
        ]
    )
    assert [fragment["file"] for fragment in index["w"]["fragments"]] == ["rank-0", "rank-1"]
    assert index["v"] == {
        "shape": [], "dtype": "F32", "fragments": [{"file": "rank-0", "start": 0, "numel": 1}],
    }  # fmt: skip
