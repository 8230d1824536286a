"""The Frechet distance against pytorch-fid's formula, closed forms, and sums that add up in any order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from eval_suites.metrics.frechet import FeatureSums, frechet_distance, frechet_reference


def features(seed, count=300, width=48):
    """Correlated features of unequal spread, none with mean 0."""
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((width, width)) * np.linspace(0.1, 2, width)
    return random.standard_normal((count, width)) @ mixing + random.standard_normal(width)


def published(first, second):
    """The formula as pytorch-fid publishes it, with a matrix square root."""
    one, two = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = linalg.sqrtm(one @ two)
    shift = first.mean(0) - second.mean(0)
    return float(shift @ shift + np.trace(one) + np.trace(two) - 2 * np.trace(root).real)


def sums(values, block=64):
    return FeatureSums.of((values[start : start + block] for start in range(0, len(values), block)), values.shape[1])


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_published_formula_and_the_reference(seed):
    first, second = features(seed), features(seed + 100, count=211)
    expected = published(first, second)
    assert frechet_distance(sums(first), sums(second)) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert frechet_reference(first, second) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_equals_the_published_formula_at_the_width_of_inception_features():
    first = np.maximum(features(0, 700, 512), 0).astype(np.float32)
    second = np.maximum(features(1, 600, 512), 0).astype(np.float32)
    expected = published(first.astype(np.float64), second.astype(np.float64))
    assert frechet_distance(sums(first), sums(second)) == pytest.approx(expected, rel=1e-6)


def test_closed_forms():
    first = features(5)
    assert frechet_distance(sums(first), sums(first)) == pytest.approx(0, abs=1e-7)
    assert frechet_distance(sums(first), sums(first + 3)) == pytest.approx(9 * first.shape[1])
    scaled = 2 * (first - first.mean(0)) + first.mean(0)  # tr(S + 4 S - 2 * 2 S) = tr S
    assert frechet_distance(sums(first), sums(scaled)) == pytest.approx(np.trace(np.cov(first, rowvar=False)))


def test_is_symmetric_and_survives_fewer_images_than_features():
    first, second = features(1, count=12), features(2, count=9)
    there, back = frechet_distance(sums(first), sums(second)), frechet_distance(sums(second), sums(first))
    assert there == pytest.approx(back, rel=1e-6)
    assert there == pytest.approx(frechet_reference(first, second), rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 299), min_size=2, max_size=6, unique=True), st.randoms(use_true_random=False))
def test_partial_sums_add_up_whatever_the_parts_and_their_order(cuts, random):
    values = features(7)
    parts = [sums(part) for part in np.split(values, sorted(cuts))]
    random.shuffle(parts)
    middle = len(parts) // 2
    left, right = parts[0], parts[middle]
    for part in parts[1:middle]:
        left = left + part
    for part in parts[middle + 1 :]:
        right = part + right
    whole, joined = sums(values), left + right
    assert joined.count == 300
    for one, other in zip(joined.moments(), whole.moments(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def test_moments_are_those_of_numpy_and_the_memory_does_not_grow():
    values = features(3, count=1000)
    found = sums(values, block=7)
    mean, covariance = found.moments()
    np.testing.assert_allclose(mean, values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(values, rowvar=False), rtol=1e-9, atol=1e-11)
    assert found.products.shape == (48, 48)
    assert found.products.dtype == np.float64


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match=r"must be \(n, 3\)"):
        FeatureSums(3).add(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="NaN"):
        FeatureSums(1).add(np.array([[np.nan]]))
    with pytest.raises(ValueError, match="at least 2"):
        sums(np.zeros((1, 3))).moments()
