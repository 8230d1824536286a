"""A scene of 8,192 x 8,192 px to its map, end to end: our row bands against every tile read by itself.

The model is a sigmoid of the difference of two bands, so that what is measured is reading, blending and writing, not a
network. Peers blend with the same weights in arrays of the scene's size and write the same kind of map. TorchGeo takes
part where it is installed (`pip install torchgeo==0.8.1` in .venv-bench). And the peak memory of a process at four
times the height.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
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
from tests.benchmarks.peers.scene_loops import plain_windows, torchgeo_windows, whole_scene_map
from tests.benchmarks.record import Comparison
from tests.benchmarks.timing import Contender, Figures, interleaved

SIDE = int(os.environ.get("SCENE_SIDE", "8192"))  #: px
BLEND = Blend(crop=512, overlap=128, halo=32)
BATCH, ROUNDS = 4, 2
STRIPED: dict[str, Any] = {"tiled": False}
DEFLATE: dict[str, Any] = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
#: The bars of ratio peer / ours, and of the memory at four times the height.
BARS = {"striped": 3.0, "deflate": 2.0, "torchgeo": 2.0}
GROWTH = 1 / 1.05
#: Pixels on which sums in another order may disagree: ties.
TIES = 1e-4


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


def ours(scene: Path, target: Path) -> None:
    """The map of a scene, with all that `mmzoo segment` does but the loading of a model."""
    settings = SegmentSettings(
        BLEND, {"model": "cheap", "model_sha256": "0" * 64}, RasterSettings(), batch=BATCH, overwrite=True
    )
    segment_scene(scene, target, CheapModel(), settings)


def peer(scene: Path, target: Path, windows: Any) -> None:
    """The same by tiles that are read one by one."""
    whole_scene_map(scene, target, BLEND, CheapModel(), windows(scene, BLEND, BATCH))


def compare() -> list[Comparison]:
    """Both layouts, then memory."""
    with tempfile.TemporaryDirectory(prefix="scene_bench_") as folder:
        found = []
        for name, options in (("striped", STRIPED), ("deflate", DEFLATE)):
            scene = write_scene(Path(folder) / f"{name}.tif", SIDE, SIDE, options)
            found += _compared(name, scene, Path(folder))
            scene.unlink()
        return [*found, _memory(Path(folder))]


def _compared(name: str, scene: Path, folder: Path) -> list[Comparison]:
    contenders = {"ours": ours, "plain": lambda path, target: peer(path, target, plain_windows)}
    if importlib.util.find_spec("torchgeo") is not None:
        contenders["torchgeo"] = lambda path, target: peer(path, target, torchgeo_windows)
    maps = {key: folder / f"{key}.tif" for key in contenders}
    for key, make in contenders.items():
        make(scene, maps[key])
        _agree(maps["ours"], maps[key])
    # Time that all threads compute: threads win nothing here, and other work on the machine disturbs less.
    makers = {key: Contender(lambda k=key: contenders[k](scene, maps[k])) for key in contenders}
    times = interleaved(makers, ROUNDS, time.process_time)
    case = f"{name}, {SIDE}^2, two float32 bands, cheap model"
    bars = {"plain": BARS[name], "torchgeo": BARS["torchgeo"]}
    titles = {"plain": "plain rasterio window loop", "torchgeo": "TorchGeo GridGeoSampler loop"}
    return [
        Comparison(case, titles[key], times["ours"], times[key], at_least=bars[key]) for key in titles if key in times
    ]


def _agree(one: Path, other: Path) -> None:
    with rasterio.open(one) as first, rasterio.open(other) as second:
        share = float(np.mean(first.read(1) != second.read(1)))
    if share > TIES:
        raise AssertionError(f"{one.name} and {other.name} differ on {share:.3%} of the pixels")


def _memory(folder: Path) -> Comparison:
    """Peak memory of a process that makes a map, at the height and at four times of it."""
    peaks = []
    for height in (SIDE, 4 * SIDE):
        scene = write_scene(folder / "empty.tif", height, SIDE, DEFLATE, empty=True)
        code = f"from tests.benchmarks.scene_inference import peak_of; peak_of({str(scene)!r})"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        peaks.append(Figures((float(run.stdout.split()[-1]),)))
    case = f"peak memory at {4 * SIDE} rows of {SIDE} px"
    return Comparison(case, f"ours at {SIDE} rows", peaks[1], peaks[0], unit="MiB", at_least=GROWTH)


def peak_of(scene: str) -> None:
    """Makes the map of a scene and prints the peak memory of this process in MiB."""
    torch.set_num_threads(1)
    ours(Path(scene), Path(scene).with_name("memory.tif"))
    # ru_maxrss would not do: a process inherits that of the one that started it.
    status = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024)
