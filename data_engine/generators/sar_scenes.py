"""Radar scenes whose truth is known, as files: `image/NAME.tif`, `mask/NAME.tif` and `classes.json`.

    write_scenes(Path("scenes"), 200, "sentinel1-iw", seed=1, recipe=SceneRecipe(size=(512, 512), domain="db"))

Images are GeoTIFF with CRS, transform, nodata, a band a polarisation and the tag `domain`; masks are class indices with
255 where there is no data. Sensors are in `sar_sensors`, classes and their backscatter in `backscatter`.

What is modelled, in this order:
 1. a map of land cover in metres (`region_maps`), with buildings whose radar-facing walls and corners are bright;
 2. mean backscatter by class, polarisation, band and incidence (`backscatter`), a level of its own for each field, and
    smooth lognormal texture where the class has some;
 3. coherent imaging: a circular Gaussian field, times the square root of the reflectivity and the noise floor, passes
    the sensor's Gaussian point response; looks are independent repetitions, averaged in power. So a flat area of L
    looks is Gamma(L), its neighbours correlated as exp(-d^2 / (2 b^2)) at d pixels for a response of standard deviation
    b; a whole number of looks is exact, between two of them the last repetition has less weight and the equivalent
    number of looks is the given one.

What is not modelled: terrain, and so neither layover, foreshortening nor shadow; displacement and defocusing of moving
targets; sidelobes, azimuth ambiguities and scalloping; the correlation between polarisations (each has a speckle of
its own, so no Pauli picture of such a scene means anything); wind on water, soil moisture, seasons; the slant range
(pixels are on the ground already); interference; and the dielectrics behind the tables, which are plausible and not
measured. A model that is good here is good at speckle, not yet at radar.

Deterministic: (seed, number of the scene, sensor, recipe) decide every byte, on one version of numpy and rasterio.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_engine.generators.backscatter import CLASSES, COLOURS, IGNORE
from data_engine.generators.sar_imaging import Scene, SceneRecipe, make_scene
from data_engine.generators.sar_sensors import Sensor, sensor_named
from data_engine.output_folder import replaced_folder
from mmzoo.errors import InputError

#: Upper left corner of scene 0, UTM zone 33 north; the others lie to the east of it, without touching.
CRS, EAST, NORTH = "EPSG:32633", 300_000.0, 5_400_000.0
TILE = 256


def write_scenes(
    folder: Path, count: int, sensor: Sensor | str, seed: int = 0, recipe: SceneRecipe | None = None
) -> list[Path]:
    """Writes scenes 0..count-1 of series `seed` and returns the paths of their images; masks have the same names.

    The raster tag `domain` says what the values are (complex rasters have none: their reader chooses a part), each band
    is described by its polarisation. `folder` appears when all is written. InputError when something is there already,
    or for an unknown sensor.
    """
    sensor = sensor_named(sensor) if isinstance(sensor, str) else sensor
    recipe = recipe or SceneRecipe()
    if count < 1:
        raise InputError(f"{count} scenes are none. Ask for 1 or more")
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} exists and is not empty. Name another folder for the scenes, or remove it")
    names = [f"{sensor.name}-{seed}-{number:05}.tif" for number in range(count)]
    with replaced_folder(folder, overwrite=False) as building:
        (building / "image").mkdir()
        (building / "mask").mkdir()
        for number, name in enumerate(names):
            scene = make_scene(seed, number, sensor, recipe)
            _write_image(building / "image" / name, scene, number, sensor, recipe)
            _write_mask(building / "mask" / name, scene, number, sensor)
        table = {str(index): {"name": name, "colour": COLOURS[index]} for index, name in enumerate(CLASSES)}
        text = json.dumps({"classes": table, "ignore": IGNORE}, indent=1)
        (building / "classes.json").write_text(f"{text}\n", encoding="utf-8")
    return [folder / "image" / name for name in names]


def _write_image(path: Path, scene: Scene, number: int, sensor: Sensor, recipe: SceneRecipe) -> None:
    complex_values = recipe.domain == "complex"
    nodata = {"complex": None, "display8": 0}.get(recipe.domain, float("nan"))
    tags = {
        "sensor": sensor.name,
        "radar_band": sensor.band,
        "looks": "1" if complex_values else f"{sensor.looks:g}",
        "incidence": f"{scene.incidence[0]:.3f} to {scene.incidence[-1]:.3f} degrees",
        "noise_floor": f"{sensor.noise:g} dB",
        "origin": "simulated; data_engine/generators/sar_scenes.py says what is not modelled",
    }
    named = {"polarisation": "", **({} if complex_values else {"domain": recipe.domain})}
    bands = [{**named, "polarisation": name} for name in sensor.polarisations]
    _write(path, scene.image, _place(number, sensor, scene), {"nodata": nodata, "tags": tags, "bands": bands})


def _write_mask(path: Path, scene: Scene, number: int, sensor: Sensor) -> None:
    colours = {index: (*colour, 255) for index, colour in enumerate(COLOURS)} | {IGNORE: (0, 0, 0, 0)}
    tags = {"classes": ", ".join(f"{index} {name}" for index, name in enumerate(CLASSES))}
    _write(path, scene.mask[None], _place(number, sensor, scene), {"nodata": IGNORE, "tags": tags, "colours": colours})


def _place(number: int, sensor: Sensor, scene: Scene) -> tuple[float, float, float]:
    """East and north of the upper left corner, and the pixel spacing, in metres."""
    width = scene.mask.shape[1] * sensor.spacing
    return EAST + number * (width + 1000), NORTH, sensor.spacing


def _write(path: Path, bands: NDArray, place: tuple[float, float, float], about: dict[str, Any]) -> None:
    import rasterio  # a library that only those need who write scenes

    east, north, spacing = place
    count, height, width = bands.shape
    tiled = {"tiled": True, "blockxsize": TILE, "blockysize": TILE} if min(height, width) >= TILE else {}
    predictor = {"predictor": 3 if bands.dtype == np.float32 else 2} if bands.dtype != np.complex64 else {}
    options = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": bands.dtype.name}
    options |= {"crs": CRS, "transform": rasterio.Affine(spacing, 0, east, 0, -spacing, north)}
    options |= {"nodata": about["nodata"], "compress": "deflate", **tiled, **predictor}
    with rasterio.open(path, "w", **options) as file:
        file.write(bands)
        file.update_tags(**about["tags"])
        for number, tags in enumerate(about.get("bands", ()), 1):
            file.update_tags(number, **tags)
            file.set_band_description(number, tags["polarisation"])
        if "colours" in about:
            file.write_colormap(1, about["colours"])
