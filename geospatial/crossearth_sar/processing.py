"""Rasters in: the image processor saved beside a model, which refuses values of another kind than it was made for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from geospatial.crossearth_sar.configuration import CrossEarthSARConfig
from geospatial.crossearth_sar.scaling import normalized
from geospatial.sar.domains import PHYSICAL, check_domain, check_name, convert, refuse_complex, valid_pixels
from mmzoo.errors import InputError, suggestion

FITS = ("none", "center_crop")
NETWORK_BANDS = 3


class CrossEarthSARImageProcessor(BaseImageProcessor):
    """Rasters -> `pixel_values` float32 (B, 3, H, W) and `valid` bool (B, H, W).

    Arrays and tensors are (H, W) or (bands, H, W), as rasterio reads them; PIL pictures are (H, W) or three bands.
    `bands`: which one or three of them, counted from 1 (None: all, when there are one or three); one is replicated.
    `domain`, `value_range`, `image_mean`, `image_std`: as in the configuration. `nodata`: a value that is no
    measurement; values that are not finite never are. Invalid pixels become 0, the mean, and are false in `valid`.
    Nothing is resized, which would change the speckle; `fit`: "none", or "center_crop" to `image_size` px.
    """

    model_input_names = ["pixel_values", "valid"]  # noqa: RUF012 - transformers' own attribute

    def __init__(
        self,
        image_size: int = 512,
        domain: str = "display8",
        value_range: Sequence[float] = (0.0, 255.0),
        bands: Sequence[int] | None = None,
        nodata: float | None = None,
        fit: str = "none",
        image_mean: Sequence[float] = (0.485, 0.456, 0.406),
        image_std: Sequence[float] = (0.229, 0.224, 0.225),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # The configuration's checks are the processor's.
        checked = CrossEarthSARConfig(
            image_size=image_size,
            patch_size=1,
            domain=domain,
            value_range=list(value_range),
            image_mean=list(image_mean),
            image_std=list(image_std),
        )
        self.image_size, self.domain, self.nodata = checked.image_size, checked.domain, nodata
        self.value_range = list(checked.value_range)
        self.image_mean, self.image_std = list(checked.image_mean), list(checked.image_std)
        self.bands, self.fit = _checked_bands(bands), _checked_fit(fit)

    @classmethod
    def for_config(cls, config: CrossEarthSARConfig) -> CrossEarthSARImageProcessor:
        """The processor that a model of this configuration goes with."""
        return cls(
            image_size=config.image_size,
            domain=config.domain,
            value_range=config.value_range,
            image_mean=config.image_mean,
            image_std=config.image_std,
        )

    def preprocess(  # pyright: ignore[reportIncompatibleMethodOverride] - only what applies here
        self,
        images: Any,
        *,
        domain: str | None = None,
        bands: Sequence[int] | None = None,
        nodata: float | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """One raster or a list of them. `domain`: of these values, when it is not the processor's: intensity, amplitude
        and db are converted into one another. InputError: values that the domain cannot hold, complex values, bands
        that are not there or not chosen, several sizes in one batch.
        """
        listed = list(images) if isinstance(images, list | tuple) else [images]
        if not listed:
            raise InputError("image processor: no images given")
        source = self.domain if domain is None else domain
        self._check_conversion(source)
        chosen = self.bands if bands is None else _checked_bands(bands)
        missing = self.nodata if nodata is None else nodata
        rasters = [self._raster(image, source, chosen, missing) for image in listed]
        sizes = {tuple(valid.shape) for _, valid in rasters}
        if len(sizes) > 1:
            raise InputError(
                f"image processor: one batch cannot hold rasters of {len(sizes)} sizes "
                f"({', '.join(f'{height}x{width}' for height, width in sorted(sizes)[:3])} px); "
                f"process them one by one, or choose fit 'center_crop'"
            )
        valid = torch.stack([each for _, each in rasters])
        pixels = normalized(torch.stack([values for values, _ in rasters]), valid, self)
        return BatchFeature({"pixel_values": pixels, "valid": valid}, tensor_type=return_tensors)

    def _check_conversion(self, source: str) -> None:
        check_name(source)
        if source != self.domain and not {source, self.domain} <= set(PHYSICAL):
            raise InputError(
                f"image processor: the model takes {self.domain} values and {source} cannot be converted to that. "
                f"Give {self.domain}."
            )

    def _raster(self, image: Any, source: str, bands: list[int] | None, nodata: float | None) -> tuple[Tensor, Tensor]:
        """Values (3, H, W) in the processor's domain, and where all of them are measurements (H, W)."""
        values = _chosen(_as_tensor(image), bands)
        if self.fit == "center_crop":
            values = _center(values, self.image_size)
        valid = valid_pixels(values, nodata).all(0)
        check_domain(values, source, valid)
        if source != self.domain:
            values = convert(values, source, self.domain)
            valid = valid & torch.isfinite(values).all(0)  # power 0 has no decibels
        return values.expand(NETWORK_BANDS, -1, -1), valid


def _as_tensor(image: Any) -> Tensor:
    """Any raster as float32 (bands, H, W)."""
    if isinstance(image, Tensor):
        refuse_complex(image)
        image = image.detach().cpu().float().numpy()
    array = np.asarray(image) if isinstance(image, Image.Image) else image
    if not isinstance(array, np.ndarray) or array.ndim not in (2, 3) or 0 in array.shape:
        given = f"{type(image).__name__} {getattr(array, 'shape', '')}".strip()
        raise InputError(f"image processor: got {given}; expected PIL images or arrays (H, W) or (bands, H, W)")
    if array.dtype.kind not in "biufc":
        raise InputError(f"image processor: got an array of {array.dtype}; expected numbers")
    if array.dtype.kind == "c":
        refuse_complex(torch.from_numpy(np.ascontiguousarray(array)))
    if isinstance(image, Image.Image) and array.ndim == 3:
        array = np.moveaxis(array, -1, 0)
    values = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    return values if values.ndim == 3 else values.unsqueeze(0)


def _chosen(values: Tensor, bands: list[int] | None) -> Tensor:
    count = len(values)
    if bands is None:
        if count in (1, NETWORK_BANDS):
            return values
        raise InputError(f"image processor: the raster has {count} bands and none are chosen. Say bands=[1], or three.")
    wrong = [band for band in bands if band > count]
    if wrong:
        raise InputError(f"image processor: there is no band {wrong[0]} in a raster of {count}; they count from 1")
    return values[[band - 1 for band in bands]]


def _center(values: Tensor, size: int) -> Tensor:
    height, width = values.shape[-2:]
    if min(height, width) < size:
        raise InputError(
            f"image processor: a raster of {height}x{width} px has no centre of {size} px. Use fit 'none'."
        )
    top, left = (height - size) // 2, (width - size) // 2
    return values[:, top : top + size, left : left + size]


def _checked_bands(bands: Sequence[int] | None) -> list[int] | None:
    if bands is None:
        return None
    sound = not isinstance(bands, str) and len(bands) in (1, NETWORK_BANDS)
    if not sound or not all(isinstance(band, int) and not isinstance(band, bool) and band > 0 for band in bands):
        raise InputError(f"image processor: bands is {bands!r}. Give one or three band numbers, counted from 1.")
    return list(bands)


def _checked_fit(fit: str) -> str:
    if fit not in FITS:
        raise InputError(f"image processor: unknown fit {fit!r}.{suggestion(fit, FITS)}")
    return fit
