from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pyfsb.errors import DataError
from pyfsb.models.row_objectives import frame_ids
from pyfsb.objectives.extraction import (
    ExtractionSample,
    GoldSpan,
    characters_of,
    find_best_span,
    find_cell,
    find_spans,
    measure_cell,
)
from pyfsb.objectives.extraction_ubert import UbertExtraction
from pyfsb.objectives.extraction_uniex import UniexExtraction
from pyfsb.objectives.extraction_uniex_decoding import (
    TypedSpan,
    find_relations,
    find_typed_spans,
    split_kinds,
)
from tests.helpers.row_texts import (
    PIECES,
    draw_keys,
    extraction_samples,
    pieces_of,
    relation_samples,
    tiny_tokenize,
    tiny_tokenizer,
)

MARK = PIECES.index("[MASK]")


def ubert(**changes: Any) -> UbertExtraction:
    return UbertExtraction(**{"frame": frame_ids(tiny_tokenizer()), "max_tokens": 64, **changes})


def uniex(**changes: Any) -> UniexExtraction:
    settings = {
        "frame": frame_ids(tiny_tokenizer()), "kind_id": MARK, "predicate_id": MARK,
        "max_positions": 64,
    }  # fmt: skip
    return UniexExtraction(**{**settings, **changes})


def test_cells_follow_characters_not_lengths() -> None:
    text = "李abcd 12白"
    tokens = tiny_tokenize()(text)
    assert pieces_of(tokens.ids_T) == ["李", "abc", "##d", "1", "##2", "白"]
    assert find_cell(tokens.offsets_T2, 1, 5) == (1, 2)
    assert find_cell(tokens.offsets_T2, 6, 8) == (3, 4)
    assert find_cell(tokens.offsets_T2, 7, 9) == (4, 5)
    assert find_cell(tokens.offsets_T2, 5, 6) is None  # the space
    assert characters_of(tokens.offsets_T2, 1, 2) == (1, 5)
    assert find_cell(tokens.offsets_T2[:4], 6, 8) == (3, 3)
    assert find_cell(tokens.offsets_T2[:4], 6, 8, is_cut=True) is None
    # "ab" alone is no piece: the original counts one [UNK] and takes "d" for the third token
    assert measure_cell("李abcd", 1, 5, tiny_tokenize()) == (1, 2)
    assert measure_cell("李abcd白", 4, 6, tiny_tokenize()) == (2, 3)


def test_spans_lie_on_and_above_the_diagonal() -> None:
    scores = np.array([[0.6, 0.9, 0.1], [0.99, 0.2, 0.7], [0.8, 0.8, 0.5]])
    assert find_spans(scores, threshold=0.5) == [(0, 0, 0.6), (0, 1, 0.9), (1, 2, 0.7)]
    assert find_spans(scores, threshold=0.5, max_spans=2) == [(0, 1, 0.9), (1, 2, 0.7)]
    assert find_best_span(scores, threshold=0.5) == (0, 1, 0.9)
    assert find_best_span(scores, threshold=0.95) is None
    assert find_best_span(np.empty((0, 0)), threshold=0.5) is None


def test_ubert_rows() -> None:
    sample = extraction_samples()[0]
    encoded = ubert().encode(sample, tiny_tokenize())
    for row, kind in zip(encoded.rows, sample.kinds, strict=True):
        pieces = pieces_of(row.ids_T)
        head = [
            "[CLS]",
            *["[UNK]"] * 4,
            "[SEP]",
            *["[UNK]", "[UNK]", "[UNK]", "[UNK]"],
            "[SEP]",
            kind,
            "[SEP]",
        ]
        head = [p if p != "[UNK]" else pieces[n] for n, p in enumerate(head)]
        assert pieces == [*head, *sample.text, "[SEP]"]
        assert (row.first, row.num_scored) == (len(head), len(sample.text))
        assert row.text_start == len(head)
    assert [row.cells for row in encoded.rows] == [((0, 1), (8, 9)), ((3, 4), (11, 12)), ()]


@pytest.mark.parametrize("make", [ubert, uniex])
@pytest.mark.parametrize("legacy_cells", [False, True])
def test_the_mark_between_the_texts_of_a_pair_becomes_a_separator(
    make: Any, legacy_cells: bool
) -> None:
    sample = ExtractionSample(
        text="好店[SEP]北京很好[MASK]", kinds=("地", "人"), task="写",
        spans=(GoldSpan(start=7, end=9, kind=0),),
    )  # fmt: skip
    row = make(legacy_cells=legacy_cells).encode(sample, tiny_tokenize())
    ids = (row.rows[0] if make is ubert else row).ids_T
    pieces = pieces_of(ids)
    start = pieces.index("好")
    assert pieces[start : start + 7] == ["好", "店", "[SEP]", "北", "京", "很", "好"]
    assert "[MASK]" not in pieces[start:], "other special tokens of a text are text"
    assert row.offsets_T2[:5].tolist() == [[0, 1], [1, 2], [2, 7], [7, 8], [8, 9]]
    first = (3 if make is ubert else 4) if legacy_cells else 3
    cells = row.rows[0].cells if make is ubert else [cell[:2] for cell in row.cells]
    assert set(cells) == {(first, first + 1)}


def test_a_long_text_is_cut_alike_for_all_kinds() -> None:
    sample = ExtractionSample(
        text="好" * 90 + "李白", kinds=("人", "长安北京"), task="抽取任务", subtask="新闻",
        spans=(GoldSpan(start=90, end=92, kind=0), GoldSpan(start=0, end=2, kind=1)),
    )  # fmt: skip
    encoded = ubert().encode(sample, tiny_tokenize())
    assert encoded.is_truncated
    assert {row.num_scored for row in encoded.rows} == {64 - 3 - (4 + 1 + 2 + 1 + 4)}
    assert max(row.ids_T.size for row in encoded.rows) == 64
    assert [row.cells for row in encoded.rows] == [(), ((0, 1),)]


def test_a_classification_scores_one_token() -> None:
    sample = ExtractionSample(
        text="很好", kinds=("好", "坏"), task="分类任务", subtask="新闻", answers=frozenset({1})
    )
    encoded = ubert().encode(sample, tiny_tokenize())
    assert [(row.first, row.num_scored, row.cells) for row in encoded.rows] == [
        (0, 1, ()), (0, 1, ((0, 0),)),
    ]  # fmt: skip


def test_kinds_with_spans_come_first_others_are_drawn() -> None:
    kinds = tuple("一二三四五六七八九十")
    sample = ExtractionSample(
        text="李白", kinds=kinds, task="抽取任务", subtask="新闻",
        spans=(GoldSpan(start=0, end=2, kind=7),),
    )  # fmt: skip
    ours = ubert(num_kinds=4)
    encoded = ours.encode(sample, tiny_tokenize())
    drawn = []
    for data_pass in range(40):
        batch = ours.collate([encoded], draw_keys(1, data_pass=data_pass)).arrays
        chosen = [PIECES[row[row.tolist().index(3, 6) + 1]] for row in batch["input_ids"]]
        place = chosen.index("八")
        assert batch["gold_rows"].tolist() == [place]
        drawn += [kind for kind in chosen if kind != "八"]
    assert len(drawn) == 120
    assert set(drawn) == set(kinds) - {"八"}
    again = ours.collate([encoded], draw_keys(1, data_pass=3)).arrays["input_ids"]
    assert (
        again.tolist()
        == ours.collate([encoded], draw_keys(1, data_pass=3)).arrays["input_ids"].tolist()
    )
    assert ours.count_tokens(encoded) == 4 * encoded.rows[0].ids_T.size
    assert ubert().count_tokens(encoded) == 10 * encoded.rows[0].ids_T.size


def test_the_original_gives_samples_without_spans_a_false_one() -> None:
    sample = extraction_samples()[2]
    legacy = ubert(legacy_cells=True, num_kinds=2, max_tokens=24)
    batch = legacy.collate([legacy.encode(sample, tiny_tokenize())], draw_keys(1)).arrays
    assert batch["span_labels"].sum() == batch["span_labels"][0, 1, -1, -1] == 1
    assert batch["span_mask"][0, 1, -1, -1] == 10000
    first = legacy.encode(sample, tiny_tokenize()).rows[0].first
    assert (batch["span_mask"][0, 0, first:, first:] == 0).all()
    ours = ubert(num_kinds=2, max_tokens=24)
    batch = ours.collate([ours.encode(sample, tiny_tokenize())], draw_keys(1)).arrays
    assert batch["gold_rows"].size == 0
    assert batch["counts"].tolist() == [4]


def test_uniex_rows() -> None:
    sample = relation_samples()[0]
    row = uniex().encode(sample, tiny_tokenize())
    pieces = pieces_of(row.ids_T)
    assert pieces[0] == "[CLS]"
    assert [pieces[start:end] for start, end in row.blocks] == [
        ["[MASK]", "人"], ["[MASK]", "书"], ["[MASK]", "地"], ["[MASK]", "作", "者"], ["[MASK]", "在"],
    ]  # fmt: skip
    task = pieces.index("[SEP]")
    kinds = task + 1
    assert row.positions_T[: kinds + 6].tolist() == [*range(kinds), *[kinds, kinds + 1] * 3]
    after = kinds + 2
    assert row.positions_T[kinds + 6 : kinds + 12].tolist() == [
        after,
        after + 1,
        after + 2,
        after + 3,
        after + 1,
        after + 2,
    ]
    assert row.positions_T[row.query_end :].tolist() == list(
        range(after + 4, after + 4 + row.num_text + 2)
    )
    assert pieces[row.query_end :] == ["[SEP]", *sample.text, "[SEP]"]
    assert set(row.cells) == {
        (0, 1, 0), (0, 1, 1), (3, 3, 0), (3, 3, 2), (5, 6, 0), (5, 6, 1), (8, 9, 0), (8, 9, 3),
        (0, 3, 4), (1, 3, 4), (5, 8, 5), (6, 9, 5),
    }  # fmt: skip


def test_kinds_see_only_the_predicates_that_join_them() -> None:
    row = uniex().encode(relation_samples()[0], tiny_tokenize())
    visible, blocks = row.visible_TT, [range(*block) for block in row.blocks]
    joined = {(0, 3), (1, 3), (0, 4), (2, 4)}
    for first, block in enumerate(blocks):
        for second, other in enumerate(blocks):
            sees = first == second or tuple(sorted((first, second))) in joined
            part = visible[block.start : block.stop, other.start : other.stop]
            assert part.all() if sees else not part.any(), (first, second)
    assert visible[row.query_end :].all()
    assert not visible[0, 1 : row.blocks[-1][1]].any()
    assert not visible[1 : row.blocks[-1][1], 0].any()
    assert visible[0, 0]
    assert visible[0, row.query_end :].all()


def test_many_kinds_leave_the_text_its_positions() -> None:
    kinds = tuple(a + b for a in "李白杜甫长安" for b in "一二三四五六七八九十")
    row = uniex().encode(
        ExtractionSample(text="好" * 90, kinds=kinds, task="抽取"), tiny_tokenize()
    )
    assert row.labels_L.size == 61
    assert row.positions_T.max() == 63
    assert row.num_text == 64 - 4 - 3 - 1 - 1
    assert row.is_truncated


@pytest.mark.parametrize("make", [ubert, uniex])
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kinds": ()}, "no kinds to look for"),
        ({"kinds": ("人", "")}, r"kind 1 \(''\) is empty"),
        ({"kinds": ("人", "地", "人")}, r"kind 2 \('人'\) stands twice"),
        ({"kinds": ("人", "地" * 60)}, r"kind 1 \('地{20}'\) has \d+ tokens and leaves 0 of 64"),
        ({"schema": (("人", "在", "书"),)}, "relation '在' names '书', which is not one of 人"),
    ],
)
def test_what_does_not_fit_is_named(make: Any, changes: dict[str, Any], text: str) -> None:
    values = {"text": "好" * 30, "kinds": ("人",), "task": "抽取", **changes}
    with pytest.raises(DataError, match=text):
        make().encode(ExtractionSample(**values), tiny_tokenize())


def test_the_original_never_scores_the_last_token() -> None:
    sample = relation_samples()[1]
    ours, legacy = uniex(), uniex(legacy_cells=True)
    for made, first in ((ours, "很"), (legacy, "[SEP]")):
        row = made.encode(sample, tiny_tokenize())
        arrays = made.collate_inputs([row])
        assert PIECES[row.ids_T[arrays["firsts"][0]]] == first
        assert arrays["counts"].tolist() == [2]


def test_the_original_keeps_one_end_of_a_relation_that_the_cut_goes_through() -> None:
    sample = relation_samples()[0]
    whole = uniex(legacy_cells=True).encode(sample, tiny_tokenize())
    cells = {cell for cell in whole.cells if max(cell[:2]) >= 9}
    assert cells == {(9, 10, 0), (9, 10, 3), (6, 9, 5), (7, 10, 5)}
    cut = uniex(legacy_cells=True, max_positions=whole.query_end + 10)
    row = cut.encode(sample, tiny_tokenize())
    assert set(row.cells) == set(whole.cells) - cells | {(6, 9, 5)}
    arrays = cut.collate([row], draw_keys(1)).arrays
    assert arrays["span_labels"][0, row.query_end + 6, row.query_end + 9].tolist() == [0] * 5 + [1]
    ours = uniex().encode(sample, tiny_tokenize())
    room = int(ours.positions_T[ours.query_end]) + 1 + 9 + 1  # nine tokens of the text
    ours = uniex(max_positions=room).encode(sample, tiny_tokenize())
    assert (ours.num_text, ours.is_truncated) == (9, True)
    assert not {cell for cell in ours.cells if cell[2] == 5}


def test_two_step_batches_name_the_right_spans() -> None:
    ours = uniex(two_step=True)
    rows = [ours.encode(sample, tiny_tokenize()) for sample in relation_samples()]
    arrays = ours.collate(rows, draw_keys(2)).arrays
    found = zip(arrays["span_firsts"].tolist(), arrays["span_lasts"].tolist(), strict=True)
    assert set(found) == {(0, 1), (3, 3), (5, 6), (8, 9)}
    assert "span_rows" not in uniex().collate(rows, draw_keys(2)).arrays


def cube(**cells: float) -> np.ndarray:
    scores = np.zeros((10, 10, 6))
    for name, value in cells.items():
        first, last, slot = (int(part) for part in name[1:].split("_"))
        scores[first, last, slot] = value
    return scores


def test_spans_take_their_best_kind() -> None:
    scores = cube(c0_1_1=0.9, c0_1_2=0.6, c3_3_2=0.7, c5_4_1=0.99, c5_6_0=0.9, c5_6_3=0.2)
    found = find_typed_spans(scores, [0, 1, 2], threshold=0.5)
    assert found == [
        TypedSpan(first=0, last=1, kind=0, score=0.9), TypedSpan(first=3, last=3, kind=1, score=0.7),
    ]  # fmt: skip
    assert find_typed_spans(scores, [1], threshold=0.5)[0].kind == 1
    two = find_typed_spans(scores, [0, 1, 2], threshold=0.5, two_step=True)
    assert two == [TypedSpan(first=5, last=6, kind=2, score=0.2)]
    assert find_typed_spans(scores, [], threshold=0.5) == []


def test_relations_join_kinds_of_the_schema() -> None:
    sample = relation_samples()[0]
    assert split_kinds(sample) == ([0], [1, 2], [])
    scores = cube(c0_3_4=0.9, c1_3_4=0.7, c0_8_5=0.3, c1_9_5=0.4, c5_8_5=0.8, c6_9_5=0.1)
    heads = [
        TypedSpan(first=0, last=1, kind=0, score=0.8),
        TypedSpan(first=5, last=6, kind=0, score=0.6),
    ]
    tails = [
        TypedSpan(first=3, last=3, kind=1, score=0.9),
        TypedSpan(first=8, last=9, kind=2, score=0.7),
    ]
    found = find_relations(scores, sample, heads, tails, threshold=0.5)
    assert [(f.subject.first, f.predicate, f.object.first) for f in found] == [(0, "作者", 3)]
    assert found[0].score == pytest.approx(0.8)
    found = find_relations(scores, sample, heads, tails, threshold=0.4)
    assert [(f.subject.first, f.predicate, f.object.first) for f in found] == [
        (0, "作者", 3),
        (5, "在", 8),
    ]
    assert find_relations(scores, sample, heads, tails, threshold=0.4, max_spans=1) == found[:1]
