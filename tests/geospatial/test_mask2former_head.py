"""Mask2Former's parts are transformers' private ones: what we count on, and that our sums are their means."""

from __future__ import annotations

import pytest
import torch
from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

from geospatial.class_masks import IGNORE
from geospatial.crossearth_sar.mask2former_head import Mask2FormerHead, Mask2FormerSettings
from geospatial.segmentation_head import Labels
from mmzoo.errors import InputError

TINY = Mask2FormerSettings(
    width=32, queries=8, heads=4, encoder_layers=1, decoder_layers=3, encoder_hidden=64, decoder_hidden=64, points=64
)


def maps(batch: int = 2, side: int = 4, seed: int = 0) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 12, side, side + 1, generator=random) for _ in range(4)]


def head(**options) -> Mask2FormerHead:
    torch.manual_seed(0)
    return Mask2FormerHead(12, 3, TINY, **options)


def labels(batch: int = 2, side: int = 16, weights=None) -> Labels:
    random = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 3, (batch, 4, 4), generator=random)
    classes = coarse.repeat_interleave(side // 4, 1).repeat_interleave(side // 4, 2)
    return Labels(classes, torch.ones(batch) if weights is None else torch.tensor(weights))


def means(parts) -> dict[str, float]:
    return {name: part.mean.item() for name, part in parts.items()}


def test_shapes_of_the_parts_and_of_the_scores():
    outputs = head()(maps())
    assert [tuple(t.shape) for t in outputs["class_logits"]] == [(2, 8, 4)] * 4
    assert [tuple(t.shape) for t in outputs["mask_logits"]] == [(2, 8, 16, 20)] * 4
    scores = head().scores(outputs, (30, 41))
    assert scores.shape == (2, 3, 30, 41)
    torch.testing.assert_close(scores.sum(1), torch.ones(2, 30, 41))


def test_with_all_pixels_labelled_the_loss_is_transformers_own():
    """Same random points: the same seed, and the same order of draws."""
    ours = head()
    outputs, given = ours(maps()), labels()
    torch.manual_seed(5)
    parts = ours.losses(outputs, given)
    present = [torch.unique(one) for one in given.classes]
    masks = [(one == known[:, None, None]).float() for one, known in zip(given.classes, present, strict=True)]
    theirs = Mask2FormerLoss(ours.decoder.config, {})
    torch.manual_seed(5)
    expected = dict.fromkeys(("cross_entropy", "mask", "dice"), 0.0)
    for class_logits, mask_logits in zip(outputs["class_logits"], outputs["mask_logits"], strict=True):
        for name, value in theirs(mask_logits, class_logits, masks, present).items():
            expected[name.removeprefix("loss_")] += value.item()
    assert means(parts) == pytest.approx(
        {"class": expected["cross_entropy"], "mask": expected["mask"], "dice": expected["dice"]}, rel=1e-5
    )
    config = ours.decoder.config
    assert ours.loss_weights == {"class": config.class_weight, "mask": config.mask_weight, "dice": config.dice_weight}
    assert list(ours.loss_weights.values()) == [2.0, 5.0, 5.0]


def test_the_published_sizes_are_the_defaults():
    config = Mask2FormerSettings().config(7)
    assert (config.decoder_layers, config.encoder_layers, config.num_queries) == (10, 6, 100)
    assert (config.train_num_points, config.oversample_ratio, config.importance_sample_ratio) == (12544, 3.0, 0.75)


def test_counts_are_told_from_the_labels_alone_and_add_up_over_halves():
    ours, given = head(class_weights=[1.0, 2.5, 0.3]), labels(4)
    whole = ours.counts(given)
    parts = [ours.counts(Labels(given.classes[half], given.weights[half])) for half in (slice(0, 2), slice(2, 4))]
    assert {name: int(whole[name]) for name in whole} == {name: int(parts[0][name] + parts[1][name]) for name in whole}
    losses = ours.losses(ours(maps(4)), given)
    assert {name: int(losses[name].count) for name in losses} == {name: int(whole[name]) for name in whole}
    assert all(not count.is_floating_point() for count in whole.values())  # ranks add them up as integers


def test_pixels_without_a_label_change_nothing():
    ours = head()
    outputs, given = ours(maps()), labels()
    classes = given.classes.clone()
    classes[:, :, 8:] = IGNORE
    moved = [t.detach().clone().requires_grad_() for t in outputs["mask_logits"]]
    parts = ours.losses({**outputs, "mask_logits": moved}, Labels(classes, given.weights))
    (parts["mask"].sum + parts["dice"].sum).backward()
    gradient = moved[-1].grad.abs().sum((0, 1, 2))
    assert gradient[:9].gt(0).all()
    assert gradient[11:].eq(0).all()  # the mask logits' columns there touch only unlabelled pixels


def test_an_image_without_any_label_counts_for_nothing_but_has_gradients():
    ours, given = head(), labels()
    none = Labels(torch.full_like(given.classes, IGNORE), given.weights)
    losses = ours.losses(ours(maps()), none)
    assert means(losses) == {"class": 0.0, "mask": 0.0, "dice": 0.0}
    assert all(int(part.count) == 0 for part in losses.values())
    sum(part.mean for part in losses.values()).backward()
    assert all(p.grad is not None for name, p in ours.named_parameters() if "level_embed" not in name)

    half = given.classes.clone()
    half[1] = IGNORE
    torch.manual_seed(3)
    together = ours.losses(ours(maps()), Labels(half, given.weights))
    torch.manual_seed(3)
    alone = ours.losses(ours([one[:1] for one in maps()]), Labels(half[:1], given.weights[:1]))
    assert means(together) == pytest.approx(means(alone), rel=1e-4)


def test_weights_of_samples_and_classes_scale_their_terms():
    ours = head()
    outputs = ours(maps())
    for weight in (0.0, 0.5):
        torch.manual_seed(2)
        full = ours.losses(outputs, labels())
        torch.manual_seed(2)
        less = ours.losses(outputs, labels(weights=[weight, weight]))
        assert means(less) == pytest.approx({name: weight * value for name, value in means(full).items()}, rel=1e-5)
    assert head(class_weights=[2.0, 2.0, 2.0]).units == [2000, 2000, 2000, 100]


def test_it_learns_one_picture():
    ours, given = head(), labels(1)
    random = torch.Generator().manual_seed(0)
    features = [torch.randn(1, 12, 4, 4, generator=random) for _ in range(4)]
    optimizer = torch.optim.AdamW(ours.parameters(), 3e-3)
    torch.manual_seed(0)
    for _ in range(60):
        outputs = ours(features)
        parts = ours.losses(outputs, given)
        loss = sum(ours.loss_weights[name] * part.mean for name, part in parts.items())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = ours.scores(ours(features), (16, 16)).argmax(1) == given.classes
    assert right.float().mean() > 0.9


@pytest.mark.parametrize(("settings", "reason"), [({"width": 40}, "must divide by 32"), ({"points": 0}, "above 0")])
def test_settings_that_are_none(settings, reason):
    with pytest.raises(InputError, match=reason):
        Mask2FormerSettings(**settings)
    with pytest.raises(InputError, match="8 queries cannot find 9 classes"):
        Mask2FormerHead(12, 9, TINY)
