"""Crops of EvoTok: the ADM centre crop for validation, the random crop for training (spec section 2.4).

Pixels are bytes (0 to 255) in images and [-1, 1] in tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmzoo.errors import InputError


class ImageSample(Protocol):
    """The part of `data_engine.records.Sample` that is used here: `fields["image"]` is uint8 (H, W, 3)."""

    @property
    def fields(self) -> Mapping[str, Any]: ...


def _pixels(sample: ImageSample) -> np.ndarray:
    if "image" not in sample.fields:
        raise InputError(f"these shards hold {', '.join(sample.fields)}, no images. Name shards of images")
    return sample.fields["image"]


def adm_center_crop(image: Image.Image, size: int) -> Image.Image:
    """The central (size, size) px of `image` after its shorter side was brought to `size` px."""
    image = shorter_side_to(image, size)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def shorter_side_to(image: Image.Image, size: int) -> Image.Image:
    """Scale `image` so that its shorter side has `size` px: halvings by box while they fit, then bicubic."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


def pixels_to_tensor(image: Image.Image | np.ndarray) -> Tensor:
    """RGB bytes (H, W, 3) as float32 (3, H, W) in [-1, 1]."""
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))  # a copy: a decoded image may be read-only
    return pixels.permute(2, 0, 1).float().div(255).sub(0.5).div(0.5).contiguous()


@dataclass(frozen=True)
class CenterCrop:
    """Loader transform for validation: the ADM centre crop, {"image": float32 (3, size, size) in [-1, 1]}."""

    size: int

    def __call__(self, sample: ImageSample, random: np.random.Generator) -> dict[str, Tensor]:
        del random
        return {"image": pixels_to_tensor(adm_center_crop(Image.fromarray(_pixels(sample)), self.size))}


@dataclass(frozen=True)
class TrainingCrop:
    """Loader transform for training: {"image": float32 (3, size, size) in [-1, 1]}.

    The shorter side goes to a random integer of px in [scale_min * size, scale_max * size] (ADM random crop; the
    released recipe has 1 and 1.25), then a random (size, size) crop, flipped left to right with probability `flip`.
    `native_crop` crops without resizing, for few and small photographs; an image smaller than `size` is still enlarged.
    `colour_jitter` j: each channel of [0, 1] is multiplied by a factor in [1 - j, 1 + j], shifted by up to j / 2 and
    clipped: colours that few photographs lack, and a teacher that cannot go by colour alone.
    All chance comes from the generator, in the same number of draws for every image.
    """

    size: int
    scale_min: float = 1.0
    scale_max: float = 1.25
    flip: float = 0.5
    native_crop: bool = False
    colour_jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"TrainingCrop: size is {self.size}; it must be at least 1 px")
        if not 1 <= self.scale_min <= self.scale_max:
            given = f"scale_min {self.scale_min}, scale_max {self.scale_max}"
            raise InputError(f"TrainingCrop: {given}; need 1 <= scale_min <= scale_max")
        if not 0 <= self.flip <= 1:
            raise InputError(f"TrainingCrop: flip is {self.flip}; it is a probability, 0 to 1")
        if not 0 <= self.colour_jitter <= 1:
            raise InputError(f"TrainingCrop: colour_jitter is {self.colour_jitter}; it must lie between 0 and 1")

    def __call__(self, sample: ImageSample, random: np.random.Generator) -> dict[str, Tensor]:
        scale, down, right, flip = random.random(4)
        pixels = _pixels(sample)
        side = self._shorter_side(scale)
        if not self.native_crop or min(pixels.shape[:2]) < self.size:
            pixels = np.asarray(shorter_side_to(Image.fromarray(pixels), side))
        top = int(down * (pixels.shape[0] - self.size + 1))
        left = int(right * (pixels.shape[1] - self.size + 1))
        crop = pixels[top : top + self.size, left : left + self.size]
        image = pixels_to_tensor(crop[:, ::-1] if flip < self.flip else crop)
        return {"image": self._jittered(image, random) if self.colour_jitter else image}

    def _jittered(self, image: Tensor, random: np.random.Generator) -> Tensor:
        factor, shift = (torch.from_numpy(random.uniform(-1, 1, (3, 1, 1)).astype(np.float32)) for _ in range(2))
        jitter = self.colour_jitter
        values = (image + 1) / 2 * (1 + jitter * factor) + jitter / 2 * shift
        return values.clamp(0, 1) * 2 - 1

    def _shorter_side(self, share: float) -> int:
        """A whole number of px in the range, by a random `share` in [0, 1)."""
        if self.native_crop:
            return self.size
        low, high = int(np.ceil(self.scale_min * self.size)), int(self.scale_max * self.size)
        return low + int(share * (high - low + 1))
