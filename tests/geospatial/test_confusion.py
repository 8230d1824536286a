"""The confusion matrix and its scores, against definitions and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

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


@pytest.mark.parametrize("labelled", [[0, 1, 2, 3], [0, 2]], ids=["all classes", "1 and 3 in no label"])
@pytest.mark.parametrize("predicted", [[0, 1, 2, 3], [0, 1], [2]], ids=["all classes", "1 invented", "constant"])
def test_matrix_and_ious_are_those_of_torchmetrics(labelled, predicted):
    """Class 3 is absent from both in some, class 1 only predicted: no IoU and left out, and an IoU of 0."""
    random = np.random.default_rng(0)
    labels = random.choice([*labelled, IGNORE], (2, 40, 50)).astype(np.uint8)
    predictions = random.choice(predicted, (2, 40, 50)).astype(np.uint8)
    pair = torch.from_numpy(predictions).int(), torch.from_numpy(labels).int()
    matrix = confusion_matrix(labels, predictions, 4)
    np.testing.assert_array_equal(matrix, MulticlassConfusionMatrix(4, ignore_index=IGNORE)(*pair).numpy())
    # They write 0 where a class is absent, and leave it out of their mean as well.
    each = MulticlassJaccardIndex(4, average="none", ignore_index=IGNORE)(*pair).numpy()
    np.testing.assert_allclose(np.nan_to_num(class_ious(matrix)), each, rtol=1e-6)
    whole = MulticlassJaccardIndex(4, average="macro", ignore_index=IGNORE)(*pair)
    assert scores(matrix, "abcd")["miou"] == pytest.approx(whole.item())


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
