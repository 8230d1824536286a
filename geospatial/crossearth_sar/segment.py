"""`mmzoo segment`: class maps of whole scenes, of any size, in the memory of some rows.

A scene is read in row bands, cut into overlapping tiles, and the model's probabilities are blended. The map is a Cloud
Optimized GeoTIFF on the scene's own grid. A run that was killed goes on where it was when the command is given again.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mmzoo.errors import EXIT_OK, CommandParser, InputError

if TYPE_CHECKING:
    from geospatial.scene_layers import Layer
    from geospatial.scene_making import SegmentSettings
    from geospatial.scene_segmentation import MapRecord

SUFFIXES = (".tif", ".tiff")
EXTRAS = ("confidence", "probabilities", "experts", "descriptors")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("scenes", type=Path, nargs="+", metavar="SCENE", help="rasters")
    parser.add_argument("--model", required=True, help="folder or Hub id of a segmentation model")
    parser.add_argument("-o", "--out", required=True, help="the map (.tif), or a folder for the maps of many scenes")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, ...")
    parser.add_argument("--batch-size", type=int, default=4, help="tiles at once (default 4); changes no result")
    parser.add_argument("--bands", type=int, nargs="+", help="which bands, counted from 1 (default: all)")
    parser.add_argument("--domain", help="what the values are (default: what the raster says)")
    parser.add_argument("--nodata", default="file", help="file (default), none, nan, or the value that is no data")
    parser.add_argument("--complex-as", choices=("amplitude", "intensity"), help="what complex values (SLC) become")
    parser.add_argument("--overwrite", action="store_true", help="replace maps that are there from other settings")
    parser.add_argument("--json", action="store_true", help="print a summary of each map as JSON on stdout")
    _add_tiling(parser)
    _add_extras(parser)
    return parser


def _add_tiling(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("tiles")
    group.add_argument("--crop", type=int, help="side of a tile in px (default: the image size of the model)")
    group.add_argument("--overlap", type=int, help="of neighbouring tiles in px (default: a quarter of the crop)")
    group.add_argument(
        "--halo", type=int, help="px at the border of a tile not used (default: a quarter of the overlap)"
    )
    group.add_argument("--blend", choices=("cosine", "constant"), default="cosine", help="how overlaps are mixed")
    group.add_argument("--roi", help="part of the scene: minx,miny,maxx,maxy in its CRS, or a GeoJSON file")
    group.add_argument("--roi-crs", help="CRS of --roi (default: bounds: the scene's; GeoJSON: EPSG:4326)")
    group.add_argument(
        "--descriptor-scope",
        choices=("tile", "scene"),
        default="tile",
        help="what the physical descriptors are of; scene: one set for all tiles, one pass more over the scene",
    )


def _add_extras(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("beside the map")
    group.add_argument(
        "--confidence", action="store_true", help="MAP_confidence.tif: probability of the class, per cent"
    )
    group.add_argument("--probabilities", action="store_true", help="MAP_probabilities.tif: of each class, per cent")
    group.add_argument("--experts", action="store_true", help="MAP_experts.tif: use of each expert, per cent")
    group.add_argument("--descriptors", action="store_true", help="MAP_descriptors.tif: what the routers were given")
    group.add_argument(
        "--polygons",
        metavar="FILE",
        help="areas as polygons: x.geojson, x.gpkg, or geojson, gpkg for a file beside the map",
    )
    group.add_argument("--stac", action="store_true", help="MAP.json: a STAC item")
    group.add_argument("--datetime", help="when the scene was taken, for --stac (default: what the raster says)")
    group.add_argument("--overviews", choices=("mode", "nearest"), default="mode", help="of the class map")


def map_files(scenes: Sequence[Path], out: str) -> list[Path]:
    """The map of each scene. InputError: several scenes and one file, two maps of one name, a map on its scene."""
    given = Path(out)
    is_file = given.suffix.lower() in SUFFIXES and not given.is_dir() and not out.endswith("/")
    if is_file and len(scenes) > 1:
        raise InputError(f"-o {out} is one map, and there are {len(scenes)} scenes. Name a folder")
    if not is_file and given.suffix and not given.is_dir() and not out.endswith("/"):
        raise InputError(f"-o {out}: a map is a GeoTIFF. Name a .tif file, or a folder (with / at the end)")
    maps = [given] if is_file else [given / f"{scene.stem}.tif" for scene in scenes]
    for number, (scene, target) in enumerate(zip(scenes, maps, strict=True)):
        if target in maps[:number]:
            raise InputError(f"two scenes are named {scene.stem}, and their maps would be one. Give two commands")
        if target.resolve() in {each.resolve() for each in scenes}:
            raise InputError(f"-o {out}: the map would replace the scene {target}. Name another")
    return maps


def _nodata(given: str) -> float | str | None:
    if given == "file":
        return "file"
    if given.lower() == "none":
        return None
    try:
        return float(given)
    except ValueError:
        raise InputError(f"--nodata must be file, none, nan or a number, not {given!r}") from None


def _settings(given: argparse.Namespace, image_size: int, digest: str) -> SegmentSettings:
    from geospatial.raster import RasterSettings
    from geospatial.scene_making import SegmentSettings
    from geospatial.scene_tiles import Blend

    if given.batch_size < 1:
        raise InputError(f"--batch-size must be at least 1, not {given.batch_size}")
    if given.roi_crs and not given.roi:
        raise InputError("--roi-crs says in which coordinates --roi is, and there is no --roi. Give both or neither")
    crop = image_size if given.crop is None else given.crop
    overlap = max(0, crop // 4) if given.overlap is None else given.overlap
    halo = max(0, overlap // 4) if given.halo is None else given.halo
    bands = None if given.bands is None else tuple(given.bands)
    raster = RasterSettings(bands, given.domain, _nodata(given.nodata), given.complex_as)  # pyright: ignore[reportArgumentType]
    return SegmentSettings(
        blend=Blend(crop, overlap, halo, given.blend),
        model={"model": given.model, "model_sha256": digest},
        raster=raster,
        roi=given.roi,
        roi_crs=given.roi_crs,
        descriptor_scope=given.descriptor_scope,
        batch=given.batch_size,
        overwrite=given.overwrite,
        polygons=given.polygons,
        stac=given.stac,
        datetime=given.datetime,
    )


def with_negative_values(argv: Sequence[str]) -> list[str]:
    """`--roi -118,33,-117,34` as `--roi=-118,...`, since argparse takes such a value for an option."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] in ("--roi", "--nodata") and re.match(r"-[.\d]|-inf", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _refuse_overlaps(scenes: Sequence[Path], maps: Sequence[Path], layers: Sequence[Layer]) -> None:
    """InputError: a file beside a map would take the place of a scene, or of what belongs to another map."""
    from geospatial.scene_segmentation import layer_files

    written: set[Path] = set()
    for path in (path.resolve() for target in maps for path in layer_files(target, layers).values()):
        if path in written or path in {scene.resolve() for scene in scenes}:
            raise InputError(f"{path.name} would be a file beside a map and another map or scene. Name another -o")
        written.add(path)


def main(argv: list[str], prog: str) -> int:
    """See the module. Exit code 0; InputError for everything a user can mend."""
    given = _parser(prog).parse_args(with_negative_values(argv))
    maps = map_files(given.scenes, given.out)
    if given.polygons:
        from geospatial.scene_polygons import polygon_file

        if len({polygon_file(target, given.polygons) for target in maps}) < len(maps):
            raise InputError(
                f"--polygons {given.polygons} is one file, and there are {len(maps)} scenes. Give geojson or gpkg"
            )
    from geospatial.crossearth_sar.pseudo_label import weights_digest
    from geospatial.crossearth_sar.scene_model import TileSegmenter
    from geospatial.crossearth_sar.segmenters import OwnSegmenter, load_segmenters
    from geospatial.scene_segmentation import segment_scene
    from mmzoo.durable_files import refused_writes_named

    member = load_segmenters([given.model], given.device)[0]
    if not isinstance(member, OwnSegmenter):
        raise InputError(f"{given.model} is no model of this zoo. Give a run's checkpoint; pseudo-label takes others")
    config = member.model.config
    model = TileSegmenter(member.model, [name for name in EXTRAS if getattr(given, name)], given.overviews)
    _refuse_overlaps(given.scenes, maps, model.layers)
    settings = _settings(given, config.image_size, weights_digest(given.model))
    if settings.blend.crop < config.patch_size:
        raise InputError(f"--crop {settings.blend.crop} is less than a patch of the model, {config.patch_size} px")
    for scene, target in zip(given.scenes, maps, strict=True):
        with refused_writes_named(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        _report(segment_scene(scene, target, model, settings), given.json)
    return EXIT_OK


def _report(record: MapRecord, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(asdict(record)) + "\n")
        return
    sys.stdout.write(f"{record.map}\n")
    total = sum(record.pixels.values()) + record.no_data
    shares = ", ".join(f"{name} {count / total:.1%}" for name, count in record.pixels.items())
    kept = " (was there)" if record.kept else ""
    sys.stderr.write(f"{record.map}{kept}: {shares}, no data {record.no_data / total:.1%}\n")
