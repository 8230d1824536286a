"""The demo's data: scenes of four simulated radars, as GeoTIFFs with masks and one list a radar."""

from __future__ import annotations

import csv
from pathlib import Path

from data_engine.generators.sar_imaging import SceneRecipe
from data_engine.generators.sar_scenes import write_scenes

#: Trained on. The first is the one that models are fine-tuned on.
SOURCES = ("sentinel1-iw", "gaofen3-fsi", "alos2-fbd")
#: Another band, fewer looks, finer pixels: only ever measured on.
UNSEEN = "terrasar-sm"
SENSORS = (*SOURCES, UNSEEN)
#: Scenes to train on, to choose `best` by, and to measure on; each split has a ground of its own.
SPLITS = {"train": 24, "val": 4, "measured": 16}
SIDE = 128  #: px of a scene


def write_sensors(folder: Path) -> None:
    """folder/SENSOR/SPLIT/{image,mask}, and folder/SENSOR.csv, the list of what is trained and validated on.

    The unseen radar has neither: nothing but its measured scenes is ever written.
    """
    recipe = SceneRecipe(size=(SIDE, SIDE), domain="db")
    for sensor in SENSORS:
        rows = []
        for seed, (split, count) in enumerate(SPLITS.items()):
            if sensor == UNSEEN and split != "measured":
                continue
            images = write_scenes(folder / sensor / split, count, sensor, seed, recipe)
            rows += [(image, image.parents[1] / "mask" / image.name, split) for image in images]
        listed = [(image, mask, split) for image, mask, split in rows if split != "measured"]
        if listed:
            _write_list(folder / f"{sensor}.csv", listed)


def _write_list(file: Path, rows: list[tuple[Path, Path, str]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "mask", "split"])
        for image, mask, split in rows:
            writer.writerow([image.relative_to(file.parent), mask.relative_to(file.parent), split])


def measured_pairs(folder: Path, sensor: str) -> list[tuple[Path, Path]]:
    """(image, mask) of the scenes of a radar that are measured on, by name."""
    return pairs_of(folder, sensor, "measured")


def pairs_of(folder: Path, sensor: str, split: str) -> list[tuple[Path, Path]]:
    """(image, mask) of the scenes of a split, by name."""
    images = sorted((folder / sensor / split / "image").glob("*.tif"))
    return [(image, image.parents[1] / "mask" / image.name) for image in images]
