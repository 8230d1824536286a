"""The study's rows as tables, a plot and one JSON.

Mean IoU is formed from the counts of all images of a domain, then averaged over seeds. Its interval resamples images,
the same ones for every seed and arm, and seeds; a difference is taken inside each resample, so it is paired by both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval_suites.studies.crossearth_sar_small import ARMS, Experiment, Study
from eval_suites.studies.grid import DONE
from geospatial.confusion import class_ious
from geospatial.confusion_intervals import LEVEL, mean_iou, resampled_sums

THRESHOLD = "threshold"
TITLES = {
    THRESHOLD: "one brightness threshold",
    "dense": "dense",
    "experts": "6 experts",
    "balance": "+ balance loss",
    "physics_renorm": "+ descriptors, gate renorm",
    "physics_ste": "+ descriptors, gate ste",
    "frozen": "its encoder frozen, new head",
    "adapter": "the same + Earth-Adapter",
}
#: What each arm is compared with. The adapter's rival is the same training without it.
RIVALS = {name: "frozen" if name == "adapter" else "dense" for name in TITLES if name != "dense"}


@dataclass(frozen=True)
class Score:
    """`value`: mean over seeds; low, high: its interval at LEVEL; seeds: of each seed."""

    value: float
    low: float
    high: float
    seeds: tuple[float, ...]

    def text(self, sign: str = "") -> str:
        """Such as "61.2 [58.0, 64.1]", in per cent."""
        return f"{100 * self.value:{sign}.1f} [{100 * self.low:{sign}.1f}, {100 * self.high:{sign}.1f}]"

    def verdict(self) -> str:
        """Of a difference."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not told apart"


def finished_seeds(folder: Path, study: Study) -> int:
    """Seeds of which every arm of every experiment is measured. ValueError: not one."""
    names = [f"{experiment.name}/seed{{}}/{arm.name}_measured" for experiment in study.experiments for arm in ARMS]
    whole = [all((folder / name.format(seed) / DONE).is_file() for name in names) for seed in range(study.seeds)]
    if not whole[0]:
        raise ValueError(f"{folder} holds no seed with all of its arms")
    return whole.index(False) if False in whole else len(whole)


def counts(file: Path, domain: str) -> tuple[list[str], np.ndarray]:
    """Names of a domain's images, and their matrices (N, K, K)."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    chosen = sorted((row["image"], row["matrix"]) for row in rows if row["domain"] == domain)
    return [name for name, _ in chosen], np.array([matrix for _, matrix in chosen], np.int64)


def domain_counts(folder: Path, experiment: Experiment, domain: str, seeds: int) -> dict[str, np.ndarray]:
    """arm -> matrices (S, N, K, K); the threshold knows no seed, so its are the same S times.

    ValueError: arms that were measured on other images.
    """
    place = folder / experiment.name
    names, simple = counts(place / THRESHOLD / "images.jsonl", domain)
    found = {THRESHOLD: np.stack([simple] * seeds)}
    for arm in ARMS:
        of_seeds = []
        for seed in range(seeds):
            own, matrices = counts(place / f"seed{seed}" / f"{arm.name}_measured" / "images.jsonl", domain)
            if own != names:
                raise ValueError(f"{arm.name}, seed {seed}, was measured on other images of {domain}")
            of_seeds.append(matrices)
        found[arm.name] = np.stack(of_seeds)
    return found


def drawn_scores(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matrices (S, N, K, K) -> mean IoU of each seed (S,), and of each resample and seed (S, R)."""
    return mean_iou(matrices.sum(1)), np.stack([mean_iou(resampled_sums(of_seed)) for of_seed in matrices])


def score(of_seeds: np.ndarray, drawn: np.ndarray) -> Score:
    """From `drawn_scores`, or from differences of two: seeds are resampled too, the same ones for every arm."""
    seeds, resamples = drawn.shape
    chosen = np.random.default_rng(1).integers(0, seeds, (seeds, resamples))
    means = np.take_along_axis(drawn, chosen, 0).mean(0)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Score(float(of_seeds.mean()), float(low), float(high), tuple(map(float, of_seeds)))


def summarise(folder: Path, study: Study) -> dict[str, Any]:
    """{"seeds", "domains": [{"experiment", "domain", "role", "images", "arms": {arm: {...}}}]}."""
    seeds = finished_seeds(folder, study)
    domains = []
    for experiment in study.experiments:
        for domain in (experiment.source, *experiment.targets):
            found = domain_counts(folder, experiment, domain, seeds)
            role = "source, validation images" if domain == experiment.source else "target"
            frame = {"experiment": experiment.name, "domain": domain, "role": role}
            domains.append({**frame, "images": found["dense"].shape[1], "arms": _arms(found)})
    return {"seeds": seeds, "domains": domains}


def _arms(found: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    drawn = {name: drawn_scores(matrices) for name, matrices in found.items()}
    result: dict[str, dict[str, Any]] = {}
    for name, (of_seeds, of_draws) in drawn.items():
        result[name] = {"miou": score(of_seeds, of_draws), "iou": class_ious(found[name].sum(1)).mean(0).tolist()}
        if name in RIVALS:
            rival = drawn[RIVALS[name]]
            result[name]["difference"] = score(of_seeds - rival[0], of_draws - rival[1])
            result[name]["rival"] = RIVALS[name]
    return result


def tables(summary: Mapping[str, Any]) -> str:
    """Markdown, one table a domain."""
    lines = []
    for domain in summary["domains"]:
        lines += [
            f"### {domain['experiment']}: {domain['domain']} ({domain['role']}, {domain['images']} images)",
            "",
            "| model | mIoU, % | seeds | IoU of class 1, % | difference | |",
            "|---|---|---|---|---|---|",
        ]
        for name, title in TITLES.items():
            arm = domain["arms"][name]
            seeds = [100 * one for one in arm["miou"].seeds]
            spread = "" if name == THRESHOLD else f"{min(seeds):.1f} to {max(seeds):.1f}"
            change, verdict = _change(arm)
            lines.append(
                f"| {title} | {arm['miou'].text()} | {spread} | {100 * arm['iou'][1]:.1f} | {change} | {verdict} |"
            )
        lines.append("")
    return "\n".join(lines)


def _change(arm: Mapping[str, Any]) -> tuple[str, str]:
    if "difference" not in arm:
        return "", ""
    return arm["difference"].text("+"), f"{arm['difference'].verdict()} ({arm['rival']})"


def write_results(folder: Path, study: Study, out: Path) -> None:
    """Writes OUT_tables.md, OUT.json and OUT.svg from the grid in `folder`."""
    summary = summarise(folder, study)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_name(out.name + "_tables.md").write_text(tables(summary), encoding="utf-8")
    plain = {**summary, "thresholds": _thresholds(folder, study.experiments)}
    text = json.dumps(plain, indent=1, default=asdict)
    out.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    _plot(summary, out.with_suffix(".svg"))


def _thresholds(folder: Path, experiments: Sequence[Experiment]) -> dict[str, Any]:
    return {
        one.name: json.loads((folder / one.name / THRESHOLD / "threshold.json").read_text(encoding="utf-8"))
        for one in experiments
    }


def _plot(summary: Mapping[str, Any], file: Path) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shown = [domain for domain in summary["domains"] if domain["role"] == "target"]
    drawing = Figure(figsize=(4 * len(shown), 3.6), layout="constrained")
    for panel, domain in zip(np.ravel(drawing.subplots(1, len(shown), sharey=True)), shown, strict=True):
        for row, name in enumerate(reversed(RIVALS)):
            found = domain["arms"][name]["difference"]
            ends = [[found.value - found.low], [found.high - found.value]]
            panel.errorbar(100 * found.value, row, xerr=100 * np.array(ends), fmt="o", color="C0", capsize=3)
            panel.plot([100 * seed for seed in found.seeds], [row] * len(found.seeds), "|", color="grey")
        panel.axvline(0, color="grey", linewidth=0.8)
        panel.set(title=domain["domain"], xlabel="mIoU minus rival's, points")
        panel.set_yticks(range(len(RIVALS)), [f"{TITLES[name]} - {RIVALS[name]}" for name in reversed(RIVALS)])
    with rc_context({"svg.hashsalt": "mmzoo"}):  # the same results are the same file
        drawing.savefig(file, metadata={"Date": None})
