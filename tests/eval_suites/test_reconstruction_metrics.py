"""PSNR and SSIM against closed forms, skimage and a plainly written SSIM."""

import numpy as np
import pytest
import torch
from skimage.data import astronaut
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from eval_suites.metrics.reconstruction import psnr, ssim, ssim_range_2, to_bytes, to_tensor
from mmzoo.errors import InputError


@pytest.fixture
def pair():
    """Three photographs of 40 x 30 px, and noisy copies."""
    crops = np.stack([astronaut()[top : top + 40, 180:210] for top in (0, 60, 200)])
    noise = np.random.default_rng(0).normal(0, 12, crops.shape)
    return crops, np.clip(crops + noise, 0, 255).round().astype(np.uint8)


def test_every_byte_survives_the_way_through_the_unit_range():
    levels = torch.arange(256, dtype=torch.float32)
    images = levels.div(255).sub(0.5).div(0.5).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert to_bytes(images)[0, :, :, 1].ravel().tolist() == list(range(256))


def test_bytes_are_clamped_rounded_and_channels_last():
    images = torch.tensor([-1.7, 1.3, 0.0, 0.6 / 127.5, -0.6 / 127.5]).reshape(1, 1, 1, 5).repeat(1, 3, 1, 1)
    images[:, 2] = 1
    found = to_bytes(images)
    assert (found.shape, found.dtype) == ((1, 1, 5, 3), np.uint8)
    assert found[0, 0, :, 0].tolist() == [0, 255, 128, 128, 127]
    assert (found[..., 2] == 255).all()


def test_a_diverged_model_is_named():
    with pytest.raises(InputError, match="NaN"):
        to_bytes(torch.full((1, 3, 4, 4), torch.nan))


def test_psnr_closed_forms():
    black = np.zeros((3, 2, 2, 3), np.uint8)
    other = black.copy()
    other[1] = 255
    other[2, 0, 0, 0] = 12  # mean squared error 144 / 12
    expected = [np.inf, 0.0, 10 * np.log10(255**2 / 12)]
    assert psnr(black, other).tolist() == pytest.approx(expected)
    assert psnr(other, black).tolist() == psnr(black, other).tolist()


def test_psnr_equals_skimage(pair):
    expected = [peak_signal_noise_ratio(a, b, data_range=255) for a, b in zip(*pair, strict=True)]
    assert psnr(*pair).tolist() == pytest.approx(expected, abs=1e-9)


def plain_ssim(a, b):
    """Wang et al. 2004, equation 13, one channel, window by window."""
    offsets = np.arange(-5, 6)
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    similarities = []
    for top in range(a.shape[0] - 10):
        for left in range(a.shape[1] - 10):
            x, y = (side[top : top + 11, left : left + 11].astype(np.float64) for side in (a, b))
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            together = (window * (x - mx) * (y - my)).sum()
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            similarities.append((2 * mx * my + c1) * (2 * together + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return np.mean(similarities)


def test_ssim_is_the_definition(pair):
    expected = [np.mean([plain_ssim(a[..., c], b[..., c]) for c in range(3)]) for a, b in zip(*pair, strict=True)]
    assert ssim(*pair).tolist() == pytest.approx(expected, abs=1e-6)


def test_ssim_is_skimages(pair):
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    expected = [structural_similarity(a, b, channel_axis=-1, **settings) for a, b in zip(*pair, strict=True)]
    assert ssim(*pair).tolist() == pytest.approx(expected, abs=1e-6)


def test_the_lineages_ssim_is_what_its_code_computes_and_above_the_right_range(pair):
    floats = [[image.astype(np.float32) / 255.0 for image in side] for side in pair]
    expected = [structural_similarity(a, b, data_range=2.0, channel_axis=-1) for a, b in zip(*floats, strict=True)]
    assert ssim_range_2(*pair).tolist() == pytest.approx(expected, abs=1e-5)
    right = [structural_similarity(a, b, data_range=1.0, channel_axis=-1) for a, b in zip(*floats, strict=True)]
    assert (ssim_range_2(*pair) > np.array(right) + 0.01).all()
    with pytest.raises(InputError, match="at least 7 px"):
        ssim_range_2(pair[0][:, :6], pair[1][:, :6])


def test_bytes_to_tensor_and_back():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    tensor = to_tensor(images)
    assert (tensor.shape, tensor.min().item(), tensor.max().item()) == ((1, 3, 16, 16), -1.0, 1.0)
    assert np.array_equal(to_bytes(tensor), images)


def test_ssim_of_equal_and_of_smallest_images(pair):
    assert ssim(pair[0], pair[0]).tolist() == [1.0] * 3
    assert ssim(pair[0][:, :11, :11], pair[1][:, :11, :11]).shape == (3,)
    with pytest.raises(InputError, match="at least 11 px a side; these have 30x10 px"):
        ssim(pair[0][:, :30, :10], pair[1][:, :30, :10])


@pytest.mark.parametrize("metric", [psnr, ssim, ssim_range_2])
def test_floats_and_unequal_shapes_are_refused(metric, pair):
    with pytest.raises(ValueError, match="uint8"):
        metric(pair[0].astype(np.float32), pair[1])
    with pytest.raises(ValueError, match="both sides"):
        metric(pair[0], pair[1][:2])
