"""Whether the parts of a sample fit each other; each check raises InputError, one line with the file's name.

`images`, `rasters`, `mask`, `shown`: entries of the json of record_members.py, with `name`, `width` and `height` in px.
"""

from __future__ import annotations

from typing import Any

from data_engine.stored_sample import StoredSample
from mmzoo.errors import InputError


def check_grids(mask: dict[str, Any] | None, images: list[dict[str, Any]], rasters: list[dict[str, Any]]) -> None:
    """InputError: a mask of another size than what it belongs to, or rasters on different grids."""
    shown = (images or rasters)[:1]
    for entry in shown if mask else ():
        if mask and (mask["width"], mask["height"]) != (entry["width"], entry["height"]):
            raise InputError(
                f"mask {mask['name']} is {mask['width']} x {mask['height']} px, "
                f"{entry['name']} is {entry['width']} x {entry['height']}"
            )
    for other in rasters[1:]:
        for name in ("width", "height", "crs", "transform"):
            if other[name] != rasters[0][name]:
                raise InputError(
                    f"{other['name']} and {rasters[0]['name']} lie on different grids: {name} {other[name]} "
                    f"and {rasters[0][name]}"
                )


def check_stated_size(sample: StoredSample, images: list[dict[str, Any]]) -> None:
    """InputError: the annotations are of an image of another size, so that every coordinate in them is wrong."""
    if sample.stated is not None and images:
        size = images[0]["width"], images[0]["height"]
        if size != tuple(sample.stated):
            raise InputError(
                f"{images[0]['name']} is {size[0]} x {size[1]} px, its annotations are of one of {sample.stated[0]} x "
                f"{sample.stated[1]}"
            )


def check_regions(sample: StoredSample, shown: list[dict[str, Any]]) -> None:
    """InputError: an object of which nothing lies in its image. Those that reach over its border are usual."""
    for region in sample.regions:
        if shown and not 0 <= region.image < len(shown):
            raise InputError(f"{region.label!r} is in image {region.image}, there are {len(shown)}, counted from 0")
        bounds = region.bounds()
        if not shown or bounds is None:
            continue
        entry = shown[region.image]
        if bounds[2] < 0 or bounds[3] < 0 or bounds[0] > entry["width"] or bounds[1] > entry["height"]:
            raise InputError(
                f"{region.label!r} at {', '.join(f'{value:g}' for value in bounds)} lies outside of {entry['name']}, "
                f"{entry['width']} x {entry['height']} px"
            )
