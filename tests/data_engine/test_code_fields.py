"""Codes as a field of a sample: what goes in comes out, and nothing else does."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.code_fields import CodesField
from mmzoo.errors import InputError

shapes = st.tuples(*[st.integers(1, 5)] * 3)


@given(shapes, st.sampled_from([1, 2, 64, 32768, 32769, 2**20]), st.integers(0, 2**32 - 1))
def test_what_is_packed_is_unpacked(shape, size, seed):
    codes = np.random.default_rng(seed).integers(0, size, shape)
    field = CodesField.of(shape, size)
    found = field.unpack(field.pack(codes))
    assert np.array_equal(found, codes)
    assert found.dtype == (np.int16 if size <= 32768 else np.int32)
    assert CodesField.in_index({"codes": field.as_json()}) == field


def test_the_largest_code_of_each_dtype_survives():
    for size in (32768, 32769):
        field = CodesField.of((1, 1, 1), size)
        assert field.unpack(field.pack(np.full((1, 1, 1), size - 1))).item() == size - 1


def saved(array: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


FIELD = CodesField.of((2, 2, 3), 64)
GOOD = saved(np.zeros((2, 2, 3), np.int16))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "damaged codes"),
        (b"nothing of numpy", "damaged codes"),
        (GOOD[:-1], "damaged codes"),
        (GOOD + b"x", "bytes behind the array"),
        (saved(np.zeros((2, 2, 4), np.int16)), r"shape \(2, 2, 4\) where \(2, 2, 3\) is due"),
        (saved(np.zeros((2, 2, 3), np.int32)), "int32 where the index says int16"),
        (saved(np.full((2, 2, 3), 64, np.int16)), "codes 0..64 of a codebook of 64"),
        (saved(np.full((2, 2, 3), -1, np.int16)), r"codes -1\.\.0 of a codebook of 64"),
        (saved(np.full((2, 2, 3), None), allow_pickle=True), "damaged codes"),
    ],
)
def test_anything_else_is_refused(data, words):
    assert FIELD.unpack(GOOD).shape == (2, 2, 3)
    with pytest.raises(InputError, match=words) as caught:
        FIELD.unpack(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("codes", "words"), [(np.zeros((1, 2, 3)), "shape"), (np.full((2, 2, 3), 64), "codes 0..64")])
def test_wrong_codes_are_not_written(codes, words):
    with pytest.raises(ValueError, match=words):
        FIELD.pack(codes)


@pytest.mark.parametrize("content", [{}, {"codes": {}}, {"codes": {"dtype": "int16", "shape": 3, "codebook_size": 2}}])
def test_an_index_that_does_not_describe_its_codes_is_refused(content):
    with pytest.raises(InputError, match="does not describe its codes"):
        CodesField.in_index(content)
