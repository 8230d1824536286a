"""Draws docs/pictures/sar_scene.png: one generated scene, its map, two filters and the looks around every pixel.

python -m tests.benchmarks.sar_picture FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from data_engine.generators.backscatter import CLASSES, COLOURS
from data_engine.generators.sar_imaging import SceneRecipe, make_scene
from data_engine.generators.sar_sensors import sensor_named
from geospatial.sar.local_descriptors import local_descriptors
from geospatial.sar.speckle import SpeckleFilter, despeckle

SIDE, WINDOW = 256, 15
DECIBELS = (-26.0, 2.0)


def draw(path: Path) -> None:
    """Six panels: image, map, boxcar, refined Lee, looks, roughness."""
    sensor = sensor_named("gaofen3-fsi")
    scene = make_scene(7, 0, sensor, SceneRecipe((SIDE, SIDE), "db"))
    image = torch.as_tensor(scene.image[0])
    boxcar, refined = (despeckle(image, "db", SpeckleFilter(name, sensor.looks)) for name in ("boxcar", "refined_lee"))
    _, looks, roughness = local_descriptors(image[None, None], "db", WINDOW)[0]
    panels = [
        (f"{sensor.name}, HH, dB, {sensor.looks:g} looks", image, "gray", DECIBELS),
        ("map: " + ", ".join(CLASSES), np.array(COLOURS, np.uint8)[scene.mask], None, (None, None)),
        ("boxcar 7 x 7, dB", boxcar, "gray", DECIBELS),
        ("refined Lee, dB", refined, "gray", DECIBELS),
        (f"looks in {WINDOW} x {WINDOW} pixels", looks, "viridis", (0, 4)),
        (f"roughness in {WINDOW} x {WINDOW} pixels, dB", 10 * roughness.log10(), "viridis", (None, None)),
    ]
    figure = Figure(figsize=(10, 7), layout="constrained")
    for axis, (title, values, colours, (least, most)) in zip(figure.subplots(2, 3).flat, panels, strict=True):
        shown = axis.imshow(values, cmap=colours, vmin=least, vmax=most)
        axis.set_title(title, fontsize=8)
        axis.set_axis_off()
        if colours:
            figure.colorbar(shown, ax=axis, shrink=0.7)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
