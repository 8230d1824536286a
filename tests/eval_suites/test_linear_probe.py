"""The probe against the plain leave-one-out loop, and against what features cannot hold."""

from __future__ import annotations

import numpy as np
import pytest

from eval_suites.metrics import linear_probe
from eval_suites.metrics.linear_probe import fit_probe


def blobs(spread: float, seed: int = 0, dimensions: int = 6) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.repeat(np.array(["cat", "dog", "eel"]), 20)
    centres = np.repeat(np.eye(3, dimensions) * 4, 20, axis=0)
    return centres + spread * random.standard_normal((60, dimensions)), labels


def test_separate_classes_are_found_on_new_images() -> None:
    probe = fit_probe(*blobs(0.3))
    features, labels = blobs(0.3, seed=1)
    assert (probe.predict(features) == labels).mean() == 1.0


def test_noise_gives_chance() -> None:
    random = np.random.default_rng(0)
    hits = []
    for _ in range(30):
        labels = np.repeat([0, 1, 2, 3], 15)
        probe = fit_probe(random.standard_normal((60, 8)), labels)
        hits.append((probe.predict(random.standard_normal((60, 8))) == labels).mean())
    assert np.mean(hits) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(("images", "dimensions"), [(40, 5), (12, 30)])
def test_the_closed_form_is_the_loop_over_left_out_images(images: int, dimensions: int) -> None:
    random = np.random.default_rng(1)
    inputs = random.standard_normal((images, dimensions))
    inputs -= inputs.mean(0)
    targets = random.standard_normal((images, 3))
    targets -= targets.mean(0)
    left, singular, _ = np.linalg.svd(inputs, full_matrices=False)
    penalty = 0.7
    closed = linear_probe._left_out_error(left, singular, left.T @ targets, targets, penalty)
    errors = []
    for out in range(images):
        keep = np.arange(images) != out
        x, y = inputs[keep], targets[keep]
        mean_x, mean_y = x.mean(0), y.mean(0)
        gram = (x - mean_x).T @ (x - mean_x) + penalty * np.eye(dimensions)
        weights = np.linalg.solve(gram, (x - mean_x).T @ (y - mean_y))
        errors.append(np.square(targets[out] - mean_y - (inputs[out] - mean_x) @ weights).mean())
    assert closed == pytest.approx(np.mean(errors), rel=1e-9)


def test_scale_shift_and_a_constant_feature_change_nothing() -> None:
    features, labels = blobs(1.5)
    new, _ = blobs(1.5, seed=2)
    plain = fit_probe(features, labels).predict(new)

    def moved(values: np.ndarray) -> np.ndarray:
        return np.column_stack([values * 1000 + 7, np.full(len(values), 5.0)])

    assert (fit_probe(moved(features), labels).predict(moved(new)) == plain).all()


@pytest.mark.parametrize(
    ("features", "labels"),
    [(np.ones((3, 2)), [1, 1, 1]), (np.ones((3, 2)), [1, 2]), (np.array([[np.nan], [1.0]]), [0, 1])],
)
def test_what_cannot_be_fitted_is_refused(features: np.ndarray, labels: list[int]) -> None:
    with pytest.raises(ValueError, match=r"do not fit|NaN"):
        fit_probe(features, np.array(labels))
