"""What the bench of scenes measures on: a scene of speckle, a model that costs next to nothing, our way to its map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin
from rasterio.windows import Window

from geospatial.raster import RasterSettings
from geospatial.scene_layers import classes_layer
from geospatial.scene_making import SegmentSettings
from geospatial.scene_segmentation import segment_scene
from geospatial.scene_tiles import Blend

BLEND = Blend(crop=512, overlap=128, halo=32)
BATCH = 4
STRIPED: dict[str, Any] = {"tiled": False}
DEFLATE: dict[str, Any] = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}


class CheapModel:
    """A map model that costs next to nothing."""

    channels, device, names = 2, torch.device("cpu"), ["dark", "bright"]
    layers = [classes_layer(names)]  # noqa: RUF012
    scene_descriptors = None

    def check(self, domain: str, bands: int, path: Path) -> None:
        """Takes everything."""

    def describe(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """It has none."""
        raise NotImplementedError

    def predict(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Sigmoid of the difference of the bands, and its complement."""
        share = torch.sigmoid(values[:, 0] - values[:, 1])
        return torch.stack([1 - share, share], 1)


def write_scene(path: Path, height: int, width: int, options: dict[str, Any], empty: bool = False) -> Path:
    """Two bands of float32 amplitudes, speckle on a checkerboard of bright and dark areas, so that the map has areas as
    maps do; `empty`: a sparse file, of which only the size counts.
    """
    random = np.random.default_rng(0)
    place = {"crs": "EPSG:32633", "transform": from_origin(500000, 5000000, 10, 10)}
    size = {"count": 2, "height": height, "width": width, "dtype": "float32", "SPARSE_OK": "TRUE"}
    with rasterio.open(path, "w", driver="GTiff", BIGTIFF="IF_SAFER", **size, **place, **options) as file:
        file.update_tags(domain="amplitude")
        for top in range(0, 0 if empty else height, 512):
            rows = min(512, height - top)
            values = random.rayleigh(0.1, (2, rows, width)).astype(np.float32)
            areas = np.add.outer(np.arange(top, top + rows) // 230, np.arange(width) // 310) % 2
            values += np.stack([areas, 1 - areas]).astype(np.float32)
            file.write(values, window=Window(0, top, width, rows))
    return path


def ours(scene: Path, target: Path, model: Any = None, blend: Blend = BLEND) -> None:
    """The map of a scene, with all that `mmzoo segment` does but the loading of a model."""
    told = {"model": "cheap", "model_sha256": "0" * 64}
    settings = SegmentSettings(blend, told, RasterSettings(), batch=BATCH, overwrite=True)
    segment_scene(scene, target, model or CheapModel(), settings)


def peak_of(scene: str) -> None:
    """Makes the map of a scene and prints the peak memory of this process in MiB."""
    torch.set_num_threads(1)
    ours(Path(scene), Path(scene).with_name("memory.tif"))
    # ru_maxrss would not do: a process inherits that of the one that started it.
    status = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024)
