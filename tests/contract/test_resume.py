"""Every family: a training that was stopped and resumed is, bit for bit, the one that was not (architecture, 4)."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from data_engine.image_shards import BuildSettings, build_image_shards
from mmzoo.families import find_families, load_object

FAMILIES = [entry.family for entry in find_families().values()]
STOPPED, STEPS = 3, 5  # 10 training images in batches of 4: two steps an epoch, so the stop lies inside the second
NUMBERS = ("step", "epoch", "train/", "val/")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """12 generated pictures of 48 x 40 px as shards, 2 of them for validation."""
    folder = tmp_path_factory.mktemp("resume")
    random = np.random.default_rng(0)
    listed = []
    (folder / "pictures").mkdir()
    for number in range(12):
        coarse = Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        coarse.resize((48, 40), Image.Resampling.BICUBIC).save(folder / "pictures" / f"{number:02}.png")
        listed.append(f'"{number:02}.png": "{"val" if number < 2 else "train"}"')
    (folder / "split.json").write_text("{" + ", ".join(listed) + "}")
    build_image_shards(BuildSettings(folder / "pictures", folder / "shards", split_file=folder / "split.json"))
    return folder / "shards"


def fit(config: Path, run: Path, *flags: str) -> None:
    """`mmzoo fit` as a user starts it, in a process of its own."""
    command = [sys.executable, "-m", "mmzoo", "fit", "-c", str(config), "--run", str(run), *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=config.parent, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def table(run: Path) -> list[dict[str, str]]:
    """The rows of a run's metrics that do not tell of the clock."""
    with (run / "metrics.csv").open() as file:
        return [{name: row[name] for name in row if name.startswith(NUMBERS)} for row in csv.DictReader(file)]


def same(one, other) -> bool:
    """Bit-equality of nested states."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_resumed_equals_uninterrupted(family, shards, tmp_path):
    config = tmp_path / "short.yaml"
    trainer = {"accelerator": "cpu", "devices": 1, "max_steps": STEPS, "log_every_n_steps": 1}
    sections = {"seed_everything": 1, "trainer": trainer, "checkpoint": {"every_n_steps": 1, "keep": STEPS}}
    config.write_text(yaml.safe_dump({**sections, **load_object(family.contract).training_config(shards)}))
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    fit(config, straight)
    fit(config, resumed, "--ckpt_path", str(straight / f"checkpoints/step_{STOPPED:08}"))

    for step in range(STOPPED + 1, STEPS + 1):
        theirs, ours = (run / f"checkpoints/step_{step:08}" for run in (straight, resumed))
        assert same(*(load_file(folder / "model/model.safetensors") for folder in (theirs, ours))), step
        states = [torch.load(folder / "trainer.ckpt", weights_only=True) for folder in (theirs, ours)]
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
            assert same(*(state[key] for state in states)), (step, key)
        assert (theirs / "data_state.json").read_text() == (ours / "data_state.json").read_text()
    rows = table(straight)
    assert [row["step"] for row in rows] == [str(step) for step in range(1, STEPS + 1)]
    assert any(value for row in rows[STOPPED:] for name, value in row.items() if name.startswith("val/"))
    assert table(resumed) == rows[STOPPED:]
