"""The light heads, the pyramid, and cross-entropy as sums and counts."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from geospatial.class_masks import IGNORE
from geospatial.crossearth_sar.heads import FpnHead, LinearHead, feature_pyramid
from geospatial.segmentation_head import Labels, checked_class_weights, cross_entropy
from mmzoo.errors import InputError


def maps(batch: int = 2, height: int = 5, width: int = 6) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 12, height, width, generator=random) for _ in range(4)]


HEADS = [lambda **o: LinearHead(12, 4, 3, **o), lambda **o: FpnHead(12, 3, width=16, **o)]


@pytest.mark.parametrize(("height", "width"), [(5, 6), (1, 1), (32, 17)])
def test_each_level_of_the_pyramid_comes_from_its_own_map(height, width):
    """4, 2, 1 and 0.5 times the grid; the released non-adapter path takes two of them from the enlarged first one."""
    given = maps(1, height, width)
    levels = feature_pyramid(given)
    for level, own, factor in zip(levels, given, (4, 2, 1, 0.5), strict=True):
        size = max(1, int(height * factor)), max(1, int(width * factor))
        assert level.shape[-2:] == size
        torch.testing.assert_close(level, F.interpolate(own, size=size, mode="bilinear"))
    with pytest.raises(InputError, match="maps of 4 layers, not 3"):
        feature_pyramid(given[:3])


@pytest.mark.parametrize("make", HEADS)
def test_scores_are_probabilities_at_any_size(make):
    head = make()
    scores = head.scores(head(maps()), (31, 47))
    assert scores.shape == (2, 3, 31, 47)
    torch.testing.assert_close(scores.sum(1), torch.ones(2, 31, 47))


@pytest.mark.parametrize("make", HEADS)
def test_a_sample_does_not_depend_on_its_batch(make):
    head = make()
    together = head(maps())["logits"]
    torch.testing.assert_close(head([one[1:] for one in maps()])["logits"], together[1:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", HEADS)
def test_it_learns_one_picture(make):
    torch.manual_seed(0)
    head = make()
    labels = Labels(torch.arange(3).repeat_interleave(4)[None, None].expand(2, 10, 12), torch.ones(2))
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    for _ in range(80):
        loss = head.losses(head(maps()), labels)["cross_entropy"].mean
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (head.scores(head(maps()), (10, 12)).argmax(1) == labels.classes).float().mean() > 0.9


def test_cross_entropy_in_closed_form():
    """Logits 0: every labelled pixel costs ln K, times the weight of its class and of its sample."""
    classes = torch.tensor([[[0, 1], [2, IGNORE]], [[1, 1], [IGNORE, IGNORE]]])
    labels = Labels(classes, torch.tensor([1.0, 0.5]))
    loss = cross_entropy(torch.zeros(2, 3, 2, 2), labels, [1.0, 2.0, 4.0])
    assert int(loss.count) == 5
    assert loss.sum.item() == pytest.approx(math.log(3) * ((1 + 2 + 4) + 0.5 * (2 + 2)))


def test_counts_are_those_of_the_losses_and_halves_add_up():
    head = HEADS[0]()
    labels = Labels(torch.randint(0, 3, (2, 10, 12)), torch.tensor([1.0, 0.3]))
    whole = head.losses(head(maps()), labels)["cross_entropy"]
    parts = [
        head.losses(head([m[i : i + 1] for m in maps()]), Labels(labels.classes[i : i + 1], labels.weights[i : i + 1]))
        for i in range(2)
    ]
    assert whole.sum.item() == pytest.approx(sum(part["cross_entropy"].sum.item() for part in parts), rel=1e-5)
    assert int(head.counts(labels)["cross_entropy"]) == int(whole.count) == 240


def test_nothing_labelled_is_a_loss_of_zero_with_a_gradient():
    head = HEADS[0]()
    loss = head.losses(head(maps()), Labels(torch.full((2, 10, 12), IGNORE), torch.ones(2)))["cross_entropy"].mean
    loss.backward()
    assert loss.item() == 0
    assert head.classifier.weight.grad.abs().sum() == 0


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0, 1.0]])
def test_class_weights_that_do_not_fit(weights):
    with pytest.raises(InputError, match="class_weights must be 3 numbers"):
        checked_class_weights(weights, 3)
