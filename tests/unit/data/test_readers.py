from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from pyfsb.data.documents import Document, Rejected
from pyfsb.data.readers import find_files, read_documents, read_lines
from pyfsb.errors import DataError


def _read(path: Path, txt_documents: str = "lines") -> list[Document | Rejected]:
    return list(
        read_documents(path, source=path.name, text_field="text", txt_documents=txt_documents)
    )


def test_lines_end_at_newlines_only(tmp_path: Path) -> None:
    texts = ["甲\u2028乙", "丙\u0085丁\x0b戊", "己\x1c庚\u2029"]
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts), newline="\n"
    )
    assert [item.text for item in _read(path) if isinstance(item, Document)] == texts


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("ends", [True, False])
def test_line_ends_of_either_kind(newline: str, ends: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes((newline.join(["一", "二"]) + (newline if ends else "")).encode())
    assert list(read_lines(path)) == ["一".encode(), "二".encode()]


def test_gzip_is_read_as_plain(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress('{"text": "文"}\n'.encode()))
    assert _read(path) == [Document(text="文", source="a.jsonl.gz", line_number=1)]


def test_broken_lines_are_set_aside_with_number_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = '{"text": "好"}'.encode()
    lines = [
        good,
        b'{"text": "\xff\xfe"}',
        b"{broken",
        b"[1]",
        b'{"txt": "x"}',
        b'{"text": 3}',
        b"",
    ]
    path.write_bytes(b"\n".join([*lines, good]) + b"\n")
    items = _read(path)
    rejected = [(r.line_number, r.reason) for r in items if isinstance(r, Rejected)]
    assert rejected == [
        (2, "not_utf8"), (3, "not_json"), (4, "no_text_field"), (5, "no_text_field"),
        (6, "text_not_a_string"), (7, "blank_line"),
    ]  # fmt: skip
    assert items[0] != items[-1]
    assert isinstance(items[-1], Document)
    assert items[-1].line_number == 8
    assert next(r for r in items if isinstance(r, Rejected)).raw == lines[1]


def test_text_files_by_line_and_by_paragraph(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("一\n二\n\n\n三\n".encode() + b"\xff\n" + "四".encode())
    by_line = [item.text for item in _read(path) if isinstance(item, Document)]
    by_paragraph = [
        (item.text, item.line_number)
        for item in _read(path, "paragraphs")
        if isinstance(item, Document)
    ]
    assert by_line == ["一", "二", "三", "四"]
    assert by_paragraph == [("一\n二", 1), ("三\n四", 5)]
    reasons = [item.reason for item in _read(path) if isinstance(item, Rejected)]
    assert reasons == ["blank_line", "blank_line", "not_utf8"]


def test_a_broken_gzip_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"x" * 10_000)[:-20])
    with pytest.raises(DataError, match=r"a.txt.gz: broken gzip stream"):
        list(read_lines(path))


def test_files_are_found_sorted_and_once(tmp_path: Path) -> None:
    for name in ("b.txt", "a.jsonl", "sub/c.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = find_files(str(tmp_path), ["**/*.jsonl", "*.txt", "a.jsonl"])
    assert found == ["a.jsonl", "b.txt", "sub/c.jsonl"]


def test_a_pattern_without_a_match_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("x")
    with pytest.raises(DataError, match=r"no file matches '\*.jsonl' .*holds corpus.txt"):
        find_files(str(tmp_path), ["*.jsonl"])
    with pytest.raises(DataError, match=r"no file matches 'no/such/\*'"):
        find_files(str(tmp_path), ["no/such/*"])


def test_an_unknown_kind_of_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(DataError, match=r"a.pdf: unknown kind of file; expected one of .jsonl"):
        find_files(str(tmp_path), ["*"])


def test_a_byte_order_mark_is_no_part_of_the_first_document(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + '{"text": "文"}\n{"text": "字"}\n'.encode())
    found = list(read_documents(path, source="a", text_field="text", txt_documents="lines"))
    assert [getattr(item, "text", None) for item in found] == ["文", "字"]


def test_nesting_without_end_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"[" * 200_000 + b"\n")
    (item,) = read_documents(path, source="a", text_field="text", txt_documents="lines")
    assert getattr(item, "reason", None) == "not_json"


def test_the_last_suffix_decides(tmp_path: Path) -> None:
    path = tmp_path / "x.json.txt"
    path.write_text("一行\n", encoding="utf-8")
    (item,) = read_documents(path, source="x", text_field="text", txt_documents="lines")
    assert getattr(item, "text", None) == "一行"
