"""The teacher's task and its held-out measure, through the real command on generated pictures."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SiglipVisionModel

from data_engine.image_shards import BuildSettings, build_image_shards
from mmzoo.cli import main
from mmzoo.errors import InputError
from tokenizers_visual.evotok.teacher_training import TeacherTraining, same_photograph


def test_same_photograph_in_closed_form():
    vectors = torch.tensor([[0.0, 0.0], [0.1, 0.0], [5.0, 0.0], [5.1, 0.0], [0.2, 0.0]])
    # 0 and 1 find each other, 2 and 3 too; the fifth is alone with its number and cannot be asked.
    assert same_photograph(vectors, torch.tensor([7, 7, 8, 8, 9]))[:2] == (4, 4)
    hits, count, chance = same_photograph(vectors, torch.tensor([7, 8, 7, 8, 8]))
    assert (hits, count) == (1, 5)  # only the fifth: its nearest is the second
    assert chance == pytest.approx((1 + 2 + 1 + 2 + 2) / 4)
    assert same_photograph(vectors[:1], torch.tensor([1])) == (0, 0, 0.0)


def test_chance_is_what_random_vectors_reach():
    random = torch.Generator().manual_seed(0)
    photographs = torch.arange(10).repeat_interleave(8)
    rates = []
    for _ in range(200):
        hits, count, chance = same_photograph(torch.randn(80, 16, generator=random), photographs)
        rates.append(hits / count)
    assert np.mean(rates) == pytest.approx(chance / count, abs=0.01)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stripes of one direction and period each, in random grey: nothing but structure tells the pictures apart."""
    root = tmp_path_factory.mktemp("stripes")
    across, down = np.meshgrid(np.arange(96), np.arange(96))
    for number in range(8):
        angle = np.pi * number / 8
        wave = np.sin((across * np.cos(angle) + down * np.sin(angle)) * 2 * np.pi / (5 + number))
        Image.fromarray((127 + 100 * wave).astype(np.uint8)).save(root / f"{number}.png")
    build_image_shards(BuildSettings(root, root.parent / "stripe_shards", val_fraction=0.4))
    return root.parent / "stripe_shards"


def write_config(path: Path, shards: Path, steps: int) -> Path:
    crop = "{class_path: tokenizers_visual.evotok.crops.TrainingCrop, init_args: {size: 32, native_crop: true}}"
    path.write_text(f"""\
model:
  class_path: tokenizers_visual.evotok.teacher_training.TeacherTraining
  init_args: {{variant: evotok/tiny, optimizer: {{lr: 2e-3}}}}
data:
  class_path: mmzoo.training.data_module.ShardData
  init_args: {{index: {shards}, global_batch: 16, val_passes: 8, steps_per_epoch: {steps}, transform: {crop}}}
trainer: {{max_steps: {steps}, accelerator: cpu, devices: 1, log_every_n_steps: 1}}
""")
    return path


def test_the_command_trains_a_tower_that_transformers_loads(shards: Path, tmp_path: Path):
    run = tmp_path / "run"
    assert main(["fit", "-c", str(write_config(tmp_path / "teacher.yaml", shards, 30)), "--run", str(run)]) == 0
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    accuracy = [float(row["train/accuracy"]) for row in rows if row["train/accuracy"]]
    assert accuracy[0] < 0.6, accuracy
    assert accuracy[-1] > 0.9, accuracy
    last = rows[-1]
    assert float(last["val/same_photograph"]) > float(last["val/same_photograph_by_chance"])
    folder = run / "checkpoints" / "best" / "model"
    assert json.loads((folder / "config.json").read_text())["model_type"] == "siglip_vision_model"
    tower, report = SiglipVisionModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert tower.config.hidden_size == 64


def test_one_photograph_cannot_be_told_apart(tmp_path: Path):
    (tmp_path / "one").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "one" / "a.png")
    build_image_shards(BuildSettings(tmp_path / "one", tmp_path / "shards", val_fraction=0.0))
    config = write_config(tmp_path / "teacher.yaml", tmp_path / "shards", 2)
    assert main(["fit", "-c", str(config), "--run", str(tmp_path / "run")]) == 2


def test_an_unknown_setting_is_named():
    with pytest.raises(InputError, match=r"'encoder_widht' is not a setting of EvoTok\. Did you mean 'encoder_width'"):
        TeacherTraining("evotok/tiny", {"encoder_widht": 3})
