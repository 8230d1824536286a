"""Do experts, their balance and the physics of the image help on radar images of other regions and sensors?

Two experiments (flood across regions, water across sensors). For each seed a dense model is trained on the source;
every arm starts from it and goes on for the same number of updates: as it is, or with each feed-forward layer copied to
six experts. `best` is chosen on validation images of the source alone; targets are only ever measured on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from eval_suites.studies.grid import Step, mmzoo

SEEDS = 3
START_STEPS = 160  #: updates of the dense model that all arms start from
STEPS = 160  #: updates of each arm after it
EVALUATIONS = 3  #: validations a training, of which `best` is the best
RATE = 1e-3
MEASURE_VERSION = 1
DATA_VERSION = 1
FROZEN = "geospatial.crossearth_sar.training.FineTuning"
BEST = Path("run", "checkpoints", "best")


class Experiment(NamedTuple):
    """A source domain, the domains that it is measured on, and the shipped recipe whose other settings are used."""

    name: str
    recipe: str
    source: str
    targets: tuple[str, ...]


EXPERIMENTS = (
    Experiment("flood", "crossearth_sar/tiny-flood", "ombria_pool", ("ombria_france2021", "ombria_guyana2021")),
    Experiment("water", "crossearth_sar/tiny-water", "s1vh_losangeles", ("airsar_sanfrancisco",)),
)


class Arm(NamedTuple):
    """A training: overrides of the variant, weight of the balance loss, the run it starts from, whether its encoder is
    frozen, and its adapter.
    """

    name: str
    overrides: Mapping[str, Any]
    balance: float = 0.0
    start: str = "start"
    frozen: bool = False
    adapter: bool = False


RENORM, STE = {"gate": "renorm"}, {"gate": "ste"}
TOKENS_ALONE = {"descriptor_input": "none"}
START = Arm("start", {"num_experts": 1}, start="")
ARMS = (
    Arm("dense", {"num_experts": 1}),
    Arm("experts", {**RENORM, **TOKENS_ALONE}),
    Arm("balance", {**RENORM, **TOKENS_ALONE}, 0.005),
    Arm("physics_renorm", RENORM, 0.005),
    Arm("physics_ste", STE, 0.005),
    Arm("frozen", STE, start="physics_ste", frozen=True),
    Arm("adapter", STE, start="physics_ste", frozen=True, adapter=True),
)


@dataclass(frozen=True)
class Study:
    """`data`: the folder with `annotations.jsonl`. `start_steps`, `steps`: of the common start, of an arm."""

    data: Path
    start_steps: int = START_STEPS
    steps: int = STEPS
    seeds: int = SEEDS
    experiments: Sequence[Experiment] = EXPERIMENTS

    def grid(self) -> list[Step]:
        """All steps, seed by seed, so that a grid that was stopped holds whole comparisons."""
        digest = hashlib.sha256((self.data / "annotations.jsonl").read_bytes()).hexdigest()
        lists = Step("lists", {"annotations": digest, "version": DATA_VERSION}, self._write_lists)
        simple = [self._threshold(experiment) for experiment in self.experiments]
        trained = [
            step
            for seed in range(self.seeds)
            for experiment in self.experiments
            for arm in (START, *ARMS)
            for step in self._arm(experiment, arm, seed)
        ]
        return [lists, *simple, *trained]

    def _write_lists(self, folder: Path) -> None:
        from eval_suites.studies.crossearth_sar_small_data import write_lists

        write_lists(self.data, folder)

    def _threshold(self, experiment: Experiment) -> Step:
        work = partial(self._measure_threshold, experiment)
        return Step(f"{experiment.name}/threshold", {"version": MEASURE_VERSION}, work, ("lists",))

    def _measure_threshold(self, experiment: Experiment, folder: Path) -> None:
        from eval_suites.studies.crossearth_sar_small_measure import measure_threshold

        measure_threshold(folder.parents[1] / "lists", experiment.source, experiment.targets, folder)

    def _arm(self, experiment: Experiment, arm: Arm, seed: int) -> list[Step]:
        """The training of an arm, and its measuring; the common start is not measured."""
        place = f"{experiment.name}/seed{seed}"
        name = f"{place}/{arm.name}"
        needs = ("lists", f"{place}/{arm.start}") if arm.start else ("lists",)
        steps = self.steps if arm.start else self.start_steps
        settings = {"arm": arm._asdict(), "steps": steps, "seed": seed, "rate": RATE, "recipe": experiment.recipe}
        training = Step(name, settings, partial(self._fit, experiment, arm, seed, steps), needs)
        if not arm.start:
            return [training]
        measuring = partial(self._measure, experiment, arm.name)
        return [training, Step(f"{name}_measured", {"version": MEASURE_VERSION}, measuring, ("lists", name))]

    def _fit(self, experiment: Experiment, arm: Arm, seed: int, steps: int, folder: Path) -> None:
        lists = folder.parents[2] / "lists"
        source = {"name": experiment.source, "images": str(lists / f"{experiment.source}.csv"), "domain": "display8"}
        flags: dict[str, object] = {
            "seed_everything": seed,
            "data.init_args.seed": seed,
            "data.init_args.sources": json.dumps([source]),
            "data.init_args.val_batch": 32,
            "data.init_args.augmentation": json.dumps({"flip_vertical": 0.5, "brightness": 0.3, "contrast": 0.3}),
            "data.init_args.steps_per_epoch": max(1, steps // EVALUATIONS),
            "model.init_args.overrides": json.dumps({**_described(experiment), **arm.overrides}),
            "model.init_args.head_settings": json.dumps({"width": 32}),
            "model.init_args.balance_weight": arm.balance,
            "model.init_args.optimizer.lr": RATE,
            "trainer.max_steps": steps,
            "checkpoint.every_n_steps": 0,
        }
        if arm.start:
            flags["model.init_args.encoder_from"] = folder.parent / arm.start / BEST
        if arm.adapter:
            flags["model.init_args.earth_adapter"] = json.dumps({"frequency_blocks": 1})
        pairs = [part for name, value in flags.items() for part in (f"--{name}", value)]
        stage = ["--model", FROZEN] if arm.frozen else []
        mmzoo(["fit", "-c", experiment.recipe, *stage, *pairs, "--run", folder / "run"])

    def _measure(self, experiment: Experiment, arm: str, folder: Path) -> None:
        from eval_suites.studies.crossearth_sar_small_measure import measure_model

        lists, model = folder.parents[2] / "lists", folder.parent / arm / BEST
        measure_model(model, lists, experiment.source, experiment.targets, folder)


def _described(experiment: Experiment) -> dict[str, Any]:
    """Of before, after and their difference, the picture after is the one whose physics is described."""
    return {"descriptor_band": 2} if experiment.name == "flood" else {}
