"""One batch of images through a tokenizer and back, and everything that is said of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eval_suites.metrics.code_rate import stored_bits
from eval_suites.metrics.image_codecs import CODECS, Encodings
from eval_suites.metrics.reconstruction import psnr, ssim, ssim_range_2, to_bytes, to_tensor
from eval_suites.metrics.semantics import mean_cosine
from eval_suites.reconstruction.kinds import COUNTINGS
from eval_suites.reconstruction.measure import encoded, refuse_not_finite
from eval_suites.reconstruction.networks import Networks
from eval_suites.reconstruction.settings import Settings
from mmzoo.errors import InputError


@dataclass(frozen=True)
class Reading:
    """Which image, its bootstrap group, and its size in px before any resize."""

    key: str
    group: str
    height: int
    width: int


@dataclass(frozen=True)
class Loaded:
    """An image ready to be encoded: `pixels` uint8 (H, W, 3)."""

    reading: Reading
    pixels: np.ndarray


@dataclass(frozen=True)
class MeasuredSample:
    """What one image gives. codes (h, w, L) int32; features: Inception's of the image and of each output, by level
    (0: the image), empty without Inception; size (H, W) in px as measured.
    """

    reading: Reading
    size: tuple[int, int]
    values: dict[str, float]
    codes: np.ndarray
    features: dict[int, np.ndarray]


class Measuring:
    """A model under measurement. See README.md for every definition."""

    def __init__(self, model: Any, settings: Settings, networks: Networks, device: torch.device) -> None:
        self.model = model
        self.settings = settings
        self.networks = networks
        self.device = device

    def batch(self, images: Sequence[Loaded]) -> list[MeasuredSample]:
        """All figures of images of one size. InputError: levels that are not there, outputs of another size."""
        truth = np.stack([image.pixels for image in images])
        tensors = to_tensor(truth).to(self.device)
        codes = encoded(self.model, tensors)
        self._check(codes)
        values: dict[str, np.ndarray] = {}
        features = {0: self.networks.inception.features(truth)} if self.networks.inception else {}
        for level in self.settings.levels:
            decoded = self._decode(codes[..., :level], truth)
            values |= {f"{name}@{level}": found for name, found in self._compare(truth, decoded).items()}
            if self.networks.inception:
                features[level] = self.networks.inception.features(decoded)
        values |= self._semantics(codes, tensors)
        numbers = codes.to(torch.int32).cpu().numpy()
        samples = []
        for index, image in enumerate(images):
            own = {name: float(found[index]) for name, found in values.items()} | self._rates(
                image.pixels, numbers[index]
            )
            seen = {level: found[index] for level, found in features.items()}
            height, width = image.pixels.shape[:2]
            samples.append(MeasuredSample(image.reading, (height, width), own, numbers[index], seen))
        return samples

    def _check(self, codes: Tensor) -> None:
        wanted, size = self.settings.levels[-1], self.settings.codebook_size
        if wanted > codes.shape[-1]:
            raise InputError(f"level {wanted} was asked for; this model has levels 1 to {codes.shape[-1]}.")
        if int(codes.max()) >= size or int(codes.min()) < 0:
            raise ValueError(f"codes {int(codes.min())} to {int(codes.max())} are outside a codebook of {size}")

    def _decode(self, codes: Tensor, truth: np.ndarray) -> np.ndarray:
        decoded = to_bytes(refuse_not_finite(self.model.decode_pixels(codes), f"output from {codes.shape[-1]} levels"))
        if decoded.shape != truth.shape:
            sizes = [f"{side.shape[1]}x{side.shape[2]} px" for side in (truth, decoded)]
            raise InputError(
                f"images of {sizes[0]} come back as {sizes[1]}. Choose a --resize that this tokenizer gives back."
            )
        return decoded

    def _compare(self, truth: np.ndarray, decoded: np.ndarray) -> dict[str, np.ndarray]:
        found = {
            "psnr": psnr(truth, decoded),
            "ssim": ssim(truth, decoded),
            "ssim_range2": ssim_range_2(truth, decoded),
        }
        for name, network in self.networks.lpips.items():
            found[f"lpips_{name}"] = network.distances(truth, decoded)
        return found

    def _semantics(self, codes: Tensor, images: Tensor) -> dict[str, np.ndarray]:
        if self.networks.teacher is None:
            return {}
        wanted = self.networks.teacher(images, (int(codes.shape[1]), int(codes.shape[2])))
        read_out = {level: self.model.decode_semantics(codes[..., :level]) for level in self.settings.levels}
        return {f"semantic_cosine@{level}": mean_cosine(found, wanted) for level, found in read_out.items()}

    def _rates(self, pixels: np.ndarray, codes: np.ndarray) -> dict[str, float]:
        """Bits per pixel of the codes at each level, and what the codecs make of as many bits."""
        area = pixels.shape[0] * pixels.shape[1]
        encodings = {name: Encodings(CODECS[name], pixels) for name in self.settings.codecs}
        values: dict[str, float] = {}
        for level in self.settings.levels:
            bits = stored_bits(codes.shape[:2], level, self.settings.codebook_size)
            values[f"bpp@{level}"] = bits / area
            for name, tried in encodings.items():
                for suffix, with_header in COUNTINGS.items():
                    found = _codec_values(tried, bits / 8, with_header)
                    values |= {f"{name}{suffix}_{kind}@{level}": value for kind, value in found.items()}
        return values


def _codec_values(tried: Encodings, budget: float, with_header: bool) -> dict[str, float]:
    """The codec's best within a budget of bytes; over_budget 1 where its lowest quality needs more than that."""
    fitted = tried.fit(budget, with_header=with_header)
    counted = fitted.size - (0 if with_header else fitted.header)
    pair = tried.pixels[None], fitted.pixels[None]
    return {
        "bpp": 8 * counted / (tried.pixels.shape[0] * tried.pixels.shape[1]),
        "psnr": float(psnr(*pair)[0]),
        "ssim": float(ssim(*pair)[0]),
        "over_budget": float(fitted.over),
    }
