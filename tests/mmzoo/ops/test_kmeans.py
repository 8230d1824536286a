"""k-means: known clusters are found, empty ones restart, the seed decides."""

import torch

from mmzoo.ops.kmeans import kmeans
from mmzoo.ops.residual_vq import nearest


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_error_falls_to_that_of_the_true_clusters():
    truth = 10 * torch.randn(4, 3, generator=seeded(0))
    points = (truth[:, None] + 0.1 * torch.randn(4, 200, 3, generator=seeded(1))).reshape(-1, 3)
    centres = kmeans(points, 16, 20, seeded(2))
    error = (points - centres[nearest(points, centres)]).square().sum(1).mean()
    assert float(error) < 3 * 0.1**2


def test_more_clusters_than_vectors():
    points = torch.randn(3, 2, generator=seeded(0))
    centres = kmeans(points, 8, 5, seeded(1))
    assert centres.shape == (8, 2)
    torch.testing.assert_close(centres[nearest(points, centres)], points)


def test_the_generator_decides():
    points = torch.randn(300, 4, generator=seeded(0))
    assert torch.equal(kmeans(points, 8, 3, seeded(1)), kmeans(points, 8, 3, seeded(1)))
    assert not torch.equal(kmeans(points, 8, 3, seeded(1)), kmeans(points, 8, 3, seeded(2)))
