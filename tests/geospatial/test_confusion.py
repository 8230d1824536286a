"""The confusion matrix and its scores, against definitions and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassJaccardIndex

from geospatial.class_masks import IGNORE
from geospatial.confusion import class_ious, confusion_matrix, confusion_matrix_reference, scores


@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(1, 9), pixels=st.integers(0, 300))
def test_it_is_the_definition_and_adds_up(seed, classes, pixels):
    random = np.random.default_rng(seed)
    labels = random.choice([*range(classes), IGNORE], pixels).astype(np.uint8)
    predictions = random.integers(0, classes, pixels).astype(np.uint8)
    whole = confusion_matrix(labels, predictions, classes)
    np.testing.assert_array_equal(whole, confusion_matrix_reference(labels, predictions, classes))
    half = pixels // 2
    parts = [confusion_matrix(labels[s], predictions[s], classes) for s in (slice(half), slice(half, None))]
    np.testing.assert_array_equal(whole, sum(parts))


def test_miou_is_that_of_torchmetrics():
    random = np.random.default_rng(0)
    labels = random.choice([0, 1, 2, 3, IGNORE], (2, 40, 50)).astype(np.uint8)
    predictions = random.integers(0, 4, (2, 40, 50)).astype(np.uint8)
    theirs = MulticlassJaccardIndex(4, average="macro", ignore_index=IGNORE)
    expected = theirs(torch.from_numpy(predictions).int(), torch.from_numpy(labels).int())
    assert scores(confusion_matrix(labels, predictions, 4), "abcd")["miou"] == pytest.approx(expected.item())


def test_absent_classes_do_not_count_and_invented_ones_do():
    labels, predictions = np.array([0, 0, 0, 1], np.uint8), np.array([0, 0, 2, 1], np.uint8)
    matrix = confusion_matrix(labels, predictions, 4)
    np.testing.assert_allclose(class_ious(matrix), [2 / 3, 1, 0, np.nan])
    found = scores(matrix, ["land", "water", "ice", "snow"])
    assert found == pytest.approx(
        {
            "miou": (2 / 3 + 1 + 0) / 3,
            "pixel_accuracy": 3 / 4,
            "class_accuracy": (2 / 3 + 1) / 2,
            "iou/land": 2 / 3,
            "iou/water": 1,
            "iou/ice": 0,
        }
    )
    assert scores(np.zeros((2, 2), np.int64), "ab") == {}


def test_classes_out_of_range_are_refused():
    for labels, predictions in (([3], [0]), ([0], [3])):
        with pytest.raises(ValueError, match="not below 3"):
            confusion_matrix(np.array(labels, np.uint8), np.array(predictions, np.uint8), 3)
