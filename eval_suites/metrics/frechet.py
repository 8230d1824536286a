"""The Frechet distance between two sets of features, from sums that are kept in float64 and never hold a set whole.

Source: Heusel et al. 2017 (arXiv 1706.08500): d^2 = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), S with N - 1. The
trace of the root is taken from two symmetric eigenvalue problems, which need no complex numbers and no iteration.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


class FeatureSums:
    """What is kept of features (N, D): their number, their sums (D,) and their outer products (D, D), in float64.

    The memory is D * D * 8 bytes, whatever N is. Sums of parts add up: `a + b` is the sums of both sets.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.sums = np.zeros(width)
        self.products = np.zeros((width, width))

    @classmethod
    def of(cls, blocks: Iterable[np.ndarray], width: int) -> FeatureSums:
        """The sums of features that come in blocks (n, D)."""
        total = cls(width)
        for block in blocks:
            total.add(block)
        return total

    def add(self, features: np.ndarray) -> None:
        """Takes features (n, D) in. ValueError: another width, or values that are not finite."""
        if features.ndim != 2 or features.shape[1] != len(self.sums):
            raise ValueError(f"features {features.shape} must be (n, {len(self.sums)})")
        if not np.isfinite(features).all():
            raise ValueError("features hold NaN or infinite values")
        exact = features.astype(np.float64)
        self.count += len(exact)
        self.sums += exact.sum(0)
        self.products += exact.T @ exact

    def __add__(self, other: FeatureSums) -> FeatureSums:
        total = FeatureSums(len(self.sums))
        total.count = self.count + other.count
        total.sums = self.sums + other.sums
        total.products = self.products + other.products
        return total

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (D,) and covariance (D, D), divided by N - 1. ValueError: fewer than two feature vectors."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 feature vectors; there are {self.count}")
        mean = self.sums / self.count
        return mean, (self.products - self.count * np.outer(mean, mean)) / (self.count - 1)


def frechet_distance(first: FeatureSums, second: FeatureSums) -> float:
    """The squared Frechet distance between the normal distributions of two sets; 0 where rounding would make it less.

    tr (S1 S2)^(1/2) = tr (A S2 A)^(1/2) with A = S1^(1/2): both matrices are symmetric, so `eigh` does both.
    """
    (mean, covariance), (other_mean, other_covariance) = first.moments(), second.moments()
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    mixed = root @ other_covariance @ root
    trace = np.sqrt(np.linalg.eigvalsh((mixed + mixed.T) / 2).clip(min=0)).sum()
    shift = mean - other_mean
    return max(0.0, float(shift @ shift + np.trace(covariance) + np.trace(other_covariance) - 2 * trace))


def frechet_reference(first: np.ndarray, second: np.ndarray) -> float:
    """`frechet_distance` of features (N, D) by its definition: whole sets, `np.cov`, eigenvalues of the product."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    covariance, other = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    trace = np.real(np.sqrt(np.linalg.eigvals(covariance @ other).astype(complex))).sum()
    shift = first.mean(0) - second.mean(0)
    return float(shift @ shift + np.trace(covariance) + np.trace(other) - 2 * trace)
