"""Pictures in and out of EvoTok: the image processor that is saved beside a model (spec section 2.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from data_engine.decode import image_pixels
from mmzoo.errors import InputError, suggestion
from tokenizers_visual.evotok.crops import CenterCrop, TrainingCrop, adm_center_crop, pixels_to_tensor

__all__ = ["CenterCrop", "EvoTokImageProcessor", "TrainingCrop", "adm_center_crop", "to_rgb"]

RESIZE_MODES = ("adm_center_crop", "stretch", "none")


def to_rgb(image: Image.Image | np.ndarray) -> Image.Image:
    """Any picture as RGB, by the data engine's image rules (EXIF applied, alpha dropped, grey replicated, ...).

    Arrays are uint8 (H, W), (H, W, 3) or (H, W, 4).
    """
    image = _array_to_image(image) if isinstance(image, np.ndarray) else image
    if not isinstance(image, Image.Image):
        raise InputError(f"image processor: got {type(image).__name__}; expected PIL images or uint8 arrays")
    return Image.fromarray(image_pixels(image))


def _array_to_image(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        given = f"an array of {pixels.dtype} with shape {pixels.shape}"
        raise InputError(f"image processor: {given}; expected uint8 (H, W), (H, W, 3) or (H, W, 4)")
    return Image.fromarray(pixels)


class EvoTokImageProcessor(BaseImageProcessor):
    """PIL images or uint8 arrays -> `pixel_values` float32 (B, 3, H, W) in [-1, 1], and back by `postprocess`.

    `resize_mode`: "adm_center_crop" (shorter side to `image_size` px, centre crop), "stretch" (both sides to
    `image_size` px, bicubic) or "none" (as it is; a batch must then have one size).
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012 - transformers' own attribute

    def __init__(self, image_size: int = 256, resize_mode: str = "adm_center_crop", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if image_size < 1:
            raise InputError(f"image processor: image_size is {image_size}; it must be at least 1 px")
        self.image_size, self.resize_mode = image_size, _checked_mode(resize_mode)

    def preprocess(  # pyright: ignore[reportIncompatibleMethodOverride] - only what applies here
        self,
        images: Any,
        *,
        image_size: int | None = None,
        resize_mode: str | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """One image or a sequence of them; the settings may be overridden for this call."""
        images = list(images) if isinstance(images, Sequence) else [images]
        if not images:
            raise InputError("image processor: no images given")
        size, mode = image_size or self.image_size, _checked_mode(resize_mode or self.resize_mode)
        tensors = [pixels_to_tensor(_resize(to_rgb(image), size, mode)) for image in images]
        shapes = {tuple(tensor.shape[1:]) for tensor in tensors}
        if len(shapes) > 1:
            sizes = ", ".join(f"{height}x{width}" for height, width in sorted(shapes)[:3])
            raise InputError(
                f"image processor: one batch cannot hold images of {len(shapes)} sizes ({sizes} px) with resize_mode "
                "'none'; process them one by one, or choose 'adm_center_crop' or 'stretch'"
            )
        return BatchFeature({"pixel_values": torch.stack(tensors)}, tensor_type=return_tensors)

    def postprocess(self, pixel_values: Tensor) -> list[Image.Image]:
        """(B, 3, H, W) in [-1, 1] (clamped) -> RGB images, every value rounded to the nearest byte."""
        if pixel_values.ndim != 4 or pixel_values.shape[1] != 3:
            raise InputError(f"image processor: shape {tuple(pixel_values.shape)}; expected (B, 3, H, W)")
        scaled = pixel_values.detach().float().clamp(-1, 1).add(1).mul(127.5).round()
        return [Image.fromarray(pixels) for pixels in scaled.to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()]


def _checked_mode(mode: str) -> str:
    if mode not in RESIZE_MODES:
        raise InputError(f"image processor: unknown resize_mode {mode!r}.{suggestion(mode, RESIZE_MODES)}")
    return mode


def _resize(image: Image.Image, size: int, mode: str) -> Image.Image:
    if mode == "adm_center_crop":
        return adm_center_crop(image, size)
    return image.resize((size, size), Image.Resampling.BICUBIC) if mode == "stretch" else image
