"""`mmzoo benchmarks list` and `mmzoo benchmarks build`: which radar benchmarks there are, and one made ready to use."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from geospatial.crossearth_sar.benchmarks import (
    UNPUBLISHED,
    Benchmark,
    Side,
    benchmarks,
    data_sets,
    get_benchmark,
    get_data_set,
)
from mmzoo.errors import CommandParser, InputError, suggestion

RECORD = "benchmark.json"


def list_main(argv: list[str], prog: str) -> int:
    """`mmzoo benchmarks list [--json]`."""
    parser = CommandParser(prog=prog, description="List the radar benchmarks and the data sets behind them.")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    if parser.parse_args(argv).json:
        plain = {
            "benchmarks": [{**asdict(one), "known": one.known} for one in benchmarks().values()],
            "data_sets": [asdict(one) for one in data_sets().values()],
        }
        sys.stdout.write(json.dumps(plain, indent=1) + "\n")
        return 0
    for gap in dict.fromkeys(one.gap for one in benchmarks().values()):
        own = [one for one in benchmarks().values() if one.gap == gap]
        sys.stdout.write(f"{gap} (unpublished: {own[0].unpublished})\n")
        sys.stdout.writelines(f"  {one.name:<9} {_text(one.source)} -> {_text(one.target)}\n" for one in own)
    for one in data_sets().values():
        sys.stdout.write(f"{one.name}: {one.title}, {one.sensor}; {one.size}\n")
        sys.stdout.write(f"  classes {', '.join(one.classes)}\n  layout: {one.layout.source}; from {one.get}\n")
    return 0


def _text(side: Side) -> str:
    if side.data_set is None:
        return UNPUBLISHED
    return side.data_set + (f" ({side.view})" if side.view else "")


def build_main(argv: list[str], prog: str) -> int:
    """`mmzoo benchmarks build NAME --source FOLDER [--target FOLDER] --out FOLDER [...]`."""
    given = _parser(prog).parse_args(argv)
    names = {name.lower() for name in data_sets()}
    if given.name.lower() not in {*names, *(name.lower() for name in benchmarks())}:
        near = suggestion(given.name, [*data_sets(), *benchmarks()])
        raise InputError(f"there is no benchmark or data set {given.name!r}.{near} See: mmzoo benchmarks list")
    if not 0 <= given.val_fraction < 1:
        raise InputError(f"--val-fraction {given.val_fraction}: give a share from 0 up, below 1, such as 0.1")
    record = _build_data_set(given) if given.name.lower() in names else _build_pair(given)
    (given.out / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for side in record["sides"].values():
        if side["layout"] == "unverified":
            sys.stderr.write(f"layout: unverified ({side['data_set']}): look at a few masks before you train\n")
        if side["off_palette"]:
            sys.stderr.write(f"{side['data_set']}: {side['off_palette']:.2%} of the pixels were near no colour: 255\n")
    for side in record["sides"].values():
        sys.stdout.writelines(f"{given.out / name}\n" for name in side["lists"])
    return 0


def _parser(prog: str) -> CommandParser:
    parser = CommandParser(prog=prog, description="Make a benchmark, or one of its data sets, ready to use.")
    add = parser.add_argument
    add("name", help="of a benchmark, such as F2A, or of a data set: mmzoo benchmarks list")
    add("--out", type=Path, required=True, help="folder for the lists, the masks and benchmark.json")
    add("--val-fraction", type=float, default=0.1, help="of a source without splits of its own (default 0.1)")
    for side, what in (("source", "of the source, or of the data set"), ("target", "of the target")):
        add(f"--{side}", type=Path, required=side == "source", help=f"folder {what}")
        add(f"--{side}-images", metavar="GLOB", help="where its images lie, such as 'sar/*.tif'")
        add(
            f"--{side}-masks",
            metavar="OLD=NEW",
            help="what in an image's path makes its mask's: sar=lbl or GF3=lbl,jpg=png",
        )
        add(f"--{side}-codes", type=Path, help="JSON of its masks: {class: [ids]} or {class: [red, green, blue]}")
    return parser


def _build_data_set(given: Any) -> dict[str, Any]:
    data_set = get_data_set(given.name)
    shared = {name: name for name in data_set.classes}
    side = _build_side(given, "source", data_set.name, None, shared, data_set.classes)
    return {"name": data_set.name, "classes": _table(data_set.classes), "sides": {"source": side}}


def _build_pair(given: Any) -> dict[str, Any]:
    pair = get_benchmark(given.name)
    if not pair.known:
        raise InputError(f"which data sets {pair.name} is of is unpublished. Choose another: mmzoo benchmarks list")
    if given.target is None:
        raise InputError(f"{pair.name} has a target, {_text(pair.target)}. Name its folder with --target")
    classes = pair.classes()
    sides = {
        role: _build_side(given, role, str(side.data_set), side.view, pair.shared_class(str(side.data_set)), classes)
        for role, side in (("source", pair.source), ("target", pair.target))
    }
    return {"name": pair.name, **_said(pair), "classes": _table(classes), "sides": sides}


def _said(pair: Benchmark) -> dict[str, Any]:
    return {"gap": pair.gap, "unpublished": pair.unpublished, "mapping": pair.mapping}


def _table(classes: tuple[str, ...]) -> dict[str, str]:
    """As --classes of `mmzoo eval run` and the data section take it."""
    return {str(number): name for number, name in enumerate(classes)}


def _build_side(
    given: Any, role: str, name: str, view: str | None, shared: Any, classes: tuple[str, ...]
) -> dict[str, Any]:
    from geospatial.crossearth_sar.benchmark_build import Place, build

    images, masks, codes = (getattr(given, f"{role}_{part}") for part in ("images", "masks", "codes"))
    data_set = get_data_set(name)
    if view is not None and images is None:
        raise InputError(
            f"this side is a part or channel of {data_set.title}: {view}. Name its rasters: --{role}-images GLOB"
        )
    replaced = None if masks is None else _replaced(masks, role)
    place = Place(data_set, getattr(given, role), images, replaced, codes, role, given.val_fraction)
    built = build(place, shared, classes, given.out, role)
    return {
        "data_set": name,
        "view": view,
        "layout": data_set.layout.source,
        "images": built.images,
        "off_palette": built.off_palette,
        "domain": data_set.domain,
        "lists": [file.name for file in built.lists.values()],
    }


def _replaced(text: str, role: str) -> dict[str, str]:
    """ "sar=lbl" or "GF3=lbl,jpg=png" -> {old: new}. InputError: another form."""
    pairs = [part.split("=") for part in text.split(",")]
    if not all(len(pair) == 2 and pair[0] for pair in pairs):
        raise InputError(f"--{role}-masks {text!r}: give OLD=NEW, such as sar=lbl, or several with commas between")
    return {pair[0]: pair[1] for pair in pairs}
