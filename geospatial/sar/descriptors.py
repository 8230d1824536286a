"""Three numbers that say how a radar image was taken and what it shows: directional entropy, looks, local roughness.

    H    -sum p ln p over the histogram p of gradient directions (3x3 Sobel), in nats: 0 for one edge, ln K for speckle
    ENL  mean^2 / variance, the equivalent number of looks: high where speckle is weak
    R    variance of the means of blocks, in squared units of X: high where the scene changes from place to place

X is taken from the image by its domain:

    intensity, amplitude, db   linear power, so one scene gives the same numbers in all three, and ENL is physical
    log1p                      ln(1 + |image|), as the paper has it; depends on the units: keep them fixed
    display8                   ln(1 + image / 255)

Source: CrossEarth-SAR (arXiv 2603.12008), spec sections 1.3, 5.2 to 5.6 and 9. Everything is float32 on the image's
device, without a copy to the host; sums are of deviations from the mean, so bright targets cost no accuracy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from geospatial.sar.descriptor_statistics import DescriptorStatistics
from geospatial.sar.domains import PHYSICAL, check_domain, check_name, refuse_complex, to_power
from geospatial.sar.gradient_directions import direction_histogram
from mmzoo.errors import InputError, suggestion

Scope = Literal["image", "scene"]
#: A block with fewer valid pixels than this share says nothing about its mean.
BLOCK_VALID_SHARE = 0.5


@dataclass(frozen=True)
class DescriptorSettings:
    """What the paper leaves open. InputError for values outside their range."""

    bins: int = 16
    """K, of the direction histogram; bins are centred on the axes."""
    period: Literal["direction", "orientation"] = "direction"
    """direction: angles over 2 pi; orientation: opposite directions are one, over pi."""
    weight: Literal["one", "magnitude"] = "one"
    tau: float = 1e-6
    """Gradients up to tau * their mean magnitude have no direction. Not of their maximum: one corner reflector would
    silence calm water."""
    block: int = 16
    """Side of the blocks of R in pixels; rows and columns that fill no block are left out."""
    enl_max: float = 1e4
    """ENL of an image without any variance."""
    scaling: Literal["none", "log"] = "none"
    """log, for a router: H / ln K, ln(1 + ENL), ln(1 + R / mean^2)."""

    def __post_init__(self) -> None:
        if self.bins < 2 or self.block < 1 or self.tau < 0 or self.enl_max <= 0:
            raise InputError(f"descriptors need bins >= 2, block >= 1, tau >= 0 and enl_max > 0, not {self}")
        for name, known in (
            ("period", ("direction", "orientation")),
            ("weight", ("one", "magnitude")),
            ("scaling", ("none", "log")),
        ):
            if getattr(self, name) not in known:
                raise InputError(f"unknown {name} {getattr(self, name)!r}.{suggestion(getattr(self, name), known)}")


DEFAULTS = DescriptorSettings()


@torch.no_grad()
def physical_descriptors(
    image: Tensor,
    domain: str,
    valid: Tensor | None = None,
    scope: Scope = "image",
    band: int | Literal["mean"] | None = None,
    settings: DescriptorSettings = DEFAULTS,
) -> Tensor:
    """(B, 3) float32: H, ENL and R of each image (B, C, H, W), or of all of them as tiles of one scene.

    `valid` (B, H, W) or (B, 1, H, W) boolean; pixels that are not finite are invalid anyway. `band` is needed when
    C > 1: an index, or "mean" for the mean of all bands' X (power, in the physical domains: the span over C).
    `scope="scene"` pools the batch and repeats its three numbers B times; a scene in several calls is pooled with
    `descriptor_statistics`. An image without two valid pixels gives (0, 1, 0).
    InputError: complex or wrongly shaped images, an unknown name, and on a CPU values that `domain` cannot hold
    (`check_domain`; on other devices that would wait for the device, so check there before).
    """
    if scope not in get_args(Scope):
        raise InputError(f"unknown scope {scope!r} of descriptors.{suggestion(scope, get_args(Scope))}")
    statistics = descriptor_statistics(image, domain, valid, band, settings)
    if scope == "scene":
        return descriptors_of(statistics.pooled(), settings).expand(image.shape[0], 3)
    return descriptors_of(statistics, settings)


@torch.no_grad()
def descriptor_statistics(
    image: Tensor,
    domain: str,
    valid: Tensor | None = None,
    band: int | Literal["mean"] | None = None,
    settings: DescriptorSettings = DEFAULTS,
) -> DescriptorStatistics:
    """What `descriptors_of` needs, image by image, and what tiles of one scene may be pooled from. See above."""
    values, usable = chosen_values(image, domain, valid, band)
    count = usable.sum((1, 2)).float()
    mean = values.sum((1, 2)) / count.clamp(min=1)
    deviation = (values - mean[:, None, None]).mul_(usable)
    block_count, block_mean, block_squares = _block_moments(deviation, usable, settings.block)
    return DescriptorStatistics(
        histogram=direction_histogram(deviation, usable, settings.bins, settings.period, settings.weight, settings.tau),
        count=count,
        mean=mean,
        squares=deviation.square().sum((1, 2)),
        blocks=block_count,
        block_mean=mean + block_mean,
        block_squares=block_squares,
    )


def descriptors_of(statistics: DescriptorStatistics, settings: DescriptorSettings = DEFAULTS) -> Tensor:
    """(B, 3) from statistics, scaled as the settings say."""
    entropy, looks, roughness = statistics.entropy(), statistics.looks(settings.enl_max), statistics.roughness()
    if settings.scaling == "log":
        entropy = entropy / math.log(settings.bins)
        looks = looks.log1p()
        roughness = (roughness / statistics.mean.square().clamp(min=torch.finfo(torch.float32).tiny)).log1p()
    return torch.stack((entropy, looks, roughness), 1)


def chosen_values(image: Tensor, domain: str, valid: Tensor | None, band: int | str | None) -> tuple[Tensor, Tensor]:
    """X (B, H, W) float32 with 0 where it is invalid, and the boolean mask of what is valid."""
    check_name(domain)
    refuse_complex(image)
    bands = _chosen(image, band)
    usable = torch.isfinite(bands).all(1)
    if valid is not None:
        usable = usable & _as_mask(valid, image)
    if image.device.type == "cpu" and not torch.compiler.is_compiling():
        check_domain(bands, domain, usable[:, None])
    bands = torch.where(usable[:, None], bands, 0).float()
    if domain in PHYSICAL:
        values = to_power(bands, domain)
    else:
        values = (bands.abs() if domain == "log1p" else bands / 255).log1p()
    values = values[:, 0] if values.shape[1] == 1 else values.mean(1)
    return values.mul_(usable) if domain == "db" else values, usable  # 0 dB is 1 in power


def _chosen(image: Tensor, band: int | str | None) -> Tensor:
    if image.ndim != 4:
        raise InputError(f"descriptors need images (B, C, H, W), not {tuple(image.shape)}")
    bands = image.shape[1]
    if band == "mean" or (band is None and bands == 1):
        return image
    if isinstance(band, int) and -bands <= band < bands:
        return image.narrow(1, band % bands, 1)
    if band is None:
        raise InputError(
            f"the image has {bands} bands and descriptors are of one. Say band=0 to {bands - 1}, or 'mean'"
        )
    raise InputError(f"there is no band {band!r} among {bands}. Say band=0 to {bands - 1}, or 'mean'")


def _as_mask(valid: Tensor, image: Tensor) -> Tensor:
    batch, _, height, width = image.shape
    if valid.ndim == 4 and valid.shape[1] == 1:
        valid = valid[:, 0]
    if valid.shape != (batch, height, width):
        raise InputError(f"the valid mask is {tuple(valid.shape)}, the image asks for {(batch, height, width)}")
    if valid.dtype != torch.bool:
        raise InputError(f"the valid mask is {valid.dtype}, a boolean one is needed")
    return valid


def _block_moments(deviation: Tensor, usable: Tensor, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """Number of blocks, mean of their means and squared deviations from it, each (B,), of `deviation` (B, H, W)."""
    rows, columns = deviation.shape[1] // block, deviation.shape[2] // block

    def sums(pixels: Tensor) -> Tensor:
        whole = pixels[:, : rows * block, : columns * block]
        return whole.reshape(len(pixels), rows, block, columns, block).sum((2, 4))

    pixels = sums(usable.float())
    counted = (pixels >= max(1.0, BLOCK_VALID_SHARE * block**2)).float()
    means = sums(deviation) / pixels.clamp(min=1) * counted
    count = counted.sum((1, 2))
    mean = means.sum((1, 2)) / count.clamp(min=1)
    return count, mean, ((means - mean[:, None, None]).square() * counted).sum((1, 2))
