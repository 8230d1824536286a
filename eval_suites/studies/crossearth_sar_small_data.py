"""The study's rasters: what `mmzoo fit` reads, made once from the pictures that `annotations.jsonl` lists.

Flood: three bands, before, after and 128 + (after - before) / 2. Water: one band, the picture itself or the mean of its
three polarimetric channels. One CSV list a domain, with the split that the annotations give.
"""

from __future__ import annotations

import csv
import json
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from geospatial.raster import stored_bands
from mmzoo.errors import InputError

TASKS = ("flood", "water")


def write_lists(data: Path, out: Path) -> None:
    """out/DOMAIN.csv and out/DOMAIN/*.tif for every record of TASKS. InputError: a picture is missing or damaged."""
    by_domain: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for record in records(data):
        raster = out / record["domain"] / f"{record['id']}.tif"
        raster.parent.mkdir(exist_ok=True)
        _write(raster, bands_of(record, data))
        mask = (data / record["label"]).resolve()
        by_domain[record["domain"]].append((str(raster.relative_to(out)), str(mask), record["split"]))
    for domain, rows in by_domain.items():
        with (out / f"{domain}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["image", "mask", "split"])
            writer.writerows(sorted(rows))


def records(data: Path) -> Iterator[Mapping[str, Any]]:
    """The records of TASKS, in the order of the file."""
    for line in (data / "annotations.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["task"] in TASKS:
            yield record


def bands_of(record: Mapping[str, Any], data: Path) -> np.ndarray:
    """float32 (3, H, W) of a pair of pictures, (1, H, W) of a single one; both on the display scale, 0 to 255."""
    after = stored_bands(data / record["image"], "picture").mean(0, dtype=np.float32)
    if "image_before" not in record:
        return after[None]
    before = stored_bands(data / record["image_before"], "picture").mean(0, dtype=np.float32)
    if before.shape != after.shape:
        raise InputError(f"{record['id']}: the pictures before and after have {before.shape} and {after.shape} px.")
    return np.stack([before, after, 128 + (after - before) / 2])


def _write(file: Path, values: np.ndarray) -> None:
    profile = {"driver": "GTiff", "count": len(values), "height": values.shape[1], "width": values.shape[2]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(file, "w", dtype="float32", **profile) as opened:
            opened.write(values.astype(np.float32))
