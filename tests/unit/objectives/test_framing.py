from __future__ import annotations

import numpy as np

from pyfsb.objectives.framing import count_kept, frame, join_parts, repeat_part, shift_right

IDS, LENGTHS = np.array([7, 8, 9]), np.array([1, 0, 2])


def test_frames() -> None:
    both = frame(IDS, LENGTHS, before=1, after=2)
    assert [values.tolist() for values in both] == [[1, 7, 2, 1, 2, 1, 8, 9, 2], [3, 2, 4]]
    end = frame(IDS, LENGTHS, before=None, after=2)
    assert [values.tolist() for values in end] == [[7, 2, 2, 8, 9, 2], [2, 1, 3]]
    begin = frame(IDS, LENGTHS, before=1, after=None)
    assert [values.tolist() for values in begin] == [[1, 7, 1, 1, 8, 9], [2, 1, 3]]


def test_a_decoder_reads_the_start_and_all_but_the_last() -> None:
    assert shift_right(np.array([5, 6, 2, 7, 2]), np.array([3, 2]), start=0).tolist() == [
        0,
        5,
        6,
        0,
        7,
    ]


def test_parts_are_joined_document_by_document() -> None:
    ids, lengths = join_parts(
        [repeat_part([1, 2], 3), (IDS, LENGTHS), repeat_part([], 3), repeat_part([3], 3)]
    )
    assert ids.tolist() == [1, 2, 7, 3, 1, 2, 3, 1, 2, 8, 9, 3]
    assert lengths.tolist() == [4, 3, 5]


def test_count_kept() -> None:
    assert count_kept(np.array([True, False, True]), LENGTHS).tolist() == [1, 0, 1]
