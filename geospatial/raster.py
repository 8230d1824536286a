"""Rasters through rasterio: windows of chosen bands as float32, and which of their pixels hold data at all."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import rasterio
import torch
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from geospatial.raster_domain import find_domain
from geospatial.sar.domains import check_domain
from mmzoo.errors import InputError

MOST_SHIFT = 0.5  #: px that a mask may lie beside its raster
MOST_BANDS = 13  #: as many as Sentinel-2 has
#: What has no data: "file" believes the file (nodata value, mask band, alpha), a number replaces its nodata value (NaN
#: may be written as .nan in YAML), None takes every finite value for data.
Nodata = Literal["file"] | float | None


class Window(NamedTuple):
    """A rectangle of a raster, in px: first row, first column, rows, columns."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class RasterSettings:
    """How rasters are read.

    bands: which, counted from 1 (None: all). domain: of their values; None = the file must say. nodata: see `Nodata`.
    complex_as: what complex values (SLC) become; None refuses them, as a phase is not something to drop in silence.
    """

    bands: tuple[int, ...] | None = None
    domain: str | None = None
    nodata: Nodata = "file"
    complex_as: Literal["amplitude", "intensity"] | None = None


class Pixels(NamedTuple):
    """`values` float32 (C, H, W), 0 where not valid; `valid` bool (H, W): every band holds a value there that is finite
    in float32. Scale and offset that a file declares for a band are applied.
    """

    values: np.ndarray
    valid: np.ndarray


@contextmanager
def rasterio_faults(path: Path, what: str = "raster") -> Iterator[None]:
    """rasterio's own errors as one line; pictures without coordinates are welcome."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            yield
    except RasterioError as fault:
        raise InputError(f"{path} cannot be read as a {what} ({fault}). Check it with: rio info {path.name}") from None


def stored_bands(path: Path, what: str) -> np.ndarray:
    """All bands (C, H, W) of a file as they are stored, no domain asked. InputError: no such `what`, or damaged."""
    with rasterio_faults(path, what), rasterio.open(path) as opened:
        return opened.read()


class Raster:
    """An open raster. Not to be shared between processes; `close` it, or use it in a `with` block.

    `height`, `width` (px), `bands` (those that are read, counted from 1), `domain`, `dtype`, `crs`, `transform`.
    InputError: no raster, bands that are not there, complex values that nobody asked for, no domain.
    """

    def __init__(self, path: Path | str, settings: RasterSettings | None = None) -> None:
        self.path = Path(path)
        self.settings = settings or RasterSettings()
        if not self.path.is_file():
            raise InputError(f"there is no raster {self.path}. Check the path")
        with rasterio_faults(self.path):
            self._file = rasterio.open(self.path)
        try:
            self._describe()
        except BaseException:
            self.close()
            raise

    def _describe(self) -> None:
        file = self._file
        self.height, self.width = int(file.height), int(file.width)
        self.crs, self.transform = file.crs, file.transform
        self.bands = self._chosen_bands()
        self.dtype = str(file.dtypes[self.bands[0] - 1])
        self._refuse_complex()
        tags = {f"band {band}": file.tags(band) for band in self.bands}
        domain = self.settings.domain or self.settings.complex_as
        self.domain = find_domain(self.path, domain, {**tags, "file": file.tags()})

    def _chosen_bands(self) -> tuple[int, ...]:
        count = int(self._file.count)
        chosen = self.settings.bands or tuple(range(1, count + 1))
        for band in chosen:
            if not 1 <= band <= count:
                raise InputError(f"{self.path} has {count} bands, so there is no band {band}. Bands count from 1")
        if len(chosen) > MOST_BANDS:
            raise InputError(f"{self.path}: {len(chosen)} bands, at most {MOST_BANDS} are read. Choose some with bands")
        return tuple(chosen)

    def _refuse_complex(self) -> None:
        kinds = {np.dtype(_numpy_name(self._file.dtypes[band - 1])).kind == "c" for band in self.bands}
        self._complex = True in kinds
        wanted = self.settings.complex_as
        if self._complex and wanted is None:
            raise InputError(
                f"{self.path} holds complex values (SLC), and their phase is not dropped in silence. "
                f"Set complex_as to amplitude or intensity"
            )
        if self._complex and self.settings.domain not in (None, wanted):
            raise InputError(f"{self.path}: complex_as {wanted} gives {wanted}, not {self.settings.domain}. Set one")
        if not self._complex and wanted is not None:
            raise InputError(f"{self.path} holds no complex values ({self.dtype}). Leave out complex_as")

    def __enter__(self) -> Raster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    @property
    def whole(self) -> Window:
        """All of it."""
        return Window(0, 0, self.height, self.width)

    def read(self, window: Window | None = None) -> Pixels:
        """The pixels of a window (default: all). InputError: the window leaves the raster, or the file is damaged."""
        window = window or self.whole
        size = window.height, window.width
        self._checked(window)
        pixels = Pixels(np.empty((len(self.bands), *size), np.float32), np.empty(size, bool))
        self.read_into(window, pixels)
        return pixels

    def read_into(self, window: Window, into: Pixels) -> None:
        """`read` into arrays that are there already, which may be parts of larger ones."""
        area = self._checked(window)
        bands = list(self.bands)
        plain = {self._file.dtypes[band - 1] for band in bands} == {"float32"} and not self.is_scaled
        with rasterio_faults(self.path):
            stored = self._file.read(bands, window=area, out=into.values if plain else None)
            masks = self._file.read_masks(bands, window=area) if self._has_masks else None
        np.isfinite(stored).all(0, out=into.valid)
        nodata = self._exact_nodata if self.settings.nodata == "file" else self.settings.nodata
        if masks is not None:
            into.valid[:] &= (masks != 0).all(0)
        elif nodata is not None and not math.isnan(nodata):
            into.valid[:] &= (stored != nodata).all(0)
        if not plain:
            into.values[:] = self._in_domain(stored)
            into.valid[:] &= np.isfinite(into.values).all(0)  # float64 reaches further than float32
        if not into.valid.all():
            into.values[:, ~into.valid] = 0  # NaN would spread through the first convolution

    @property
    def _has_masks(self) -> bool:
        """Whether the file is to be believed, and says of any pixel that it has no data: masks cost a second read."""
        flags = [self._file.mask_flag_enums[band - 1] for band in self.bands]
        said = self.settings.nodata == "file" and any(MaskFlags.all_valid not in of_band for of_band in flags)
        return said and self._exact_nodata is None

    @property
    def _exact_nodata(self) -> float | None:
        """The nodata value, where it says all that masks would: of integers that float64 holds, or NaN. Of others GDAL
        takes what is near for equal.
        """
        only_values = all(self._file.mask_flag_enums[band - 1] == [MaskFlags.nodata] for band in self.bands)
        values = {str(self._file.nodatavals[band - 1]) for band in self.bands}
        if not only_values or len(values) > 1:
            return None
        value = float(values.pop())
        kinds = [np.dtype(_numpy_name(self._file.dtypes[band - 1])) for band in self.bands]
        whole = all(kind.kind in "iu" and kind.itemsize <= 4 for kind in kinds) and value.is_integer()
        return value if whole or math.isnan(value) else None

    def _in_domain(self, stored: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):  # what leaves float32 becomes infinite, and so invalid
            if self.is_scaled:
                scales, offsets = (
                    np.array([given[band - 1] for band in self.bands], np.float64)[:, None, None]
                    for given in (self._file.scales, self._file.offsets)
                )
                stored = stored * scales + offsets
            if self._complex:
                stored = np.abs(stored)
                stored = stored**2 if self.settings.complex_as == "intensity" else stored
            return stored.astype(np.float32, copy=False)

    @property
    def is_scaled(self) -> bool:
        """Whether the file declares a scale or an offset for a band that is read."""
        return any(self._file.scales[band - 1] != 1 or self._file.offsets[band - 1] != 0 for band in self.bands)

    def refuse_impossible(self, pixels: Pixels) -> None:
        """InputError: values that the domain cannot hold, see geospatial.sar.domains.check_domain."""
        try:
            check_domain(torch.from_numpy(pixels.values), self.domain, torch.from_numpy(pixels.valid))
        except InputError as mistake:
            raise InputError(f"{self.path}: {mistake}") from None

    def refuse_other_place(self, other: Raster) -> None:
        """InputError when both say where they lie, and a corner is more than half a pixel apart, or the CRS differs."""
        if self.crs is None or other.crs is None:
            return
        if self.crs != other.crs:
            raise InputError(
                f"{other.path} is in {_short(other.crs)} and {self.path} in {_short(self.crs)}. Bring it to that "
                f"grid: rio warp --like"
            )
        there, here = (np.array(tuple(transform)).reshape(3, 3) for transform in (other.transform, self.transform))
        for column, row in ((0, 0), (self.width, 0), (0, self.height), (self.width, self.height)):
            x, y, _ = np.linalg.solve(here, there @ (column, row, 1))
            if max(abs(x - column), abs(y - row)) > MOST_SHIFT:
                raise InputError(
                    f"{other.path} lies elsewhere than {self.path}: its pixel of column {column}, row {row} is "
                    f"{x - column:.1f} columns and {y - row:.1f} rows away. Bring it to that grid: rio warp --like"
                )

    def _checked(self, window: Window) -> RasterioWindow:
        inside = window.top >= 0 and window.left >= 0 and window.height > 0 and window.width > 0
        if not inside or window.top + window.height > self.height or window.left + window.width > self.width:
            raise InputError(f"{self.path}: {window} leaves the raster of {self.height} x {self.width} px")
        return RasterioWindow(window.left, window.top, window.width, window.height)  # pyright: ignore[reportCallIssue]

    def stored(self, band: int, window: Window | None = None) -> np.ndarray:
        """One band as it is stored, (H, W) of its own dtype."""
        with rasterio_faults(self.path):
            return self._file.read(band, window=self._checked(window or self.whole))

    @property
    def block_rows(self) -> int:
        """Height of the blocks that the file is stored in, px."""
        return int(self._file.block_shapes[self.bands[0] - 1][0])

    @property
    def stored_nodata(self) -> float | None:
        """The nodata value that the file declares."""
        return self._file.nodata


def _short(crs: Any) -> str:
    """`EPSG:32633`, or the start of the definition of a CRS that has no code."""
    return " ".join(crs.to_string().split())[:60]


def _numpy_name(dtype: str) -> str:
    """rasterio's complex_int16 has no numpy dtype; read, it is complex64."""
    return "complex64" if dtype == "complex_int16" else dtype


def tiles(height: int, width: int, size: int) -> list[Window]:
    """Windows of `size` px that cover a raster, in reading order. The last of a row or column is moved back inside;
    a raster smaller than `size` gets one window of its own size.
    """
    return [
        Window(top, left, min(size, height), min(size, width))
        for top in _starts(height, size)
        for left in _starts(width, size)
    ]


def _starts(length: int, size: int) -> Sequence[int]:
    count = max(1, math.ceil(length / size))
    return [max(0, min(number * size, length - size)) for number in range(count)]


def write_raster(path: Path, values: np.ndarray, like: Raster, **options: Any) -> None:
    """Writes bands (C, H, W) with the CRS and transform of `like`: a tiled, deflated GeoTIFF.

    `options`: rasterio's (nodata, ...). InputError: it cannot be written.
    """
    profile = {"driver": "GTiff", "count": len(values), "height": values.shape[1], "width": values.shape[2]}
    layout = {"compress": "deflate", "tiled": True, "blockxsize": 256, "blockysize": 256, "BIGTIFF": "IF_SAFER"}
    place = {"crs": like.crs, "transform": like.transform, "dtype": values.dtype}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, "w", **profile, **layout, **place, **options) as file:
                file.write(values)
    except (RasterioError, OSError) as fault:
        raise InputError(f"{path} cannot be written ({fault}). Choose a writable folder with room") from None
