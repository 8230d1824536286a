"""How an image is brought to a size that a tokenizer takes; what was done is stated in every record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import PIL
from PIL import Image

from data_engine.decode import MAX_PIXELS
from mmzoo.errors import InputError

#: px of a side. A batch of 16 such images is 3 GB as float32: more is a slip of the finger.
LARGEST_SIDE = 4096
How = Literal["none", "crop", "square"]


@dataclass(frozen=True)
class Resize:
    """`how`: "none", the image as it is; "crop", its middle, the largest multiple of `size` px in both directions, no
    pixel resampled; "square", its shorter side brought to `size` px by Pillow's bicubic filter (antialiased), then the
    middle `size` x `size` px. Smaller images are enlarged by "square" and refused by "crop".
    """

    how: How
    size: int | None = None

    def __post_init__(self) -> None:
        if self.how not in ("none", "crop", "square"):
            raise InputError(f"resize {self.how!r} is unknown. Give none, crop or square.")
        if self.size is not None and self.size > LARGEST_SIDE:
            raise InputError(f"resize to {self.size} px: give at most {LARGEST_SIDE} px.")
        if (self.size is None) != (self.how == "none") or (self.size is not None and self.size < 1):
            raise InputError(
                f"resize {self.how!r} with size {self.size}: crop and square need px from 1 up, none has none."
            )

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) -> uint8 (h, w, 3), contiguous. InputError: smaller than one crop."""
        if self.size is None:
            return pixels
        if self.how == "square":
            return np.ascontiguousarray(_middle(_shorter_side_to(pixels, self.size), self.size, self.size))
        height, width = (side // self.size * self.size for side in pixels.shape[:2])
        if not height or not width:
            raise InputError(
                f"an image of {pixels.shape[0]}x{pixels.shape[1]} px holds no crop of {self.size} px. Resize."
            )
        return np.ascontiguousarray(_middle(pixels, height, width))

    def describe(self) -> dict[str, Any]:
        """For the record. The library's version is named only where it makes pixels."""
        if self.how != "square":
            return {"how": self.how, "size": self.size}
        filtered = f"bicubic, antialiased, Pillow {PIL.__version__}"
        return {"how": "shorter side, then centre crop", "size": self.size, "filter": filtered}


def _middle(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def _shorter_side_to(pixels: np.ndarray, size: int) -> np.ndarray:
    scale = size / min(pixels.shape[:2])
    height, width = (max(size, round(side * scale)) for side in pixels.shape[:2])
    if height * width > MAX_PIXELS:
        raise InputError(
            f"an image of {pixels.shape[0]}x{pixels.shape[1]} px would become {height}x{width} px, more than "
            f"{MAX_PIXELS:,} in all. Take it out, or give a smaller --resize."
        )
    if (height, width) == pixels.shape[:2]:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
