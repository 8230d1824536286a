"""Linear probe: how well a linear map of fixed features tells classes apart.

Ridge regression onto one-hot targets, its strength chosen on the training images by the closed-form leave-one-out error
(Hastie, Tibshirani, Friedman, The Elements of Statistical Learning, 3.4 and 7.10). No test image touches any choice.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

STRENGTHS = tuple(10.0**power for power in np.arange(-3, 5.1, 0.5))


class Probe(NamedTuple):
    """`classes` (C,) sorted labels; a class is found where features @ `weights` (D, C) + `bias` (C,) is largest."""

    classes: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    strength: float

    def predict(self, features: np.ndarray) -> np.ndarray:
        """features (N, D) -> labels (N,)."""
        return self.classes[(features @ self.weights + self.bias).argmax(1)]


def fit_probe(features: np.ndarray, labels: np.ndarray, strengths: tuple[float, ...] = STRENGTHS) -> Probe:
    """features (N, D) and labels (N,), N >= 3 -> the probe whose leave-one-out squared error is lowest.

    Features are standardised by the training images; a constant one is ignored. Strengths are relative to the mean
    squared singular value. ValueError: fewer than two classes, lengths that differ, values that are not finite.
    """
    features = np.asarray(features, dtype=np.float64)
    classes, numbers = np.unique(labels, return_inverse=True)
    if features.ndim != 2 or len(features) != len(numbers) or len(classes) < 2:
        raise ValueError(f"features {features.shape} and {len(numbers)} labels of {len(classes)} classes do not fit")
    if not np.isfinite(features).all():
        raise ValueError("features hold NaN or infinity")
    mean, scale = features.mean(0), features.std(0)
    scale = np.where(scale > 1e-12 * np.abs(features).max(initial=1.0), scale, np.inf)
    inputs = (features - mean) / scale
    targets = np.eye(len(classes))[numbers]
    centre = targets.mean(0)
    left, singular, right = np.linalg.svd(inputs, full_matrices=False)
    projected = left.T @ (targets - centre)
    unit = float(np.mean(singular**2)) or 1.0
    errors = [_left_out_error(left, singular, projected, targets - centre, s * unit) for s in strengths]
    strength = strengths[int(np.argmin(errors))]
    weights = right.T @ ((singular / (singular**2 + strength * unit))[:, None] * projected) / scale[:, None]
    return Probe(classes, weights, centre - mean @ weights, strength)


def _left_out_error(
    left: np.ndarray, singular: np.ndarray, projected: np.ndarray, targets: np.ndarray, penalty: float
) -> float:
    """Mean squared error of each image's prediction by the fit without it (the mean and the scale are kept)."""
    shrink = singular**2 / (singular**2 + penalty)
    leverage = np.square(left) @ shrink + 1 / len(left)
    residuals = (targets - left @ (shrink[:, None] * projected)) / (1 - leverage)[:, None]
    return float(np.square(residuals).mean())
