"""A scene of 8,192 x 8,192 px to its map, end to end: our row bands against every tile read by itself.

The model, the same for all, is a sigmoid of the difference of two bands, so that what is measured is reading, blending
and writing, not a network; `floor` is what nobody can leave out. Peers blend with the same weights in arrays of the
scene's size and write the same kind of map. The bar counts against GDAL's own cache of 5 % of the memory, as a plain
loop has it, which on a large machine holds the whole scene; the same loop with the 64 MiB that ours is held to is a row
beside it. Wall time says what a user waits, and wants a machine with nothing else to do; CPU time, of all threads, is
the steadier. TorchGeo and TerraTorch take part where `make bench-env` has installed them. And the peak memory of a
process at four times the height.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from tests.benchmarks.peers.scene_loops import plain_windows, torchgeo_windows, whole_scene_map
from tests.benchmarks.peers.scene_terratorch import terratorch_map
from tests.benchmarks.record import Comparison, NotMeasured
from tests.benchmarks.scene_case import BATCH, BLEND, DEFLATE, STRIPED, CheapModel, ours, write_scene
from tests.benchmarks.scene_floor import forward_only, read_once
from tests.benchmarks.timing import Figures, in_turns

SIDE = int(os.environ.get("SCENE_SIDE", "8192"))  #: px
TERRATORCH_SIDE = min(SIDE, 4096)  #: px; it holds the scene, all tiles and all their answers
ROUNDS = 3
SMALL_CACHE = 64  #: MiB, see geospatial.scene_making.LEAST_CACHE
#: The bars of ratio peer / ours, and of the memory at four times the height.
PLAIN_BARS = {"striped": 3.0, "deflate": 2.0}
TORCHGEO_BAR = 2.0
GROWTH = 1 / 1.05
#: Pixels on which sums in another order may disagree: ties.
TIES = 1e-4
TITLES = {
    "plain": "plain rasterio window loop",
    "plain_small": f"the same with a cache of {SMALL_CACHE} MiB",
    "torchgeo": "TorchGeo GridGeoSampler loop",
    "terratorch": "TerraTorch tiled_inference",
    "floor": "floor: each block read once, bare forward",
}
#: What makes a map of a scene, (scene, target).
Maker = Callable[[Path, Path], None]
#: Wall and CPU seconds of each contender.
Times = dict[str, tuple[Figures, Figures]]


def plain(scene: Path, target: Path) -> None:
    """Tiles read one by one, as a user writes it."""
    whole_scene_map(scene, target, BLEND, CheapModel(), plain_windows(scene, BLEND, BATCH))


def plain_small(scene: Path, target: Path) -> None:
    """The same with little cache."""
    with rasterio.Env(GDAL_CACHEMAX=SMALL_CACHE):
        plain(scene, target)


def torchgeo(scene: Path, target: Path) -> None:
    """Tiles by TorchGeo's sampler."""
    whole_scene_map(scene, target, BLEND, CheapModel(), torchgeo_windows(scene, BLEND, BATCH))


def terratorch(scene: Path, target: Path) -> None:
    """TerraTorch's own blending, of answers that do not depend on the tile."""
    terratorch_map(scene, target, BLEND, CheapModel(), BATCH)


def compare() -> list[Comparison | NotMeasured]:
    """Both layouts, TerraTorch, then memory."""
    found: list[Comparison | NotMeasured] = []
    with tempfile.TemporaryDirectory(prefix="scene_bench_") as folder:
        for name, options in (("striped", STRIPED), ("deflate", DEFLATE)):
            scene = write_scene(Path(folder) / f"{name}.tif", SIDE, SIDE, options)
            found += _compared(name, scene)
            scene.unlink()
        return [*found, *_terratorch(Path(folder)), _memory(Path(folder))]


def _compared(name: str, scene: Path) -> list[Comparison | NotMeasured]:
    makers: dict[str, Maker] = {"ours": ours, "plain": plain, "plain_small": plain_small}
    if _installed("torchgeo"):
        makers["torchgeo"] = torchgeo
    times = _timed(scene, makers, {"floor": partial(_floor, scene), "forward": partial(forward_only, BLEND, SIDE)})
    case = f"{name}, {SIDE}^2"
    bars = {"plain": PLAIN_BARS[name], "torchgeo": TORCHGEO_BAR}
    found = [row for key in TITLES if key in times for row in _rows(case, key, times, bars.get(key))]
    without = {key: tuple(map(_minus, times[key], times["forward"])) for key in ("ours", "plain")}
    missing = [] if "torchgeo" in times else [_missing(case, "torchgeo")]
    return [*found, *missing, *_rows(f"{case} without the forward", "plain", without)]


def _floor(scene: Path) -> None:
    read_once(scene)
    forward_only(BLEND, SIDE)


def _minus(whole: Figures, part: Figures) -> Figures:
    return Figures(tuple(value - part.least for value in whole.values))


def _rows(case: str, key: str, times: Any, bar: float | None = None) -> list[Comparison]:
    clocks = zip(("wall", "CPU"), times["ours"], times[key], strict=True)
    return [Comparison(f"{case}, {clock}", TITLES[key], us, peer, at_least=bar) for clock, us, peer in clocks]


def _timed(scene: Path, makers: dict[str, Maker], others: dict[str, Callable[[], None]]) -> Times:
    """Of makers that agree, in turns, and of `others`, which make no map."""
    maps = {key: scene.with_name(f"{key}.tif") for key in makers}
    for key, make in makers.items():
        make(scene, maps[key])
        _agree(maps["ours"], maps[key])
    runs = {key: partial(make, scene, maps[key]) for key, make in makers.items()} | others
    used: dict[str, list[float]] = {key: [] for key in runs}

    def seconds(key: str) -> float:
        wall, cpu = time.perf_counter(), time.process_time()
        runs[key]()
        used[key].append(time.process_time() - cpu)
        return time.perf_counter() - wall

    walls = in_turns({key: partial(seconds, key) for key in runs}, ROUNDS)
    return {key: (walls[key], Figures(tuple(used[key]))) for key in runs}


def _agree(one: Path, other: Path) -> None:
    with rasterio.open(one) as first, rasterio.open(other) as second:
        share = float(np.mean(first.read(1) != second.read(1)))
    if share > TIES:
        raise AssertionError(f"{one.name} and {other.name} differ on {share:.3%} of the pixels")


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _missing(case: str, package: str) -> NotMeasured:
    return NotMeasured(case, TITLES[package], f"{package} is not installed: make bench-env")


def _terratorch(folder: Path) -> list[Comparison | NotMeasured]:
    case = f"striped, {TERRATORCH_SIDE}^2"
    if not _installed("terratorch"):
        return [_missing(case, "terratorch")]
    scene = write_scene(folder / "small.tif", TERRATORCH_SIDE, TERRATORCH_SIDE, STRIPED)
    return [*_rows(case, "terratorch", _timed(scene, {"ours": ours, "terratorch": terratorch}, {}))]


def _memory(folder: Path) -> Comparison:
    """Peak memory of a process that makes a map, at the height and at four times of it."""
    peaks = []
    for height in (SIDE, 4 * SIDE):
        scene = write_scene(folder / "empty.tif", height, SIDE, DEFLATE, empty=True)
        code = f"from tests.benchmarks.scene_case import peak_of; peak_of({str(scene)!r})"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        peaks.append(Figures((float(run.stdout.split()[-1]),)))
    case = f"peak memory at {4 * SIDE} rows of {SIDE} px"
    return Comparison(case, f"ours at {SIDE} rows", peaks[1], peaks[0], unit="MiB", at_least=GROWTH)
