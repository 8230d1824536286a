"""Maps as Cloud Optimized GeoTIFF: overviews, colours, names, and what they were made from.

GDAL's COG driver copies whole files, so finished rows first become a plain tiled GeoTIFF in the working folder. A map
is read back and compared before it takes its place.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetWriter
from rasterio.shutil import copy
from rasterio.windows import Window as RasterioWindow

from geospatial.class_masks import IGNORE
from geospatial.gdal_writing import gdal_writes_named
from geospatial.scene_layers import Layer
from geospatial.scene_overviews import ModeOverviews
from geospatial.scene_place import Place
from geospatial.scene_work import SceneWork
from mmzoo.durable_files import flush, refused_writes_named, write_text

BLOCK = 512
#: Colours (R, G, B) of the first classes, to be told apart also by those who see few colours (Okabe and Ito, 2008);
#: further classes get evenly spread hues.
COLOURS = (
    (204, 204, 204),
    (0, 114, 178),
    (0, 158, 115),
    (230, 159, 0),
    (213, 94, 0),
    (204, 121, 167),
    (86, 180, 233),
    (240, 228, 66),
)


def class_colours(count: int) -> dict[int, tuple[int, int, int, int]]:
    """RGBA of each class; the value of no data is transparent."""
    from matplotlib.colors import hsv_to_rgb

    more = [tuple(int(255 * part) for part in hsv_to_rgb((n * 0.618 % 1, 0.65, 0.85))) for n in range(count)]
    chosen = [*COLOURS, *more][:count]
    return {**{number: (*colour, 255) for number, colour in enumerate(chosen)}, 255: (0, 0, 0, 0)}


def write_map(
    target: Path, work: SceneWork, layer: Layer, place: Place, tags: Mapping[str, str], names: Sequence[str]
) -> None:
    """Writes a layer of `work.done` rows to `target`, whole or not at all. names: of the classes, for their layer.

    InputError: it cannot be written, or what was written is not what was meant.
    """
    plain, cog = work.folder / f"{layer.name}.tif", work.folder / f"{layer.name}.cog.tif"
    options = {"compress": "deflate", "blocksize": BLOCK, "bigtiff": "if_safer", "num_threads": "all_cpus"}
    with refused_writes_named(target), _removed(work.folder, layer), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with gdal_writes_named(target):
            smaller = _write_plain(plain, work, layer, place, tags, names)
            # Overviews that are there already are taken.
            copy(plain, cog, driver="COG", overview_resampling=layer.resampling, **options)
            _compare(cog, work, layer)
            if smaller is not None:
                smaller.compare(cog)
        flush(cog)
        if layer.name == "classes":
            write_text(target.with_name(f"{target.name}.aux.xml"), category_names(names))
        cog.replace(target)
        flush(target.parent)


@contextmanager
def _removed(folder: Path, layer: Layer) -> Iterator[None]:
    """Leaves nothing but the rows, which the next run goes on from."""
    try:
        yield
    finally:
        for pattern in ("tif*", "cog.tif*"):
            for path in folder.glob(f"{layer.name}.{pattern}"):
                path.unlink(missing_ok=True)


def _write_plain(
    path: Path, work: SceneWork, layer: Layer, place: Place, tags: Mapping[str, str], names: Sequence[str]
) -> ModeOverviews | None:
    layout = {"driver": "GTiff", "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "BIGTIFF": "IF_SAFER"}
    size = {"count": len(layer.bands), "height": work.done, "width": work.width, "dtype": layer.dtype}
    ground: dict[str, Any] = {"gcps": place.gcps, "crs": place.gcps_crs} if place.gcps else {"crs": place.crs}
    if not place.gcps and not place.transform.is_identity:
        ground["transform"] = place.transform
    smaller = ModeOverviews(path, (work.done, work.width), BLOCK, IGNORE, layout) if layer.is_mode else None
    step = BLOCK if smaller is None else max(BLOCK, smaller.rows_at_once)
    with (
        rasterio.open(path, "w", nodata=layer.nodata, **layout, **size, **ground) as file,
        smaller or nullcontext(),
    ):
        _describe(file, layer, place, tags, names)
        for window in row_windows(work.done, work.width, step):
            rows = work.rows(layer, int(window.row_off), int(window.height))
            file.write(rows, window=window)
            if smaller is not None:
                smaller.add(int(window.row_off), rows[0])
    return smaller


def _describe(file: DatasetWriter, layer: Layer, place: Place, tags: Mapping[str, str], names: Sequence[str]) -> None:
    file.update_tags(**tags)
    if place.rpcs:
        file.update_tags(ns="RPC", **place.rpcs)
    for band, description in enumerate(layer.bands, 1):
        file.set_band_description(band, description)
    if layer.name == "classes":
        file.update_tags(1, **{f"class_{number}": name for number, name in enumerate(names)})
        file.write_colormap(1, class_colours(len(names)))


def _compare(path: Path, work: SceneWork, layer: Layer) -> None:
    """A full disk may go unnoticed by a library that writes at the end."""
    with rasterio.open(path) as file:
        for window in row_windows(work.done, work.width):
            top, count = int(window.row_off), int(window.height)
            found = file.read(window=window)
            if not np.array_equal(found, work.rows(layer, top, count), equal_nan=layer.dtype == "float32"):
                raise RasterioError(f"rows {top} to {top + count} read back differ from what was written")


def row_windows(height: int, width: int, rows: int = BLOCK) -> Iterator[Any]:
    """rasterio's windows of `rows` px that cover a raster from top to bottom."""
    for top in range(0, height, rows):
        yield RasterioWindow(0, top, width, min(rows, height - top))  # pyright: ignore[reportCallIssue]


def category_names(names: Sequence[str]) -> str:
    """GDAL's sidecar with the names of classes, which QGIS and gdalinfo show; GeoTIFF itself has no place for them."""
    listed = "\n".join(f"      <Category>{escape(name)}</Category>" for name in names)
    return (
        f'<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n{listed}\n    </CategoryNames>\n'
        "  </PAMRasterBand>\n</PAMDataset>\n"
    )
