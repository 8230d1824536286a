"""The page of CrossEarth-SAR's demo: what `mmzoo.report` is to show of an outcome."""

from __future__ import annotations

import json
import math

import numpy as np

from data_engine.generators.backscatter import CLASSES, COLOURS
from geospatial.class_masks import IGNORE
from geospatial.confusion_intervals import class_intervals, miou_interval
from geospatial.crossearth_sar.demo_measure import Scene
from geospatial.crossearth_sar.demo_outcome import Outcome
from geospatial.crossearth_sar.demo_results import (
    BRIGHTNESS,
    DENSE,
    EXPERTS,
    MAJORITY,
    NAMES,
    difference,
    matrices,
    measure_of,
    verdict,
)
from geospatial.crossearth_sar.demo_scenes import SENSORS, SIDE, SOURCES, SPLITS, UNSEEN
from mmzoo.report.environment import run_environment
from mmzoo.report.metrics_file import read_curves
from mmzoo.report.plot_record import PointGroup, PointPanel, ShareBars
from mmzoo.report.record import Curve, CurvePanel, Measure, MeasureTable, Picture, PictureGrid, PictureRow, RunReport

SHOWN_SCENES = 2  #: of each sensor
DESCRIPTORS = ("directional entropy / ln K", "ln(1 + looks)", "ln(1 + roughness / mean²)")
ROLES = {
    SOURCES[0]: "fine-tuned on",
    **dict.fromkeys(SOURCES[1:], "seen in pre-training"),
    UNSEEN: "never trained on",
}


def report_of(outcome: Outcome) -> RunReport:
    """The whole page."""
    minutes = outcome.demo.seconds["all"] / 60
    return RunReport(
        title="CrossEarth-SAR: experts for radars, trained and measured",
        summary=(
            f"A small dense encoder was trained on {len(SOURCES)} simulated radars, became {outcome.identity.experts} "
            f"experts a block, was trained on, and got a decoder from {SOURCES[0]} alone, in {minutes:.1f} minutes. "
            f"On {UNSEEN}, which no training saw, it {verdict(difference(outcome, UNSEEN))} the dense model that was "
            f"trained alike, and {verdict(difference(outcome, UNSEEN, BRIGHTNESS))} thresholds on brightness."
        ),
        command=outcome.demo.command,
        headline=_headline(outcome),
        warnings=[
            "The scenes are simulated, and every training lasts seconds. The page shows that each step works and is "
            "measured; it does not show how good CrossEarth-SAR is at radar.",
        ],
        grids=[_maps(outcome)],
        tables=[_by_sensor(outcome), *(_by_class(outcome, sensor) for sensor in (SOURCES[0], UNSEEN))],
        curves=_curves(outcome),
        bars=_usage(outcome),
        points=_descriptors(outcome),
        facts=_facts(outcome),
        environment=run_environment(outcome.demo.out / "experts"),
        not_measured=[
            "Real radar images: the generator has no terrain, no sidelobes, no moisture or wind, no correlation "
            "between polarisations (see data_engine/generators/sar_scenes.py).",
            "Other seeds of the trainings: intervals say how scenes differ, not how a second training would.",
            "The published sizes, Mask2Former, the Earth-Adapter, and anything on a GPU.",
        ],
        notes=[
            "Intervals resample whole scenes (bootstrap, 2,000 times): pixels of one scene are alike. Differences are "
            "paired by scene.",
            "The dense model was continued and fine-tuned with the same steps, data and settings as the experts.",
            f"`best` of every training was chosen on other scenes of the radars it was trained on, never of {UNSEEN}.",
            "A class in neither labels nor predictions of all scenes has no IoU and is left out of the mean.",
            f"Scenes of {SIDE} px are segmented in tiles of {outcome.model.config.image_size} px: seams are their "
            "borders. Only the first band is used.",
        ],
    )


def _headline(outcome: Outcome) -> list[Measure]:
    unseen = {name: miou_interval(found) for name, found in matrices(outcome, UNSEEN).items()}
    gain = difference(outcome, UNSEEN)
    return [
        measure_of("mIoU, unseen radar", unseen[EXPERTS], f"{UNSEEN}; dense model {unseen[DENSE].value:.3f}"),
        measure_of("Experts minus dense, unseen radar", gain, "mIoU, paired by scene"),
        measure_of("mIoU, fine-tuned radar", miou_interval(outcome.experts[SOURCES[0]].matrices), SOURCES[0]),
        measure_of("mIoU of thresholds, unseen radar", unseen[BRIGHTNESS], "on smoothed brightness"),
    ]


def _by_sensor(outcome: Outcome) -> MeasureTable:
    rows = []
    for sensor in SENSORS:
        found = matrices(outcome, sensor)
        names = (EXPERTS, DENSE, BRIGHTNESS, MAJORITY)
        rows += [measure_of(f"{sensor}, {NAMES[name]}", miou_interval(found[name]), ROLES[sensor]) for name in names]
        rows.append(measure_of(f"{sensor}, experts minus dense", difference(outcome, sensor), "paired by scene"))
    return MeasureTable(
        "Mean IoU by radar",
        rows,
        f"Scenes that no training saw. Thresholds: for each decibel of the 5 x 5 px mean power the class most frequent "
        f"there in the training scenes of {SOURCES[0]}; the one class is the most frequent of these.",
    )


def _by_class(outcome: Outcome, sensor: str) -> MeasureTable:
    found = matrices(outcome, sensor)
    rows = [
        measure_of(f"{label}, {NAMES[name]}", one)
        for number, label in enumerate(CLASSES)
        for name in (EXPERTS, DENSE, BRIGHTNESS)
        for one in [class_intervals(found[name])[number]]
    ]
    return MeasureTable(f"IoU by class on {sensor}", rows, f"This radar was {ROLES[sensor]}.")


def grey(scene: Scene) -> np.ndarray:
    """dB as uint8 (H, W), stretched from the 2nd to the 98th per cent of the valid pixels."""
    low, high = np.quantile(scene.values[scene.valid], [0.02, 0.98])
    return (255 * np.clip((scene.values - low) / max(high - low, 1e-6), 0, 1)).astype(np.uint8)


def coloured(labels: np.ndarray) -> np.ndarray:
    """Classes (H, W) -> uint8 (H, W, 3) in the generator's colours, black where not labelled."""
    table = np.zeros((IGNORE + 1, 3), np.uint8)
    table[: len(COLOURS)] = COLOURS
    return table[labels]


def _accuracy(scene: Scene, found: np.ndarray) -> str:
    known = scene.labels != IGNORE
    return f"{100 * float((found == scene.labels)[known].mean()):.0f} % of pixels" if known.any() else "no labels"


def _maps(outcome: Outcome) -> PictureGrid:
    rows = []
    for sensor in reversed(SENSORS):
        for number, scene in enumerate(outcome.scenes[sensor][:SHOWN_SCENES]):
            maps = [outcome.experts[sensor].maps[number], outcome.dense[sensor].maps[number]]
            pictures = [Picture(grey(scene)), Picture(coloured(scene.labels))]
            pictures += [Picture(coloured(found), _accuracy(scene, found)) for found in maps]
            rows.append(PictureRow(f"{scene.name}, {ROLES[sensor]}", pictures))
    words = ("blue", "sand", "yellow", "green", "grey", "red")
    legend = ", ".join(f"{label} {colour}" for label, colour in zip(CLASSES, words, strict=True))
    return PictureGrid(
        "Measured scenes",
        ["first band, dB", "truth", "experts", "dense"],
        rows,
        f"The first {SHOWN_SCENES} scenes of each radar; none was chosen by its look. {legend.capitalize()}.",
    )


def _curves(outcome: Outcome) -> list[CurvePanel]:
    folders = {"dense": "dense", "experts": "experts", "dense continued": "dense_continued"}
    tuned = {"experts": "experts_tuned", "dense": "dense_continued_tuned"}

    def curves(runs: dict[str, str], name: str) -> list[Curve]:
        read = {label: read_curves(outcome.demo.out / run / "metrics.csv") for label, run in runs.items()}
        return [Curve(label, own[name].steps, own[name].values) for label, own in read.items() if name in own]

    experts = read_curves(outcome.demo.out / "experts" / "metrics.csv")
    blocks = range(min(4, outcome.model.config.num_hidden_layers))
    entropy = [
        Curve(f"block {block}", own.steps, own.values)
        for block in blocks
        if (own := experts.get(f"train/router_entropy/block{block:02}")) is not None
    ]
    most = math.log(outcome.model.config.num_experts)
    return [
        CurvePanel("Pre-training: cross-entropy", curves(folders, "train/cross_entropy"), unit="nats"),
        CurvePanel("Pre-training: mIoU on validation scenes", curves(folders, "val/miou")),
        CurvePanel(f"Router entropy, pre-training (at most {most:.2f})", entropy, unit="nats"),
        CurvePanel("Balance loss of the experts (1 is even)", curves({"experts": "experts"}, "train/balance")),
        CurvePanel("Fine-tuning: cross-entropy", curves(tuned, "train/cross_entropy"), unit="nats"),
        CurvePanel("Fine-tuning: mIoU on validation scenes", curves(tuned, "val/miou")),
    ]


def _usage(outcome: Outcome) -> list[ShareBars]:
    names = [f"expert {number}" for number in range(outcome.model.config.num_experts)]
    bars = []
    for block in range(outcome.model.config.num_hidden_layers):
        rows = []
        for sensor in SENSORS:
            counts = outcome.experts[sensor].routing.expert_counts[block]
            rows.append((sensor, (counts / counts.sum()).tolist()))
        entropy = [float(outcome.experts[sensor].routing.entropy[block]) for sensor in SENSORS]
        note = (
            f"Share of the tokens of all measured scenes. Router entropy {min(entropy):.2f} to {max(entropy):.2f} nats."
        )
        bars.append(ShareBars(f"Who takes the tokens in block {block}", names, rows, note))
    return bars


def _descriptors(outcome: Outcome) -> list[PointPanel]:
    def groups(across: int, up: int) -> list[PointGroup]:
        values = {sensor: outcome.experts[sensor].routing.descriptors for sensor in SENSORS}
        return [PointGroup(name, each[:, across].tolist(), each[:, up].tolist()) for name, each in values.items()]

    return [
        PointPanel("Descriptors that the routers get, by tile", DESCRIPTORS[1], DESCRIPTORS[2], groups(1, 2)),
        PointPanel("Direction of edges, by tile", DESCRIPTORS[1], DESCRIPTORS[0], groups(1, 0)),
    ]


def _facts(outcome: Outcome) -> dict[str, str]:
    model, identity = outcome.model, outcome.identity
    times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in outcome.demo.seconds.items())
    runs = ("dense", "experts", "experts_tuned")
    updates = [json.loads((outcome.demo.out / run / "run.json").read_text(encoding="utf-8"))["steps"] for run in runs]
    total = sum(p.numel() for p in model.encoder.parameters())
    return {
        "radars": ", ".join(f"{sensor} ({role})" for sensor, role in ROLES.items()),
        "scenes": f"{SPLITS['train']} to train on, {SPLITS['val']} to choose by, {SPLITS['measured']} to measure on, "
        f"{SIDE} px, of each radar",
        "encoder": f"{total:,} parameters, of which a token meets {model.encoder.active_parameters():,}; "
        f"{identity.experts} experts a block",
        "upcycling": f"on {identity.images} tiles each expert alone gives the dense encoder's bits; as the "
        f"routers choose, {100 * identity.equal_share:.1f} % of the values are bit-equal, largest difference "
        f"{identity.difference:.2g}",
        "updates": f"{updates[0]:,} dense, {updates[1]:,} continued, {updates[2]:,} fine-tuned (decoder only)",
        "wall time": times,
        "reloaded, bit-equal": ", ".join(outcome.reloaded_outputs),
        "configs": ", ".join(f"crossearth_sar/demo-{name}" for name in ("dense", "pretraining", "fine-tuning")),
    }
