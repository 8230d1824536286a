"""Does EvoTok's residual trajectory move from pixels to meaning? Small models, five folds, every image held out once.

For each fold a teacher learns the labels of the other four, a `small-64` tokenizer learns pixels and that teacher, and
a one-level tokenizer of the same network learns beside it. Fold, seed and initialisation change together, so that the
figures over all images hold five seeds. Nothing that is measured on an image, and no probe, has seen it or its label.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eval_suites.studies.evotok_small_rates import LEVELS, SIDE
from eval_suites.studies.grid import Step, mmzoo
from mmzoo.errors import InputError

FOLDS = 5
TEACHER_STEPS = 600
TEACHER_RATE = 1e-3  #: found 6 % of a held-out fold after 200 updates, where chance is 1.2 %
TOKENIZER_STEPS = 400
VARIANT = "evotok/small-64"
MEASURE_VERSION = 1
LAST = Path("run", "checkpoints", "last", "model")  #: the model of a training, in the folder of its step
TEACHER_LAYER = 5  #: hidden state behind encoder.layers.4, the target that evotok/small-64 names
LABELS = r"caltech101_(.+)_\d+"
#: Both tokenizers but for their levels. Short runs: the codebooks follow faster than the default memory of 0.99.
ONE_LEVEL = {"pixel_levels": 1, "semantic_levels": 1}
SHORT = {"kmeans_init": True, "ema_decay": 0.97}


@dataclass(frozen=True)
class Study:
    """Where the labelled photographs lie (one folder of image files), and how long the trainings are."""

    images: Path
    teacher_steps: int = TEACHER_STEPS
    tokenizer_steps: int = TOKENIZER_STEPS
    folds: int = FOLDS

    def steps(self) -> list[Step]:
        """The whole grid."""
        paths = sorted(file.name for file in self.images.iterdir() if file.is_file())
        folds = stratified_folds([label_of(path) for path in paths], self.folds)
        return [step for number in range(self.folds) for step in self._fold(number, paths, folds)]

    def _fold(self, number: int, paths: Sequence[str], folds: np.ndarray) -> list[Step]:
        split = {path: "val" if fold == number else "train" for path, fold in zip(paths, folds, strict=True)}
        shards, teacher, evotok, single = (f"fold{number}/{name}" for name in ("shards", "teacher", "evotok", "single"))
        frame = {"steps": self.tokenizer_steps, "seed": number}
        return [
            Step(shards, {"split": split}, partial(self._build, split)),
            Step(
                teacher,
                {"steps": self.teacher_steps, "seed": number, "labels": LABELS, "rate": TEACHER_RATE},
                partial(self._fit_teacher, shards, number),
                (shards,),
            ),
            *(
                Step(name, {**frame, "overrides": overrides}, partial(self._fit, shards, teacher, number, overrides),
                     (shards, teacher))
                for name, overrides in ((evotok, SHORT), (single, {**SHORT, **ONE_LEVEL}))
            ),
            Step(
                f"fold{number}/measured",
                {"version": MEASURE_VERSION},
                self._measure,
                (shards, teacher, evotok, single),
            ),
            Step(f"fold{number}/rates", {"side": SIDE, "levels": LEVELS}, self._rates, (shards, evotok)),
        ]  # fmt: skip

    def _measure(self, folder: Path) -> None:
        from transformers import SiglipVisionModel

        from eval_suites.studies.evotok_small_measure import measure_fold, read_pictures
        from mmzoo.families import get_variant, load_object
        from mmzoo.hub.load import from_pretrained

        place = folder.parent
        models = {name: from_pretrained(place / name / LAST).eval() for name in ("evotok", "single")}
        processor = load_object(get_variant(VARIANT)[0].processor).from_pretrained(place / "evotok" / LAST)
        teacher = SiglipVisionModel.from_pretrained(place / "teacher" / LAST).eval()
        pictures = read_pictures(place / "shards" / "data", processor, label_of)
        measure_fold(pictures, models, teacher, TEACHER_LAYER, folder)

    def _rates(self, folder: Path) -> None:
        place = folder.parent
        options = ["--resize", SIDE, "--codecs", "jpeg,webp", "--levels", ",".join(map(str, LEVELS))]
        found = [
            "--model",
            place / "evotok" / LAST,
            "--data",
            place / "shards" / "data",
            "--name",
            f"small-64 {place.name}",
        ]
        # What the suite notes of a run stays beside the marks of the grid.
        mmzoo(["eval", "run", "reconstruction", *found, *options, "--out", folder / "evaluation"])

    def _build(self, split: Mapping[str, str], folder: Path) -> None:
        listed = folder / "split.json"
        listed.write_text(json.dumps(split, indent=1), encoding="utf-8")
        mmzoo(["data", "build", "images", self.images, folder / "data", "--split-file", listed])

    def _fit_teacher(self, shards: str, seed: int, folder: Path) -> None:
        grid = folder.parents[1]
        self._run(
            "evotok/small-64-label-teacher",
            self.teacher_steps,
            {
                "seed_everything": seed,
                "data.init_args.index": grid / shards / "data",
                "data.init_args.seed": seed,
                "model.init_args.label_pattern": LABELS,
                "model.init_args.optimizer.lr": TEACHER_RATE,
            },
            folder,
        )

    def _fit(self, shards: str, teacher: str, seed: int, overrides: Mapping[str, Any], folder: Path) -> None:
        grid = folder.parents[1]
        self._run(
            "evotok/small-64",
            self.tokenizer_steps,
            {
                "seed_everything": seed,
                "data.init_args.index": grid / shards / "data",
                "data.init_args.seed": seed,
                "model.init_args.teacher.source": grid / teacher / "run" / "checkpoints" / "last" / "model",
                "model.init_args.optimizer.lr": 2e-3,
                "model.init_args.optimizer.warmup_steps": 50,
                "model.init_args.overrides": json.dumps(dict(overrides)),
            },
            folder,
        )

    def _run(self, config: str, steps: int, flags: Mapping[str, object], folder: Path) -> None:
        every = {"trainer.max_steps": steps, "data.init_args.steps_per_epoch": steps, "trainer.accelerator": "cpu"}
        pairs = [part for name, value in {**flags, **every}.items() for part in (f"--{name}", value)]
        mmzoo(["fit", "-c", config, *pairs, "--run", folder / "run"])


def label_of(name: str) -> str:
    """The class in a file's name. InputError: the name has none."""
    match = re.search(LABELS, name)
    if match is None:
        raise InputError(
            f"no label in the file name {name!r}: the study reads it by {LABELS!r}. "
            "Name the folder that holds the labelled photographs and nothing else."
        )
    return match.group(1)


def stratified_folds(labels: Sequence[str], folds: int) -> np.ndarray:
    """int64 (N,): the fold of each image; the images of a label go round the folds, from where the last label ended."""
    result = np.empty(len(labels), dtype=np.int64)
    order = sorted(range(len(labels)), key=lambda place: labels[place])
    result[order] = np.arange(len(labels)) % folds
    return result
