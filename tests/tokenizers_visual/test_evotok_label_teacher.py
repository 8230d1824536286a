"""A teacher on labels in the paths, through the real command on generated pictures."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_engine.image_shards import BuildSettings, build_image_shards
from data_engine.index import ShardIndex
from mmzoo.cli import main
from mmzoo.errors import InputError
from tokenizers_visual.evotok.label_teacher import LabelTeacherTraining, labels_by_key


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders, stripes across and stripes down; of each kind two pictures are held out."""
    root = tmp_path_factory.mktemp("classes")
    across, down = np.meshgrid(np.arange(64), np.arange(64))
    split: dict[str, str] = {}
    for label, axis in (("across", across), ("down", down)):
        (root / label).mkdir()
        for number in range(6):
            wave = 127 + 100 * np.sin(axis * 2 * np.pi / (6 + number) + number)
            Image.fromarray(wave.astype(np.uint8)).save(root / label / f"{number}.png")
            split[f"{label}/{number}.png"] = "val" if number > 3 else "train"
    listed = root.parent / "split.json"
    listed.write_text(json.dumps(split))
    build_image_shards(BuildSettings(root, root.parent / "class_shards", split_file=listed))
    return root.parent / "class_shards"


def write_config(path: Path, shards: Path, pattern: str = "^([^/]+)/") -> Path:
    crop = (
        "{class_path: tokenizers_visual.evotok.crops.TrainingCrop, init_args: {size: 32, native_crop: true, flip: 0}}"
    )
    path.write_text(f"""\
model:
  class_path: tokenizers_visual.evotok.label_teacher.LabelTeacherTraining
  init_args: {{variant: evotok/tiny, label_pattern: '{pattern}', optimizer: {{lr: 1e-3}}}}
data:
  class_path: mmzoo.training.data_module.ShardData
  init_args: {{index: {shards}, global_batch: 8, val_passes: 4, steps_per_epoch: 40, transform: {crop}}}
trainer: {{max_steps: 40, accelerator: cpu, devices: 1, log_every_n_steps: 1}}
""")
    return path


def test_the_command_learns_the_folders(shards: Path, tmp_path: Path):
    run = tmp_path / "run"
    assert main(["fit", "-c", str(write_config(tmp_path / "teacher.yaml", shards)), "--run", str(run)]) == 0
    with (run / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["val/accuracy"]) > 0.8
    assert (run / "checkpoints" / "best" / "model" / "model.safetensors").is_file()


def test_labels_are_read_from_the_paths(shards: Path):
    index = ShardIndex.open(shards)
    found = labels_by_key(index, re.compile("^([^/]+)/"))
    assert sorted(found.values()) == ["across"] * 6 + ["down"] * 6
    assert found.keys() == set(index.column("key_hash").tolist())
    with pytest.raises(InputError, match=r"finds no label in the path 'across/0\.png'"):
        labels_by_key(index, re.compile("(sideways)"))


@pytest.mark.parametrize("pattern", ["(png)$", "[a-z]+/"])
def test_one_label_or_a_pattern_without_a_group_is_refused(shards: Path, tmp_path: Path, pattern: str):
    config = write_config(tmp_path / "teacher.yaml", shards, pattern)
    assert main(["fit", "-c", str(config), "--run", str(tmp_path / "run")]) == 2


def test_a_broken_pattern_is_refused():
    with pytest.raises(InputError, match="is not a regular expression"):
        LabelTeacherTraining("evotok/tiny", label_pattern="(")
