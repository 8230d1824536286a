from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.splits import (
    check_leaks,
    group_of,
    group_pattern,
    groups_of,
    read_split_file,
    split_by_file,
    split_by_hash,
)
from mmzoo.errors import InputError

GROUPS = [f"g{number}" for number in range(2000)]


def test_fraction_and_stability():
    splits = split_by_hash(GROUPS, 0.1)
    assert 0.07 < splits.count("val") / len(splits) < 0.13
    assert split_by_hash(GROUPS[::-1], 0.1) == splits[::-1]
    assert split_by_hash([*GROUPS, "new"], 0.1)[:-1] == splits


@given(st.integers(2, 8), st.floats(0.001, 0.999))
def test_both_splits_are_filled_however_small_the_set(count, fraction):
    assert set(split_by_hash(GROUPS[:count], fraction)) == {"train", "val"}


def test_all_or_nothing_fractions():
    assert set(split_by_hash(GROUPS[:5], 0)) == {"train"}
    assert set(split_by_hash(GROUPS[:5], 1)) == {"val"}


def test_one_group_cannot_be_split():
    with pytest.raises(InputError, match="one group"):
        split_by_hash(["a", "a"], 0.5)


def test_groups():
    pattern = group_pattern("(motorcycle)_(?:left|right)")
    assert group_of("x/motorcycle_left.png", pattern) == group_of("motorcycle_right.png", pattern) == "motorcycle"
    assert group_of("x/cat.png", pattern) == group_of("x/cat.jpg", None) == "x/cat"


def test_a_pattern_that_groups_nothing_is_refused():
    assert groups_of(["x/cat_1.png", "dog.png"], group_pattern(r"(cat)_\d")) == ["cat", "dog"]
    assert groups_of(["scene.v1", "scene.v2"], None, has_suffix=False) == ["scene.v1", "scene.v2"]
    with pytest.raises(
        InputError, match=r"'\(cow\)' matches none of 2 names, for example not 'x/cat_1.png' and 'dog.png'"
    ):
        groups_of(["x/cat_1.png", "dog.png"], group_pattern("(cow)"))


@pytest.mark.parametrize("text", ["(", "abc"])
def test_bad_group_patterns(text):
    with pytest.raises(InputError, match="--group"):
        group_pattern(text)


def test_split_file(tmp_path):
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"a.png": "train", "b.png": "val", "broken.png": "val"}))
    listed = read_split_file(file)
    assert split_by_file(["b.png", "a.png"], listed, ["a.png", "b.png", "broken.png"]) == ["val", "train"]
    with pytest.raises(InputError, match=r"leaves out 1 images.*'c.png'"):
        split_by_file(["a.png", "b.png", "c.png"], listed, ["a.png", "b.png", "c.png", "broken.png"])
    with pytest.raises(InputError, match=r"lists 'broken.png'"):
        split_by_file(["a.png", "b.png"], listed, ["a.png", "b.png"])
    with pytest.raises(InputError, match="no sound image is left in split 'val'"):
        split_by_file(["a.png"], listed, ["a.png", "b.png", "broken.png"])


@pytest.mark.parametrize("text", ["{", "[]", '{"a": "test"}', '{"a": ["val"]}'])
def test_bad_split_files(tmp_path, text):
    file = tmp_path / "split.json"
    file.write_text(text)
    with pytest.raises(InputError, match=r"split\.json"):
        read_split_file(file)
    with pytest.raises(InputError, match=r"absent\.json"):
        read_split_file(tmp_path / "absent.json")


def test_leaks_name_both_files():
    paths = ["a.png", "b.png", "c.png"]
    assert check_leaks(paths, ["1", "2", "3"], ["x", "y", "x"], ["val", "train", "val"]) == [("a.png", "c.png")]
    with pytest.raises(InputError, match=r"'a.png' \(val\) and 'c.png' \(train\) have the same content"):
        check_leaks(paths, ["1", "2", "3"], ["x", "y", "x"], ["val", "val", "train"])
    with pytest.raises(InputError, match=r"'b.png' \(train\) and 'c.png' \(val\) have the same group"):
        check_leaks(paths, ["1", "2", "2"], ["x", "y", "z"], ["val", "train", "val"])
