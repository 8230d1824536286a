"""The segmentation suite's scores: closed forms, torchmetrics, and the plain references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassCohenKappa, MulticlassConfusionMatrix
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_f1_score,
    multiclass_jaccard_index,
)

from eval_suites.sar_segmentation import scores
from eval_suites.sar_segmentation.boundary import boundary_counts, boundary_of, boundary_of_reference, boundary_width
from eval_suites.sar_segmentation.counts import count
from eval_suites.sar_segmentation.figures import grouped, make_metrics, row_of
from geospatial.confusion_intervals import RESAMPLES, resampled_sums

CLASSES = 4
FIRST_SUMS = [111, 300, 12, 111, 21]


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 15), st.integers(1, 5), st.floats(0.1, 0.95))
@settings(max_examples=60, deadline=None)
def test_boundaries_are_what_erosions_take(seed: int, height: int, width: int, distance: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    np.testing.assert_array_equal(boundary_of(mask, distance), boundary_of_reference(mask, distance))


def test_the_boundary_of_a_square_in_closed_form() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[4:14, 5:15] = 1  # 10 x 10; two px of rim leave 6 x 6
    moved = np.roll(labels, 1, 1)
    counts = boundary_counts(labels, labels, 2, 2)
    assert counts[:, 1].tolist() == [64, 64]
    inner, whole = boundary_of(labels == 1, 2), boundary_of(moved == 1, 2)
    assert boundary_counts(labels, moved, 2, 2)[:, 1].tolist() == [(inner & whole).sum(), (inner | whole).sum()]
    assert boundary_width((300, 400), 0.02) == 10
    assert boundary_width((30, 40), 0.03) == 2  # 1.5 px
    assert boundary_width((5, 5), 0.02) == 1


def test_the_boundary_of_a_class_that_was_made_up_counts_against_it() -> None:
    labels = np.zeros((20, 20), np.uint8)
    predictions = labels.copy()
    predictions[4:14, 5:15] = 1
    assert boundary_counts(labels, predictions, 3, 2).tolist()[0][1:] == [0, 0]
    assert boundary_counts(labels, predictions, 3, 2).tolist()[1][1:] == [64, 0]
    narrow, wide = (count(labels, predictions, 3, share).boundary[1, 1] for share in (0.02, 0.2))
    assert (narrow, wide) == (36, 100)  # one px, and six: all of the square


def test_an_unlabelled_region_counts_nowhere() -> None:
    labels = np.zeros((12, 12), np.uint8)
    labels[:, 6:] = 1
    labels[3:9, 3:9] = 255
    predictions = np.where(labels == 255, np.uint8(3), labels)
    found = count(labels, predictions, CLASSES)
    assert found.matrix.sum() == (labels != 255).sum() == np.diag(found.matrix).sum()
    np.testing.assert_array_equal(found.boundary[0], found.boundary[1])
    with pytest.raises(ValueError, match="below"):
        count(labels, np.full_like(labels, 9), CLASSES)


def maps(seed: int, classes: int = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, (40, 30)).astype(np.uint8)
    predictions = np.where(random.random(labels.shape) < 0.6, labels, random.integers(0, classes, labels.shape))
    labels[:3] = 255
    return labels, predictions.astype(np.uint8)


def test_scores_are_those_of_torchmetrics() -> None:
    labels, predictions = maps(0)
    matrix = count(labels, predictions, CLASSES).matrix
    truth, found = torch.from_numpy(labels).long(), torch.from_numpy(predictions).long()
    chosen = {"num_classes": CLASSES, "ignore_index": 255}
    np.testing.assert_array_equal(matrix, MulticlassConfusionMatrix(**chosen)(found, truth).numpy())
    wanted = {
        "miou": multiclass_jaccard_index(found, truth, average="macro", **chosen),
        "mf1": multiclass_f1_score(found, truth, average="macro", **chosen),
        "oa": multiclass_accuracy(found, truth, average="micro", **chosen),
        "macc": multiclass_accuracy(found, truth, average="macro", **chosen),
        "kappa": MulticlassCohenKappa(**chosen)(found, truth),
    }
    for name, statistic in scores.OF_MATRIX.items():
        assert float(statistic(matrix)) == pytest.approx(float(wanted[name]), abs=1e-6), name


def test_absent_classes_are_left_out_and_invented_ones_count_with_zero() -> None:
    right = np.diag([5, 5, 0])
    assert float(scores.miou(right)) == 1.0
    assert np.isnan(scores.class_f1(right)[2])
    invented = np.array([[5, 0, 0], [0, 4, 1], [0, 0, 0]])
    assert float(scores.miou(invented)) == pytest.approx((1 + 0.8 + 0) / 3)
    assert float(scores.macc(invented)) == pytest.approx((1 + 0.8) / 2)
    assert np.isnan(scores.kappa(np.diag([5, 0, 0])))
    assert float(scores.kappa(np.full((2, 2), 3))) == 0.0


def rows_of(role: str, seeds: range, groups: int) -> list:
    return [row_of(role, f"r{seed}", f"g{seed % groups}", count(*maps(seed), CLASSES)) for seed in seeds]


def test_metrics_are_of_sums_and_intervals_of_groups() -> None:
    rows = rows_of("target", range(8), 4)
    names = [f"c{number}" for number in range(CLASSES)]
    found = {metric.name: metric for metric in make_metrics(rows, names)}
    total = sum(np.array(row.more["matrix"]) for row in rows)
    assert found["miou"].value == pytest.approx(float(scores.miou(total)))
    assert (found["miou"].n_values, found["miou"].n_groups) == (8, 4)
    assert found["miou"].low <= found["miou"].value <= found["miou"].high
    assert found["image_miou"].value == pytest.approx(np.mean([row.values["image_miou"] for row in rows]))
    assert grouped(rows).matrices.shape == (4, CLASSES, CLASSES)
    assert (found["image_miou"].n_groups, found["boundary_miou"].n_groups) == (4, 4)
    boundary = sum(np.array(row.more["boundary"]) for row in rows)
    assert found["boundary_miou"].value == pytest.approx(float(scores.boundary_miou(boundary)))
    assert found["boundary_miou"].low < found["boundary_miou"].value < found["boundary_miou"].high
    for name, value in zip(names, scores.boundary_iou(boundary), strict=True):
        assert found[f"boundary_iou@{name}"].value == pytest.approx(value)
        assert found[f"boundary_iou@{name}"].low < value < found[f"boundary_iou@{name}"].high
    apart = rows_of("target", range(8), 8)
    assert make_metrics(list(reversed(apart)), names) == make_metrics(apart, names)
    alone = {metric.name: metric for metric in make_metrics(rows_of("target", range(3), 1), names)}
    assert alone["miou"].low is None
    assert "miou_drop" not in alone


def test_an_interval_is_that_of_a_share_of_as_many_rasters() -> None:
    """Of n rasters a share p is right throughout: half the width is 1.96 sqrt(p (1 - p) / n), Moivre's."""
    rasters, wrong = 100, 20
    right = np.zeros((8, 8), np.uint8)
    rows = [row_of("target", f"{n}", f"{n}", count(right, right + (n < wrong), 2)) for n in range(rasters)]
    found = {metric.name: metric for metric in make_metrics(rows, ["land", "sea"])}["oa"]
    assert found.value == pytest.approx(0.8)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * np.sqrt(0.8 * 0.2 / rasters), rel=0.05)
    sums = resampled_sums(np.eye(4, dtype=np.int64)[None].repeat(3, 0) * np.array([1, 10, 100])[:, None, None])
    assert sums.shape == (RESAMPLES, 4, 4)
    assert sums[:5, 0, 0].tolist() == FIRST_SUMS  # seed 0: an interval that is printed today is printed tomorrow


def test_without_two_groups_on_both_sides_a_drop_has_no_interval() -> None:
    names = [f"c{number}" for number in range(CLASSES)]
    for groups in ((6, 1), (1, 6)):
        rows = [*rows_of("target", range(6), groups[0]), *rows_of("source", range(10, 16), groups[1])]
        drop = {metric.name: metric for metric in make_metrics(rows, names)}["miou_drop"]
        assert drop.value is not None
        assert (drop.low, drop.high, drop.level) == (None, None, None)


def test_what_is_lost_from_source_to_target() -> None:
    names = [f"c{number}" for number in range(CLASSES)]
    rows = [*rows_of("target", range(6), 6), *rows_of("source", range(10, 16), 6)]
    found = {metric.name: metric for metric in make_metrics(rows, names)}
    drop = found["miou_drop"]
    assert drop.value == pytest.approx(found["miou@source"].value - found["miou"].value)
    assert drop.low < drop.value < drop.high
    same = [*rows_of("target", range(6), 6), *rows_of("source", range(6), 6)]
    nothing = {metric.name: metric for metric in make_metrics(same, names)}["miou_drop"]
    assert nothing.value == 0
    assert nothing.low < 0 < nothing.high  # two samples of one domain do not lie on the same spot


def test_a_class_that_is_nowhere_is_not_measured() -> None:
    labels = np.zeros((9, 9), np.uint8)
    found = {m.name: m for m in make_metrics([row_of("target", "a", "a", count(labels, labels, 2))], ["land", "sea"])}
    assert found["iou@land"].value == 1.0
    assert found["iou@sea"].not_measured == "in neither the labels nor the predictions"
    assert found["kappa"].not_measured is not None
