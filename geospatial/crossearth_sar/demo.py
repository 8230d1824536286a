"""CrossEarth-SAR's demo: radars -> dense model -> experts -> continued pre-training -> fine-tuning on one radar
-> measured on a radar that was never trained on, beside the dense model -> reloaded -> report.

Every training is a command that a user would type; it is shown before it runs.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from data_engine.generators.backscatter import CLASSES
from geospatial.brightness_baseline import BrightnessClasses
from geospatial.class_masks import ClassTable
from geospatial.crossearth_sar.demo_measure import Scene, measure, measure_baselines, read_scenes, tiles_of
from geospatial.crossearth_sar.demo_outcome import Outcome
from geospatial.crossearth_sar.demo_report import report_of
from geospatial.crossearth_sar.demo_results import results
from geospatial.crossearth_sar.demo_scenes import SENSORS, SOURCES, measured_pairs, pairs_of, write_sensors
from geospatial.crossearth_sar.demo_upcycling import Identity, compare, write_dense_weights
from geospatial.crossearth_sar.segmentation_model import CrossEarthSARForSegmentation
from mmzoo.demo import Demo
from mmzoo.errors import InputError
from mmzoo.hub.fresh_process import differing_outputs, outputs_of
from mmzoo.hub.load import from_pretrained
from mmzoo.report.run_report import write_report

VARIANT = "crossearth-sar/tiny-demo"
DENSE, PRETRAINING, FINE_TUNING = (f"crossearth_sar/demo-{name}" for name in ("dense", "pretraining", "fine-tuning"))
#: The same stage with one feed-forward layer instead of experts.
ONE_EXPERT = ["--model.init_args.overrides", '{"num_experts": 1}']
IDENTITY_SCENES = 4  #: scenes of each source that dense and upcycled are compared on


def main(demo: Demo) -> Path:
    """Runs the whole demo and returns the report's path."""
    if demo.images is not None:
        raise InputError(
            "the demo of crossearth-sar makes its own scenes and takes no --images. Leave it out; to train on rasters "
            "of yours with masks, see docs/segmentation.md"
        )
    started = time.perf_counter()
    with timed(demo, "scenes"):
        write_sensors(demo.out / "scenes")
    identity = train(demo)
    outcome = examine(demo, identity)
    demo.seconds["all"] = time.perf_counter() - started
    (demo.out / "results.json").write_text(json.dumps(results(outcome), indent=1) + "\n", encoding="utf-8")
    return write_report(report_of(outcome), demo.out / "report.html")


@contextmanager
def timed(demo: Demo, step: str) -> Iterator[None]:
    """Notes the wall time of a step that is no command."""
    start = time.perf_counter()
    yield
    demo.seconds[step] = time.perf_counter() - start


def train(demo: Demo) -> Identity:
    """Dense, upcycled, continued with and without experts, fine-tuned alike; run folders of these names in demo.out."""
    out, scenes = demo.out, demo.out / "scenes"
    every, one = _sources(scenes, SOURCES), _sources(scenes, SOURCES[:1])
    length = [] if demo.steps is None else _length(demo.steps)
    demo.run("dense", "fit", "-c", DENSE, *every, *length, "--run", out / "dense")
    with timed(demo, "dense weights"):
        weights, config = out / "dense.safetensors", out / "experts.json"
        write_dense_weights(load(best(out, "dense")), weights, config, VARIANT)
    demo.run(
        "upcycling", "models", "import", "crossearth-sar", "--weights", weights, "--config", config,
        "--out", out / "upcycled",
    )  # fmt: skip
    identity = upcycling_identity(out)
    for name, start, kind in (("experts", out / "upcycled", []), ("dense continued", best(out, "dense"), ONE_EXPERT)):
        flags = [*every, *length, *kind, "--model.init_args.encoder_from", start]
        demo.run(name, "fit", "-c", PRETRAINING, *flags, "--run", out / folder_of(name))
        flags = [*one, *length, *kind, "--model.init_args.encoder_from", best(out, folder_of(name))]
        demo.run(f"{name}, fine-tuned", "fit", "-c", FINE_TUNING, *flags, "--run", out / f"{folder_of(name)}_tuned")
    return identity


def folder_of(name: str) -> str:
    """Of a run."""
    return name.replace(" ", "_")


def best(out: Path, run: str) -> Path:
    """The checkpoint that the validation scenes of the training sensors chose."""
    return out / run / "checkpoints" / "best"


def load(folder: Path) -> CrossEarthSARForSegmentation:
    """A segmentation model of ours."""
    model = from_pretrained(folder, quiet=True)
    if not isinstance(model, CrossEarthSARForSegmentation):
        raise InputError(f"{folder} holds no segmentation model. Run the demo again.")
    return model


def _sources(scenes: Path, sensors: tuple[str, ...]) -> list[str]:
    """The flag that trains on the lists of these sensors."""
    listed = [{"name": name, "images": str(scenes / f"{name}.csv"), "bands": [1]} for name in sensors]
    return ["--data.init_args.sources", json.dumps(listed)]


def _length(steps: int) -> list[str]:
    """Flags for a training of `steps` updates with two validations."""
    return ["--trainer.max_steps", str(steps), "--data.init_args.steps_per_epoch", str(max(1, steps // 2))]


def upcycling_identity(out: Path) -> Identity:
    """The dense encoder beside the upcycled one, on scenes of the sources."""
    dense, sparse = load(best(out, "dense")), from_pretrained(out / "upcycled", quiet=True)
    table = class_table()
    scenes = [
        scene
        for sensor in SOURCES
        for scene in read_scenes(measured_pairs(out / "scenes", sensor)[:IDENTITY_SCENES], table)
    ]
    batches = [tiles_of(scene, dense) for scene in scenes]
    batch = {name: torch.cat([each[name] for each in batches]) for name in batches[0]}
    found = compare(dense.encoder, sparse, batch)  # pyright: ignore[reportArgumentType] - an encoder alone
    sys.stderr.write(
        f"\nupcycling, on {found.images} tiles of {len(scenes)} scenes: each of {found.experts} experts alone gives "
        f"the dense encoder's bits; as the routers choose ({found.used} experts in use) {found.equal_share:.1%} of the "
        f"values are bit-equal and the largest difference is {found.difference:.2g} (values up to {found.size:.2g})\n"
    )
    return found


def class_table() -> ClassTable:
    """The classes of the generator."""
    return ClassTable.of(dict(enumerate(CLASSES)))


def examine(demo: Demo, identity: Identity) -> Outcome:
    """Both fine-tuned models and the baselines on the scenes of all sensors; the reloaded model."""
    folder, table = demo.out / "scenes", class_table()
    model, dense = (load(best(demo.out, f"{name}_tuned")) for name in ("experts", "dense_continued"))
    with timed(demo, "measuring"):
        scenes = {sensor: read_scenes(measured_pairs(folder, sensor), table) for sensor in SENSORS}
        training = read_scenes(pairs_of(folder, SOURCES[0], "train"), table)
        baseline = BrightnessClasses.fitted([(scene.values, scene.labels) for scene in training], len(table))
        experts, plain = (
            {sensor: measure(one, of_sensor) for sensor, of_sensor in scenes.items()} for one in (model, dense)
        )
        simple = {sensor: measure_baselines(baseline, of_sensor, len(table)) for sensor, of_sensor in scenes.items()}
    reloaded = _reload(demo, model, scenes[SENSORS[-1]][0])
    return Outcome(demo, model, identity, scenes, experts, plain, simple, reloaded)


def _reload(demo: Demo, model: CrossEarthSARForSegmentation, scene: Scene) -> list[str]:
    """Names of the outputs that another process gives bit for bit. RuntimeError when one differs."""
    folder, batch = best(demo.out, "experts_tuned") / "model", tiles_of(scene, model)
    sys.stderr.write(f"\nreloading {folder} in another process, elsewhere, without network\n")
    with timed(demo, "reloading"):
        differing = differing_outputs(model, folder, batch)
    if differing:
        raise RuntimeError(f"the reloaded model differs in {', '.join(differing)}: the folder is not the model")
    names = sorted(outputs_of(model, batch))
    sys.stderr.write(f"bit-equal on {len(batch['valid'])} tiles: {', '.join(names)}\n")
    return names
