"""The numbers of a finished log: scores of summed counts, with intervals over groups, and what is lost on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eval_suites.record import Metric
from eval_suites.sample_log import SampleRow
from eval_suites.sar_segmentation import scores
from eval_suites.sar_segmentation.counts import Counts
from eval_suites.statistics import bootstrap_mean
from geospatial.confusion_intervals import LEVEL, interval_ends, resampled_sums

SOURCE, TARGET = "source", "target"
ABSENT = "in neither the labels nor the predictions"


class Drawn(NamedTuple):
    """A score, and what it is in each resample (R,)."""

    value: float
    resamples: np.ndarray


class Group(NamedTuple):
    """The counts of one role, summed by group: matrices (G, K, K), boundaries (G, 2, K); `rasters` behind them."""

    matrices: np.ndarray
    boundaries: np.ndarray
    rasters: int


def row_of(role: str, key: str, group: str, counts: Counts) -> SampleRow:
    """The log's row of a raster. Its own mIoU is there where it has a labelled pixel."""
    own = float(scores.miou(counts.matrix))
    values = {} if np.isnan(own) else {_name("image_miou", role): own}
    more = {"role": role, "matrix": counts.matrix.tolist(), "boundary": counts.boundary.tolist()}
    return SampleRow(f"{role}/{key}", group, values, more)


def make_metrics(rows: Sequence[SampleRow], names: Sequence[str]) -> list[Metric]:
    """Every metric of the suite; those of a source are there where one was measured."""
    metrics: list[Metric] = []
    drawn: dict[str, dict[str, Drawn]] = {}
    for role in (TARGET, SOURCE):
        own = [row for row in rows if row.more["role"] == role]
        if own:
            group = grouped(own)
            drawn[role] = _drawn(group)
            metrics += [_metric(_name(name, role), found, group) for name, found in drawn[role].items()]
            metrics += _of_classes(group, names, role)
            metrics.append(_image_miou(own, role))
    if SOURCE in drawn:
        metrics += [_drop(name, drawn[SOURCE][name], drawn[TARGET][name], len(rows)) for name in drawn[SOURCE]]
    return metrics


def remake(settings: Mapping[str, Any], rows: Sequence[SampleRow]) -> list[Metric]:
    """The metrics that a finished log stands for. LookupError, TypeError, ValueError: rows of another kind."""
    return make_metrics(rows, list(settings["classes"].values()))


def grouped(rows: Sequence[SampleRow]) -> Group:
    """Sums by group, in the order of the groups' names."""
    order = sorted({row.group for row in rows})
    place = np.array([order.index(row.group) for row in rows])
    parts = [np.array([row.more[name] for row in rows], np.int64) for name in ("matrix", "boundary")]
    sums = [np.zeros((len(order), *part.shape[1:]), np.int64) for part in parts]
    for total, part in zip(sums, parts, strict=True):
        np.add.at(total, place, part)
    return Group(sums[0], sums[1], len(rows))


def confusion(rows: Sequence[SampleRow], names: Sequence[str]) -> dict[str, Any]:
    """{"classes", "target", "source"}: summed matrices, rows = labels, for a file beside the record."""
    found = {
        role: grouped(own).matrices.sum(0).tolist()
        for role in (TARGET, SOURCE)
        if (own := [row for row in rows if row.more["role"] == role])
    }
    return {"classes": list(names), "rows": "labels", "columns": "predictions", **found}


def _name(name: str, role: str) -> str:
    return name if role == TARGET else f"{name}@{SOURCE}"


def _drawn(group: Group) -> dict[str, Drawn]:
    sums = resampled_sums(group.matrices)
    found = {
        name: Drawn(float(statistic(group.matrices.sum(0))), statistic(sums))
        for name, statistic in scores.OF_MATRIX.items()
    }
    edges = resampled_sums(group.boundaries)
    found["boundary_miou"] = Drawn(float(scores.boundary_miou(group.boundaries.sum(0))), scores.boundary_miou(edges))
    return found


def _of_classes(group: Group, names: Sequence[str], role: str) -> list[Metric]:
    sums, edges = resampled_sums(group.matrices), resampled_sums(group.boundaries)
    columns = {name: (statistic(group.matrices.sum(0)), statistic(sums)) for name, statistic in scores.OF_CLASS.items()}
    columns["boundary_iou"] = scores.boundary_iou(group.boundaries.sum(0)), scores.boundary_iou(edges)
    return [
        _metric(_slice(name, label, role), Drawn(float(values[number]), drawn[:, number]), group)
        for name, (values, drawn) in columns.items()
        for number, label in enumerate(names)
    ]


def _slice(name: str, label: str, role: str) -> str:
    """ "iou@water", "iou@water@source"."""
    return f"{name}@{label}" + ("" if role == TARGET else f"@{SOURCE}")


def _metric(name: str, found: Drawn, group: Group) -> Metric:
    if np.isnan(found.value):
        return Metric.absent(name, ABSENT, higher_is_better=True)
    groups = len(group.matrices)
    low, high = interval_ends(found.resamples, groups)
    level = None if low is None else LEVEL
    return Metric(name, found.value, "", True, low, high, level, group.rasters, groups)


def _drop(name: str, source: Drawn, target: Drawn, rasters: int) -> Metric:
    """What is lost from source to target; the resamples of the two are independent of one another."""
    label = f"{name}_drop"
    if np.isnan(source.value) or np.isnan(target.value):
        return Metric.absent(label, "one of the two was not measured", higher_is_better=False)
    differences = source.resamples - np.roll(target.resamples, 1)  # equal draws where both have as many groups
    spread = all(len(np.unique(one.resamples)) > 1 for one in (source, target))
    low, high = interval_ends(differences, 2 if spread else 1)
    level = None if low is None else LEVEL
    return Metric(label, source.value - target.value, "", False, low, high, level, rasters, 0)


def _image_miou(rows: Sequence[SampleRow], role: str) -> Metric:
    """The mean over rasters of their own mIoU: what two models are compared on, raster by raster."""
    name = _name("image_miou", role)
    own = [row for row in rows if name in row.values]
    if not own:
        return Metric.absent(name, "no raster has a labelled pixel", higher_is_better=True)
    interval = bootstrap_mean([row.values[name] for row in own], [row.group for row in own])
    return Metric.of(name, interval, higher_is_better=True)
