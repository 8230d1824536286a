"""The reconstruction measurement, on a tokenizer whose every error is known."""

import math
import random

import pytest
import torch
from torch import nn

from eval_suites.reconstruction.measure import CodeUsage, measure, summarise
from eval_suites.reconstruction.suite import suite
from mmzoo.errors import InputError
from mmzoo.families import load_object
from tokenizers_visual.evotok.configuration import EvoTokConfig
from tokenizers_visual.evotok.contract import example_batch
from tokenizers_visual.evotok.family import TINY
from tokenizers_visual.evotok.modeling import EvoTokModel


class Bits(nn.Module):
    """Codes the value of each patch of 4 x 4 px, one byte, as 8 levels of one bit: a prefix is a coarser byte."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Dropout()
        self.modes = set()

    def encode(self, images):
        self.modes.add((self.training, self.inner.training, torch.is_inference_mode_enabled()))
        levels = images[:, 0, ::4, ::4].add(1).mul(127.5).round().long()
        return torch.stack([levels >> shift & 1 for shift in range(7, -1, -1)], -1), None

    def decode_pixels(self, codes):
        levels = sum(codes[..., i] << (7 - i) for i in range(codes.shape[-1]))
        images = levels.float().div(127.5).sub(1)
        return images[:, None].repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1)


def batch_of(values):
    """One plain 12 x 12 px image per value, which is a byte."""
    images = torch.tensor(values, dtype=torch.float32).div(127.5).sub(1)
    return images[:, None, None, None].expand(-1, 3, 12, 12)


BATCHES = [
    (["a", "b"], batch_of([0b1011_0000, 0b1000_0001])),
    (["a"], batch_of([0b0000_1111])),
    ([], batch_of([])),
    (["c"], batch_of([255])),
]


def test_rows_and_usage_of_known_errors():
    found = measure(Bits(), BATCHES, [8, 4], codebook_size=2)
    assert len(found.rows) == 8
    rows = {(row.group, row.crop, row.levels): row for row in found.rows}
    assert all(rows[group, crop, 8].psnr == math.inf for group, crop in [("a", 0), ("a", 1), ("b", 0), ("c", 0)])
    assert all(rows[group, crop, 8].ssim == 1 for group, crop in [("a", 0), ("a", 1), ("b", 0), ("c", 0)])
    errors = {("a", 0): 0, ("b", 0): 1, ("a", 1): 15, ("c", 0): 15}
    for (group, crop), error in errors.items():
        expected = 20 * math.log10(255 / error) if error else math.inf
        assert rows[group, crop, 4].psnr == pytest.approx(expected), (group, crop)
    shares = [1.0] * 8
    assert [level.share for level in found.usage] == shares
    first = found.usage[0]  # three of the four values begin with a set bit
    assert first == CodeUsage(1, 1.0, pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))), 36)
    assert [level.level for level in found.usage] == list(range(1, 9))


def test_the_summary_leaves_exact_crops_out_and_says_so():
    summary = summarise(measure(Bits(), BATCHES, [4, 8], codebook_size=2).rows)
    assert list(summary) == [4, 8]
    decibels = summary[4]["psnr"]
    expected = (20 * math.log10(255) + 2 * 20 * math.log10(255 / 15)) / 3
    assert decibels.mean == pytest.approx(expected)
    assert (decibels.n_values, decibels.n_groups, decibels.n_infinite) == (3, 3, 1)
    assert decibels.low < decibels.mean < decibels.high
    assert (summary[4]["ssim"].n_values, summary[4]["ssim"].n_groups) == (4, 3)
    assert summary[8]["psnr"].mean == math.inf
    assert summary[8]["psnr"].n_infinite == 4


def test_the_order_of_the_batches_changes_nothing():
    first = measure(Bits(), BATCHES, [1, 3, 8], codebook_size=2)
    shuffled = BATCHES.copy()
    for seed in range(4):
        random.Random(seed).shuffle(shuffled)
        again = measure(Bits(), shuffled, [8, 1, 3], codebook_size=2)
        assert again.usage == first.usage
        assert summarise(again.rows) == summarise(first.rows)


def test_the_model_is_in_evaluation_mode_meanwhile_and_as_it_was_afterwards():
    model = Bits().train()
    model.inner.eval()
    measure(model, BATCHES, [1], codebook_size=2)
    assert model.modes == {(False, False, True)}
    assert (model.training, model.inner.training) == (True, False)
    with pytest.raises(InputError):
        measure(model, BATCHES, [9], codebook_size=2)
    assert model.training


@pytest.mark.parametrize(
    ("batches", "levels", "words"),
    [
        (BATCHES, [], "give one or more"),
        (BATCHES, [0, 1], "give one or more"),
        (BATCHES, [9], "levels 1 to 8"),
        ([], [1], "no images"),
        ([(["a"], batch_of([1])[..., :8])], [1], "at least 11 px"),
        ([(["a"], torch.zeros(1, 3, 13, 12))], [1], "images of 13x12 px come back as 16x12 px"),
    ],
)
def test_a_users_mistake_is_named(batches, levels, words):
    with pytest.raises(InputError, match=words):
        measure(Bits(), batches, levels, codebook_size=2)


def test_a_callers_mistake_is_a_fault():
    with pytest.raises(ValueError, match="2 group names for 1 images"):
        measure(Bits(), [(["a", "b"], batch_of([1]))], [1], codebook_size=2)
    with pytest.raises(ValueError, match="code 1 is outside a codebook of 1"):
        measure(Bits(), BATCHES, [1], codebook_size=1)


@pytest.mark.filterwarnings("ignore:the pixel decoder was trained on")
def test_a_real_tokenizer_fits_the_protocol_and_learns_nothing():
    torch.manual_seed(0)
    model = EvoTokModel(EvoTokConfig(**TINY)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = example_batch(model.config, 4, seed=0)["pixel_values"]
    found = measure(model, [(list("aabb"), images)], [1, 2, 4], codebook_size=model.config.codebook_size)
    assert len(found.rows) == 12
    assert all(0 < row.psnr < 60 for row in found.rows)
    assert all(usage.positions == 64 and 1 <= usage.perplexity <= 64 for usage in found.usage)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_suite_points_at_its_measure():
    assert load_object(suite.measure) is measure
    assert suite.name == "reconstruction"
