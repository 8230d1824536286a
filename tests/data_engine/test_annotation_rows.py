"""Annotation files are read piece by piece, and every fault has its line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.sources import annotation_rows as reading
from data_engine.sources.annotation_rows import Row, annotation_rows, inside
from mmzoo.errors import InputError

VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(st.text(max_size=4), VALUE, max_size=4), max_size=6)


@given(rows=ROWS, piece=st.integers(1, 40), indent=st.sampled_from([None, 1]), escape=st.booleans())
def test_a_list_read_in_pieces_is_the_list(tmp_path_factory, rows, piece, indent, escape):
    file = tmp_path_factory.mktemp("list") / "a.json"
    text = json.dumps(rows, indent=indent, ensure_ascii=escape)
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "PIECE", piece)
        found = list(annotation_rows(file))
    assert [row.values for row in found] == rows
    assert [row.number for row in found] == list(range(1, len(rows) + 1))


def test_rows_of_a_list_know_their_lines(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('[\n{"a": 1},\n\n{"a":\n 2}, {"a": 3}]\n')
    assert [row.place for row in annotation_rows(file)] == [f"{file}:2, row 1", f"{file}:4, row 2", f"{file}:5, row 3"]


def test_lines_may_be_empty_and_begin_with_a_mark(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": 2}')
    assert [(row.place, row.number) for row in annotation_rows(file)] == [(f"{file}:1", 1), (f"{file}:3", 2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1}\n{"a": \n', ":2: not JSON"),
        (b'{"a": 1}\n[2]\n', r":2: \[2\] where an object is due"),
        (b'[{"a": 1},\n {"a": 2}', ":2: the end of the file where ']' is due|':2: the end|is due. Is the file cut"),
        (b'[{"a": 1}\n {"a": 2}]', ":2: '{' where ',' is due"),
        (b'[{"a": 1},\n 3]', ":2, row 2: 3 where an object is due"),
        (b'[{"a": 1},\n nope]', ":2: not JSON"),
        (b"[]\n[]", ":2: text behind the end"),
        (b'{"a": "\xff"}', "is not UTF-8"),
        (b'{\n "images": []\n}', ":1: not JSON .* One object a line"),
    ],
)
def test_damage_is_named_with_its_line(tmp_path, text, message):
    file = tmp_path / "a.json"
    file.write_bytes(text)
    with pytest.raises(InputError, match=message):
        list(annotation_rows(file))


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*gone\.json"):
        list(annotation_rows(tmp_path / "gone.json"))


def test_values_are_checked_by_their_types():
    row = Row("a.json:3", 1, {"image": 4, "box": [1, "2"], "ok": True})
    with pytest.raises(InputError, match=r"a.json:3: no 'imag'. Did you mean 'image'"):
        row.require("imag")
    with pytest.raises(InputError, match="'image' is 4, str is due"):
        row.require("image")
    with pytest.raises(InputError, match="'ok' is True, int is due"):
        row.require("ok", int)
    with pytest.raises(InputError, match="2 numbers are due"):
        row.numbers("box", 2)


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/passwd", "b/../../a.jpg", "", ".", "a\0.jpg"])
def test_file_names_stay_in_their_folder(tmp_path, name):
    with pytest.raises(InputError, match=r"a.json:1: file name .* leaves"):
        inside(tmp_path, name, "a.json:1")


def test_a_name_that_no_file_can_have_is_named(tmp_path):
    with pytest.raises(InputError, match=r"a\.json:1: .* cannot be the name of a file"):
        inside(tmp_path, "\ud800.jpg", "a.json:1")


def test_whole_numbers_beyond_any_float_are_no_coordinates():
    row = Row("a.json:1", 1, {"box": [0, 10**400]})
    with pytest.raises(InputError, match="2 numbers are due"):
        row.numbers("box", 2)
