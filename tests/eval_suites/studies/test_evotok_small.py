"""The study's parts on tiny random models, and its figures in closed form. The whole grid runs under `make results`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import SiglipVisionModel

from eval_suites.studies import evotok_small_results as results
from eval_suites.studies.evotok_small import Study, label_of, stratified_folds
from eval_suites.studies.evotok_small_measure import Pictures, measure_fold
from eval_suites.studies.evotok_small_rates import CODECS, LEVELS, rate_rows, rate_table
from mmzoo.errors import InputError
from tokenizers_visual.evotok.configuration import EvoTokConfig
from tokenizers_visual.evotok.family import TINY
from tokenizers_visual.evotok.modeling import EvoTokModel

CLASSES = ("ant", "bee", "cow")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two folds over 24 pictures whose mean colour is their class."""
    torch.manual_seed(0)
    labels = np.array([CLASSES[number % 3] for number in range(24)])
    colours = torch.eye(3)[[CLASSES.index(label) for label in labels]] * 1.6 - 0.8
    images = (colours[:, :, None, None] + 0.1 * torch.randn(24, 3, 32, 32)).clamp(-1, 1)
    config = EvoTokConfig(**TINY)
    models = {"evotok": EvoTokModel(config).eval(), "single": EvoTokModel(config).eval()}
    teacher = SiglipVisionModel(config.encoder_config()).eval()
    root = tmp_path_factory.mktemp("study")
    folders = []
    for fold in range(2):
        folder = root / str(fold)
        folder.mkdir()
        held_out = np.arange(24) % 2 == fold
        paths = [f"{number}.png" for number in range(24)]
        measure_fold(Pictures(paths, labels, held_out, images), models, teacher, 2, folder)
        folders.append(folder)
    return folders


def test_every_image_is_measured_once_under_every_heading(measured: list[Path]) -> None:
    probes = results.read_rows(measured, "probes.jsonl")
    counts = Counter((row["representation"], row["levels"]) for row in probes)
    assert set(counts.values()) == {24}
    assert ("evotok: partial sum, mean", 4) in counts
    assert ("single: pixel read-out", 1) in counts
    pixels = results.read_rows(measured, "pixels.jsonl")
    assert {len(rows) for rows in results.grouped(pixels, "model", "levels").values()} == {24}


def test_a_probe_of_the_pictures_finds_classes_that_are_colours(measured: list[Path]) -> None:
    summary = results.summarise(measured)
    assert summary["probes"]["picture", 0, 192].interval.mean == 1.0
    chance = summary["probes"]["evotok: semantic read-out, mean", 1, 64].interval.mean
    assert 0 <= chance <= 1


def test_results_are_written_whole(measured: list[Path], tmp_path: Path) -> None:
    results.write_results(measured, tmp_path / "docs" / "small")
    assert "| evotok | 4 |" in (tmp_path / "docs" / "small_tables.md").read_text()
    plain = json.loads((tmp_path / "docs" / "small.json").read_text())
    assert len(plain["pixels"]) == 8
    assert all(len(entry["accuracy"]["folds"]) == 2 for entry in plain["probes"])
    assert (tmp_path / "docs" / "small.png").stat().st_size > 5000


def test_figures_in_closed_form() -> None:
    rows = [{"path": f"{n}", "fold": n % 2, "correct": n < 6} for n in range(10)]
    found = results.figure(rows, "correct")
    assert found.interval.mean == 0.6
    assert found.folds == (0.6, 0.6)
    assert found.interval.n_groups == 10
    with pytest.raises(ValueError, match="two folds"):
        results.figure([*rows, rows[0]], "correct")
    worse = [{**row, "correct": row["correct"] and row["path"] != "0"} for row in rows]
    assert results.difference(rows, worse, "correct").interval.mean == pytest.approx(0.1)
    with pytest.raises(ValueError, match="other images"):
        results.difference(rows, worse[1:], "correct")


def test_folds_hold_every_label_alike() -> None:
    labels = [f"class{number // 8}" for number in range(83 * 8)]
    folds = stratified_folds(labels, 5)
    assert sorted(np.bincount(folds).tolist()) == [132, 133, 133, 133, 133]
    for label in set(labels):
        counts = np.bincount(folds[np.array(labels) == label], minlength=5)
        assert set(counts.tolist()) <= {1, 2}


def test_the_grid_names_each_fold_and_what_it_needs(tmp_path: Path) -> None:
    for label in ("ant", "bee"):
        for number in range(4):
            (tmp_path / f"caltech101_{label}_{number:04}.jpg").touch()
    steps = Study(tmp_path, folds=2).steps()
    parts = ("shards", "teacher", "evotok", "single", "measured", "rates")
    assert [step.name for step in steps] == [f"fold{fold}/{part}" for fold in range(2) for part in parts]
    split = steps[0].settings["split"]
    assert Counter(split.values()) == {"train": 4, "val": 4}
    with pytest.raises(InputError, match="no label in the file name"):
        label_of("holiday.jpg")


def test_rates_are_means_over_the_images_of_all_folds(tmp_path: Path) -> None:
    for fold in range(2):
        lines = ['{"schema": 1}']
        for number in range(3):
            psnr = 20.0 + number + fold
            values = {}
            for levels in LEVELS:
                values |= {f"bpp@{levels}": 0.1 * levels, f"psnr@{levels}": psnr, f"ssim@{levels}": 0.5}
                for codec in CODECS:
                    over = float(number == 0)
                    own = {"bpp": 0.2, "psnr": psnr + 5, "ssim": 0.6, "over_budget": over}
                    values |= {f"{codec}_{name}@{levels}": value for name, value in own.items()}
            lines.append(json.dumps({"key": f"{fold}-{number}", "values": values}))
        folder = tmp_path / str(fold)
        folder.mkdir()
        (folder / "samples.jsonl").write_text("\n".join(lines))
    rows = rate_rows([tmp_path / "0", tmp_path / "1"])
    assert len(rows) == 6 * 3 * 5
    table = rate_table(rows).splitlines()
    assert table[2].startswith("| 1 | codes | 0.100 | 21.50 [")
    assert table[3].startswith("| 1 | jpeg | 0.200 | 26.50 [")
    assert table[3].endswith("| 33% |")
    assert "| 4 | webp, headers not counted | 0.200 | 26.50 [" in table[-1]
