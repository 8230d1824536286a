"""`mmzoo pseudo-label`: label rasters from segmentation models, with how sure they are and how far they agree.

The optical pictures of co-registered pairs are labelled by models that know optical pictures; the labels then belong
to the radar pictures of the same names (spec section 2.1). Confidence and agreement let training leave doubtful pixels
out. A picture is labelled whole: scenes are cut into chips before.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_engine.index import probe
from data_engine.progress import tracked
from geospatial.class_masks import IGNORE
from geospatial.raster import Raster, RasterSettings, write_raster
from geospatial.raster_sources import least_percent, rasters_in
from mmzoo.durable_files import refused_writes_named, replacing, sha256_of, write_text
from mmzoo.errors import EXIT_OK, CommandParser, InputError
from mmzoo.hub.source import find_source
from mmzoo.hub.weights import weight_files

FOLDERS = ("labels", "confidence", "agreement")
SETTINGS_FILE = "pseudo_labels.json"
PERCENT_NODATA = 255
MOST_PIXELS = 4096**2
#: Axes of (C, H, W) that the views of a picture are flipped along.
VIEWS: tuple[tuple[int, ...], ...] = ((), (2,), (1,), (1, 2))


class Votes(NamedTuple):
    """What the members of a vote say of each pixel (H, W), uint8.

    labels: the class of the largest mean probability. confidence: that probability in per cent. agreement: share of the
    members, in per cent, whose own first choice it is.
    """

    labels: np.ndarray
    confidence: np.ndarray
    agreement: np.ndarray


def vote(probabilities: Sequence[np.ndarray]) -> Votes:
    """The vote of members whose class probabilities are (K, H, W) each; every member counts the same."""
    mean = np.mean(probabilities, axis=0)
    labels = mean.argmax(0)
    same = np.mean([member.argmax(0) == labels for member in probabilities], axis=0)
    percent = [np.floor(100 * share + 1e-4).astype(np.uint8) for share in (mean.max(0), same)]
    return Votes(labels.astype(np.uint8), *percent)


def remapped(probabilities: np.ndarray, remap: dict[int, int] | None, classes: int) -> np.ndarray:
    """Probabilities (K, H, W) of a model's classes as those of (classes, H, W): those of a class are added up.

    What the model gives to classes that are mapped to none is in none of them, so they need not add up to 1.
    """
    if remap is None:
        return probabilities
    found = np.zeros((classes, *probabilities.shape[1:]), probabilities.dtype)
    for of_model, number in remap.items():
        found[number] += probabilities[of_model]
    return found


def most_lost(probabilities: np.ndarray, remap: dict[int, int] | None) -> np.ndarray:
    """The largest probability (H, W) of a class of (K, H, W) that is mapped to none."""
    others = [number for number in range(len(probabilities)) if remap is not None and number not in remap]
    return probabilities[others].max(0) if others else np.zeros(probabilities.shape[1:], probabilities.dtype)


def label_raster(members: Sequence[Any], raster: Raster, settings: argparse.Namespace) -> Votes:
    """The vote of models and flips on a raster. Pixels without data, or below the thresholds, get IGNORE."""
    if raster.height * raster.width > MOST_PIXELS:
        raise InputError(f"{raster.path} has {raster.height} x {raster.width} px. Cut it into chips: gdal_retile.py")
    pixels = raster.read()
    raster.refuse_impossible(pixels)
    found: list[np.ndarray] = []
    lost: list[np.ndarray] = []
    for member in members:
        for axes in VIEWS[: settings.flips]:
            values, valid = _flipped(pixels.values, axes), _flipped(pixels.valid[None], axes)[0]
            scores = _flipped(member.probabilities(values, valid), axes)
            if not np.isfinite(scores[:, pixels.valid]).all():
                raise InputError(
                    f"the model gives no finite probabilities on {raster.path}. Look at the training of the model, and "
                    f"for values in the raster that its domain cannot hold"
                )
            found.append(remapped(scores, settings.remap, settings.classes))
            lost.append(most_lost(scores, settings.remap))
    votes = vote(found)
    unsure = votes.confidence < least_percent(settings.min_confidence)
    unsure |= votes.agreement < least_percent(settings.min_agreement)
    unsure |= np.mean(lost, axis=0) > np.mean(found, axis=0).max(0)  # the first choice is mapped to none
    labels = np.where(unsure | ~pixels.valid, IGNORE, votes.labels).astype(np.uint8)
    blank = [np.where(pixels.valid, part, PERCENT_NODATA).astype(np.uint8) for part in votes[1:]]
    return Votes(labels, *blank)


def _flipped(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return np.ascontiguousarray(np.flip(values, axes)) if axes else values


def write_votes(folder: Path, key: str, votes: Votes, like: Raster) -> None:
    """Three rasters of one name, with the place of `like`; labels last, so that what has labels is whole."""
    for kind, values in reversed(list(zip(FOLDERS, votes, strict=True))):
        path = folder / kind / f"{key}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            write_raster(temporary, values[None], like, nodata=IGNORE)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("images", type=Path, help="folder of rasters or pictures")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for labels/, confidence/, agreement/")
    parser.add_argument("--model", action="append", required=True, help="model folder or Hub id; several vote")
    parser.add_argument("--flips", type=int, choices=(1, 2, 4), default=1, help="views of each model that vote")
    parser.add_argument("--remap", metavar="JSON", help='{"class of the model": class of the labels}; others are lost')
    parser.add_argument("--bands", type=int, nargs="+", help="which bands, counted from 1 (default: all)")
    parser.add_argument("--domain", help="what the values are (default: what the rasters say); display8 for pictures")
    parser.add_argument("--min-confidence", type=float, default=0.0, help="0 to 1; pixels below are not labelled")
    parser.add_argument("--min-agreement", type=float, default=0.0, help="0 to 1; pixels below are not labelled")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ...")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")
    return parser


def _checked(given: argparse.Namespace) -> argparse.Namespace:
    for name in ("min_confidence", "min_agreement"):
        if not 0 <= getattr(given, name) <= 1:
            raise InputError(f"--{name.replace('_', '-')} must be in 0 to 1, not {getattr(given, name)}")
    if not given.images.is_dir():
        raise InputError(f"there is no folder {given.images}. Give the folder of the pictures to label")
    text = given.remap
    try:
        given.remap = None if text is None else _class_numbers(json.loads(text))
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise InputError(f'--remap must be like {{"3": 0, "5": 1}}, not {str(text)[:60]!r}') from None
    if given.remap and not all(0 <= number < IGNORE for number in given.remap.values()):
        raise InputError(f"--remap leads to classes 0 to {IGNORE - 1}, not {sorted(given.remap.values())}")
    return given


def _class_numbers(content: Mapping[str, Any]) -> dict[int, int]:
    """{class: class} of a JSON object. ValueError: a number that is not whole; others for other shapes."""
    if any(type(number) is not int for number in content.values()):
        raise ValueError
    return {int(name): number for name, number in content.items()}


def _settings_of(given: argparse.Namespace, rasters: Mapping[str, Path]) -> dict[str, Any]:
    """All that a label depends on. A path says little: `best` moves, and pictures are exchanged under one name."""
    names = ("model", "flips", "remap", "bands", "domain", "min_confidence", "min_agreement")
    pictures = hashlib.sha256(json.dumps([[key, probe(path)] for key, path in rasters.items()]).encode())
    stamps = {"weights": [weights_digest(name) for name in given.model], "pictures": pictures.hexdigest()}
    return json.loads(json.dumps({**{name: getattr(given, name) for name in names}, **stamps}))


def weights_digest(model: str) -> str:
    """sha256 (hex) over the files of a model's weights."""
    folder = find_source(model).folder
    return hashlib.sha256("".join(sha256_of(folder / name) for name in weight_files(folder)).encode()).hexdigest()


def _begin(folder: Path, settings: dict[str, Any]) -> None:
    """Notes the settings; InputError when the folder was begun with others."""
    file = folder / SETTINGS_FILE
    try:
        before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else settings
        if not isinstance(before, dict):
            raise ValueError(f"a {type(before).__name__}")
    except (OSError, ValueError, RecursionError) as fault:
        raise InputError(f"{file} cannot be read ({fault}). Choose another folder, or remove this one") from None
    if any((folder / "labels").glob("*.tif")):  # settings that labelled nothing bind nobody
        for name, value in settings.items():
            if before.get(name) != value:
                raise InputError(
                    f"{folder} was begun with another {name}: {before.get(name)} there, {value} now. "
                    f"Set it back, or choose another folder"
                )
    with refused_writes_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(settings, indent=1) + "\n")


def main(argv: Sequence[str], prog: str) -> int:
    """`mmzoo pseudo-label`: rasters that have labels already are kept, so that it may be stopped and run again."""
    from geospatial.crossearth_sar.segmenters import load_segmenters

    given = _checked(_parser(prog).parse_args(argv))
    if given.images.resolve() in (given.out.resolve(), *given.out.resolve().parents):
        raise InputError(f"-o {given.out} lies among the pictures, and would be labelled itself. Name another")
    rasters = rasters_in(given.images)
    if not rasters:
        raise InputError(f"there is no raster in {given.images}. Give a folder of GeoTIFF or PNG files")
    members = load_segmenters(given.model, given.device, given.remap)
    given.classes = max(given.remap.values()) + 1 if given.remap else members[0].classes
    _begin(given.out, _settings_of(given, rasters))
    settings = RasterSettings(bands=None if given.bands is None else tuple(given.bands), domain=given.domain)
    counts = np.zeros(256, np.int64)
    totals = {"rasters": 0, "kept": 0, "confidence": 0.0, "agreement": 0.0}
    for key, path in tracked(rasters.items(), "rasters", len(rasters)):
        if (given.out / "labels" / f"{key}.tif").is_file():
            totals["kept"] += 1
            continue
        with Raster(path, settings) as raster:
            for member in members:
                member.check_domain(raster.domain, path)
            votes = label_raster(members, raster, given)
            write_votes(given.out, key, votes, raster)
        counts += np.bincount(votes.labels.reshape(-1), minlength=256)
        totals["rasters"] += 1
        for name in ("confidence", "agreement"):
            part = getattr(votes, name)
            totals[name] += float(part[part != PERCENT_NODATA].mean()) if (part != PERCENT_NODATA).any() else 0.0
    _report(given, counts, totals, len(members) * given.flips)
    return EXIT_OK


def _report(given: argparse.Namespace, counts: np.ndarray, totals: dict[str, Any], voters: int) -> None:
    made = max(1, totals["rasters"])
    summary = {
        "out": str(given.out),
        "rasters": totals["rasters"],
        "kept_from_before": totals["kept"],
        "voters": voters,
        "mean_confidence": totals["confidence"] / made / 100,
        "mean_agreement": totals["agreement"] / made / 100,
        "unlabelled_share": float(counts[IGNORE] / max(1, counts.sum())),
        "pixels_by_class": {str(number): int(counts[number]) for number in np.flatnonzero(counts[:IGNORE])},
    }
    if given.json:
        sys.stdout.write(json.dumps(summary, indent=1) + "\n")
        return
    sys.stdout.write(
        f"{summary['rasters']} rasters labelled by {voters} voters, {totals['kept']} kept from before: {given.out}\n"
        f"mean confidence {summary['mean_confidence']:.3f}, mean agreement {summary['mean_agreement']:.3f}, "
        f"unlabelled {summary['unlabelled_share']:.1%}\n"
    )
