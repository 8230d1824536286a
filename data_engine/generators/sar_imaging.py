"""How a radar sees a landscape: reflectivity, speckle, point response, noise. `sar_scenes` says what is left out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from data_engine.generators.backscatter import IGNORE, TEXTURE, mean_backscatter
from data_engine.generators.gaussian_fields import filtered, margin, smooth_noise
from data_engine.generators.region_maps import Regions, make_regions
from data_engine.generators.sar_sensors import Sensor
from mmzoo.errors import InputError, suggestion

SceneDomain = Literal["intensity", "amplitude", "db", "display8", "complex"]
#: Powers of a wall relative to its building, and of a corner relative to the wall it stands on.
WALL_GAIN, CORNER_GAIN = 10.0, 30.0
#: Metres over which texture is alike.
TEXTURE_METRES = 15.0
#: display8 shows the amplitude from 0 to this quantile of it, as viewers stretch it.
DISPLAY_QUANTILE = 0.99


@dataclass(frozen=True)
class SceneRecipe:
    """What the ground and the product are like. InputError for what cannot be made."""

    size: tuple[int, int] = (256, 256)
    """Pixels, rows and columns."""
    domain: SceneDomain = "intensity"
    """complex: single look, whatever the sensor's looks are."""
    field_variation: float = 1.0
    """Standard deviation in dB of the level of a field around its class."""
    edge: float = 0.0
    """Share of the columns, at most, beyond the slanting end of the swath: no data there."""

    def __post_init__(self) -> None:
        if self.domain not in get_args(SceneDomain):
            raise InputError(f"scenes are not made in {self.domain!r}.{suggestion(self.domain, get_args(SceneDomain))}")
        if min(self.size) < 16 or self.field_variation < 0 or not 0 <= self.edge < 1:
            raise InputError(f"scenes need 16 pixels a side, variation >= 0 and an edge in [0, 1), not {self}")


@dataclass(frozen=True)
class Scene:
    """`image` (P, H, W) in the recipe's domain, polarisations in the sensor's order; NaN (display8: 0) means no data.
    `mask` (H, W) uint8 in CLASSES, 255 where there is no data; `reflectivity` (P, H, W), the power before imaging;
    `incidence` (W,) in degrees.
    """

    image: NDArray
    mask: NDArray[np.uint8]
    reflectivity: NDArray[np.float64]
    incidence: NDArray[np.float64]


def make_scene(seed: int, number: int, sensor: Sensor, recipe: SceneRecipe) -> Scene:
    """Scene `number` of the series `seed`, seen by `sensor`. The ground depends on the sensor's pixel spacing too."""
    random = np.random.default_rng([seed, number])
    regions = make_regions(random, recipe.size, sensor.spacing)
    incidence = incidence_angles(random, sensor, recipe.size[1])
    reflectivity = reflectivity_of(random, regions, sensor, incidence, recipe.field_variation)
    noise = 10 ** (sensor.noise / 10)
    looks = 1.0 if recipe.domain == "complex" else sensor.looks
    image = np.stack([observe(random, power + noise, sensor.blur, looks, recipe.domain) for power in reflectivity])
    outside = swath_edge(random, recipe.size, recipe.edge)
    image[:, outside] = 0 if recipe.domain == "display8" else np.nan
    return Scene(image, np.where(outside, IGNORE, regions.labels).astype(np.uint8), reflectivity, incidence)


def incidence_angles(random: np.random.Generator, sensor: Sensor, columns: int) -> NDArray[np.float64]:
    """Degrees along the columns of a cut-out somewhere in the sensor's swath."""
    slope = (sensor.far - sensor.near) / (sensor.swath * 1000) * sensor.spacing
    length = min(slope * (columns - 1), sensor.far - sensor.near)
    start = random.uniform(sensor.near, sensor.far - length)
    return np.minimum(start + slope * np.arange(columns), sensor.far)


def reflectivity_of(
    random: np.random.Generator, regions: Regions, sensor: Sensor, incidence: NDArray[np.float64], variation: float
) -> NDArray[np.float64]:
    """Power (P, H, W) of the ground. Levels of fields and texture have mean 1 in power and are alike in all bands."""
    shape = regions.labels.shape
    spread = variation * math.log(10) / 10
    levels = np.exp(spread * random.standard_normal(regions.fields.max() + 1) - spread**2 / 2)
    variance = np.log1p(np.array(TEXTURE))[regions.labels]
    texture = smooth_noise(random, shape, TEXTURE_METRES / sensor.spacing)
    ground = levels[regions.fields] * np.exp(np.sqrt(variance) * texture - variance / 2)
    ground = np.where(regions.walls, ground * WALL_GAIN, ground)
    ground[regions.points[:, 0], regions.points[:, 1]] *= CORNER_GAIN
    columns = np.arange(shape[1])
    return np.stack(
        [
            ground * mean_backscatter(one, sensor.band, incidence)[regions.labels, columns]
            for one in sensor.polarisations
        ]
    )


def observe(
    random: np.random.Generator, power: NDArray[np.float64], blur: tuple[float, float], looks: float, domain: str
) -> NDArray:
    """One image (H, W) of the reflectivity `power`: speckle, point response, looks; float32, complex64 or uint8."""
    rows, columns = margin(blur)
    scale = np.sqrt(np.pad(power, ((rows, rows), (columns, columns)), "reflect" if min(power.shape) > 1 else "edge"))
    inside = (slice(rows, rows + power.shape[0]), slice(columns, columns + power.shape[1]))
    total = np.zeros(power.shape)
    weights = look_weights(looks)
    for weight in weights:
        noise = random.standard_normal((2, *scale.shape)) * (scale / math.sqrt(2))
        field = filtered(noise[0] + 1j * noise[1], blur)[inside]
        if domain == "complex":
            return field.astype(np.complex64)
        total += weight * (field.real**2 + field.imag**2)
    return in_domain(total / sum(weights), domain)


def look_weights(looks: float) -> list[float]:
    """Weights of independent looks whose mean has exactly `looks` equivalent looks, (sum w)^2 / sum w^2: ones, and one
    smaller weight when the number is not whole.
    """
    whole = math.floor(looks)
    if looks == whole:
        return [1.0] * whole
    root = math.sqrt(whole**2 - (looks - 1) * (looks * whole - whole**2))
    return [*[1.0] * whole, (whole - root) / (looks - 1)]


def in_domain(power: NDArray[np.float64], domain: str) -> NDArray:
    """Power as intensity, amplitude or dB (float32), or as a display picture (uint8)."""
    if domain == "intensity":
        return power.astype(np.float32)
    if domain == "db":
        return (10 * np.log10(power)).astype(np.float32)
    amplitude = np.sqrt(power)
    if domain == "amplitude":
        return amplitude.astype(np.float32)
    return np.clip(np.rint(amplitude / np.quantile(amplitude, DISPLAY_QUANTILE) * 255), 1, 255).astype(np.uint8)


def swath_edge(random: np.random.Generator, size: tuple[int, int], share: float) -> NDArray[np.bool_]:
    """Where there is no data: right of a slanting line that leaves all but `share` of the columns."""
    if share == 0:
        return np.zeros(size, bool)
    top, bottom = size[1] * (1 - share * random.random(2))
    return np.arange(size[1]) >= np.linspace(top, bottom, size[0])[:, None]
