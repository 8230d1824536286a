"""The numbers of CrossEarth-SAR's demo: intervals by scene, verdicts in words, and `results.json`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from data_engine.generators.backscatter import CLASSES
from geospatial.confusion_intervals import LEVEL, ScoreInterval, class_intervals, miou_difference, miou_interval
from geospatial.crossearth_sar.demo_outcome import Outcome
from geospatial.crossearth_sar.demo_scenes import SENSORS
from mmzoo.report.record import Measure

EXPERTS, DENSE, BRIGHTNESS, MAJORITY = "experts", "dense", "brightness", "majority"
NAMES = {
    EXPERTS: "experts",
    DENSE: "dense model, trained alike",
    BRIGHTNESS: "thresholds on smoothed brightness",
    MAJORITY: "one class everywhere",
}


def matrices(outcome: Outcome, sensor: str) -> dict[str, np.ndarray]:
    """Confusion matrices (scenes, K, K) on the scenes of a sensor, by key of NAMES."""
    own = {EXPERTS: outcome.experts[sensor].matrices, DENSE: outcome.dense[sensor].matrices}
    return {**own, **outcome.baselines[sensor]}


def difference(outcome: Outcome, sensor: str, other: str = DENSE) -> ScoreInterval:
    """Mean IoU of the experts minus that of another, on the same scenes."""
    found = matrices(outcome, sensor)
    return miou_difference(found[EXPERTS], found[other])


def verdict(found: ScoreInterval) -> str:
    """What a difference says, in one word or a few."""
    if found.low is None or found.high is None or found.low <= 0 <= found.high:
        return "cannot be told from"
    return "is better than" if found.low > 0 else "is worse than"


def measure_of(name: str, found: ScoreInterval, note: str = "") -> Measure:
    """For the page; a class that is nowhere was not measured."""
    return Measure(
        name=name,
        value=None if np.isnan(found.value) else found.value,
        low=found.low,
        high=found.high,
        level=None if found.low is None else LEVEL,
        n=found.images,
        counted="scenes",
        note=note,
    )


def results(outcome: Outcome) -> dict[str, Any]:
    """What was measured, as plain values: `results.json` beside the report."""
    return {
        "sensors": {sensor: _of_sensor(outcome, sensor) for sensor in SENSORS},
        "upcycling": asdict(outcome.identity),
        "seconds": outcome.demo.seconds,
        "reloaded_bit_equal": outcome.reloaded_outputs,
    }


def _of_sensor(outcome: Outcome, sensor: str) -> dict[str, Any]:
    routing = outcome.experts[sensor].routing
    scores = {
        name: {
            "miou": _plain(miou_interval(of_model)),
            "iou": {label: _plain(one) for label, one in zip(CLASSES, class_intervals(of_model), strict=True)},
        }
        for name, of_model in matrices(outcome, sensor).items()
    }
    return {
        "scores": scores,
        "experts_minus_dense_miou": _plain(difference(outcome, sensor)),
        "expert_counts": routing.expert_counts.tolist(),
        "router_entropy_nats": routing.entropy.tolist(),
    }


def _plain(found: ScoreInterval) -> dict[str, float | int | None]:
    """JSON knows no NaN."""
    return {name: None if value is None or np.isnan(value) else value for name, value in asdict(found).items()}
