"""IoU intervals and the brightness baseline against closed forms and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geospatial.brightness_baseline import HIGHEST, LOWEST, BrightnessClasses, bins_of, smoothed
from geospatial.class_masks import IGNORE
from geospatial.confusion import class_ious
from geospatial.confusion_intervals import class_intervals, miou_difference, miou_interval, resampled_sums


def test_perfect_maps_have_no_width():
    matrices = np.stack([np.diag([5, 3]), np.diag([1, 9])])
    found = miou_interval(matrices)
    assert (found.value, found.low, found.high, found.images) == (1.0, 1.0, 1.0, 2)


def test_an_iou_is_a_ratio_of_sums():
    """Image 1: 9 of 10 pixels right; image 2: none of 90. Mean of ratios 0.45, ratio of sums 9 / 100."""
    matrices = np.array([[[9, 1], [0, 0]], [[0, 90], [0, 0]]])
    found = class_intervals(matrices)[0]
    assert found.value == pytest.approx(0.09)
    assert (found.low, found.high) == (0.0, pytest.approx(0.9))


def test_what_is_nowhere_has_no_score_and_one_image_no_interval():
    found = class_intervals(np.stack([np.diag([4, 0])] * 3))[1]
    assert np.isnan(found.value)
    assert found.low is None
    assert miou_interval(np.diag([4, 1])[None]).low is None


@settings(max_examples=25, deadline=None)
@given(arrays(np.int64, st.tuples(st.integers(2, 6), st.just(3), st.just(3)), elements=st.integers(1, 50)))
def test_resamples_are_sums_of_as_many_images(matrices):
    sums = resampled_sums(matrices)
    one = np.tile(np.eye(3, dtype=np.int64), (len(matrices), 1, 1))
    assert (resampled_sums(one)[:, 0, 0] == len(matrices)).all()
    assert (sums >= len(matrices) * matrices.min(0)).all()
    assert (sums <= len(matrices) * matrices.max(0)).all()
    np.testing.assert_allclose(sums.mean(0), matrices.sum(0), rtol=0.2)
    plain = np.array([[class_ious(total)[k] for k in range(3)] for total in sums[:20]])
    np.testing.assert_array_equal(class_ious(sums[:20]), plain)


def test_differences_are_paired():
    random = np.random.default_rng(0)
    one = random.integers(1, 100, (8, 3, 3))
    zero = miou_difference(one, one)
    assert (zero.value, zero.low, zero.high) == (0.0, 0.0, 0.0)
    better = one + 40 * np.eye(3, dtype=np.int64)
    found = miou_difference(better, one)
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low <= found.value <= found.high
    assert found.value == pytest.approx(miou_interval(better).value - miou_interval(one).value)
    with pytest.raises(ValueError, match="not of the same images"):
        miou_difference(one, one[:4])


def test_thresholds_tell_apart_what_brightness_does():
    values = np.full((40, 40), -20.5, np.float32)
    values[:, 20:] = -5.5
    labels = (values > -10).astype(np.uint8)
    labels[:5] = IGNORE
    labels[5:8] = 0
    fitted = BrightnessClasses.fitted([(values, labels)], 2)
    assert fitted.majority == 0
    assert fitted.labels(np.full((9, 9), -20.5, np.float32)).max() == 0
    assert fitted.labels(np.full((9, 9), -5.5, np.float32)).min() == 1
    assert fitted.of_bin[0] == 0  # decibels that no pixel has: as the nearest
    assert fitted.of_bin[-1] == 1
    with pytest.raises(ValueError, match="no labelled pixel"):
        BrightnessClasses.fitted([(values, np.full_like(labels, IGNORE))], 2)


def test_smoothing_is_of_power_and_bins_hold_everything():
    values = np.full((9, 9), -100, np.float32)
    values[4, 4] = 0.0
    assert smoothed(values)[4, 4] == pytest.approx(10 * np.log10(1 / 25), abs=1e-3)
    assert bins_of(np.array([-np.inf, np.nan, -999, LOWEST, 0.5, 999, np.inf])).tolist() == [
        *(0, 0, 0, 0),
        -LOWEST,
        *(HIGHEST - 1 - LOWEST, HIGHEST - 1 - LOWEST),
    ]
