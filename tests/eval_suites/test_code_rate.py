"""Bits of codes: closed forms, and an ideal coder never needs more than the stored width."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from eval_suites.metrics.code_rate import code_entropy, stored_bits


def test_the_published_tokenizer_stores_an_image_in_480_bytes_a_level():
    assert stored_bits((16, 16), 1, 32768) == 256 * 15
    assert stored_bits((16, 16), 4, 32768) == 4 * 256 * 15
    assert stored_bits((2, 3), 2, 10) == pytest.approx(12 * np.log2(10))


def test_entropy_closed_forms():
    counts = np.array([[5, 5, 5, 5], [9, 0, 0, 0], [2, 1, 1, 0], [0, 0, 0, 0]])
    assert code_entropy(counts).tolist() == [2.0, 0.0, 1.5, 0.0]


@given(arrays.arrays(np.int64, (3, 8), elements=st.integers(0, 10**6)))
def test_entropy_lies_between_nothing_and_the_stored_width(counts):
    found = code_entropy(counts)
    assert (found >= 0).all()
    assert (found <= 3 + 1e-12).all()
    np.testing.assert_allclose(code_entropy(counts[:, ::-1]), found, rtol=1e-9, atol=1e-12)
