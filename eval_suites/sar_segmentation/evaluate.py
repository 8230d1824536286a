"""`mmzoo eval run sar_segmentation`: each raster mapped once, counted once, a row each; scores from the rows alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_engine.progress import tracked
from eval_suites.record import DataStamp, Metric
from eval_suites.request import EvalRequest
from eval_suites.sar_segmentation.class_maps import MapMaker
from eval_suites.sar_segmentation.counts import BOUNDARY_SHARE, count
from eval_suites.sar_segmentation.figures import SOURCE, TARGET, confusion, make_metrics, row_of
from eval_suites.sar_segmentation.rasters import RasterSet, open_item, open_rasters
from geospatial.class_masks import IGNORE, ClassTable
from geospatial.raster import RasterSettings
from mmzoo.durable_files import write_text
from mmzoo.errors import InputError

CONFUSION = "confusion.json"
BATCH = 16


def evaluate(request: EvalRequest) -> Sequence[Metric]:
    """See eval_suites/request.py; README.md beside this file is the protocol. Options: suite.py.

    Leaves the confusion matrices beside the log.
    """
    options = request.options
    maker = MapMaker.of(request.model, options.get("window"), options.get("batch") or BATCH, request.device)
    names = [str(name) for name in request.model.config.class_names]
    table = class_table(options, names)
    sets = _open_sets(request)
    reading = RasterSettings(bands=options.get("bands"), domain=options.get("domain"))
    share = options.get("boundary") or BOUNDARY_SHARE
    log = request.open_log(_stated(request, maker, table, share, sets), _stamp(sets))
    todo = [(role, item) for role, own in sets.items() for item in own.items if f"{role}/{item.key}" not in log]
    for role, item in tracked(todo, "measuring", len(todo)):
        opened = open_item(item, reading, table)
        found = count(opened.labels, maker.classes(opened.pixels, opened.domain), len(names), share)
        log.append(row_of(role, item.key, item.group, found))
    metrics = make_metrics(log.rows, names)
    write_text(log.path.parent / CONFUSION, json.dumps(confusion(log.rows, names), indent=1) + "\n")
    return metrics


def class_table(options: Mapping[str, Any], names: Sequence[str]) -> ClassTable:
    """The classes of the masks. InputError: other names, or another order, than the model's."""
    ignore = tuple(options.get("ignore") or (IGNORE,))
    given: Path | None = options.get("classes")
    table = ClassTable.of(given if given is not None else dict(enumerate(names)), ignore)
    if list(table.names) != list(names):
        raise InputError(
            f"the masks' classes are {', '.join(table.names)} and the model's {', '.join(names)}. Give --classes a "
            f"file with the model's names in its order, each with its id in the masks"
        )
    return table


def _open_sets(request: EvalRequest) -> dict[str, RasterSet]:
    group, source = request.options.get("group"), request.options.get("source")
    places = {TARGET: request.data, **({SOURCE: source} if source is not None else {})}
    return {role: open_rasters(path, request.split, group, request.limit) for role, path in places.items()}


def _stated(
    request: EvalRequest, maker: MapMaker, table: ClassTable, share: float, sets: Mapping[str, RasterSet]
) -> dict[str, Any]:
    options = request.options
    return {
        "window": maker.window,
        "classes": {str(number): name for number, name in zip(table.ids, table.names, strict=True)},
        "ignore": list(table.ignore),
        "bands": list(options["bands"]) if options.get("bands") else None,
        "domain": options.get("domain"),
        "boundary": share,
        "limit": request.limit,
        "source": sets[SOURCE].identity if SOURCE in sets else None,
    }


def _stamp(sets: Mapping[str, RasterSet]) -> DataStamp:
    target = sets[TARGET]
    identity = hashlib.sha256("".join(f"{role} {own.identity}\n" for role, own in sets.items()).encode()).hexdigest()
    n = sum(len(own.items) for own in sets.values())
    return DataStamp(target.name, target.kind, target.split, identity, n)
