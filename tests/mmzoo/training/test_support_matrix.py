"""The table in docs/training.md, cell by cell: a `yes` trains EvoTok through the command, a `refused` is refused."""

import csv
import json
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

from data_engine.build import BuildSettings, build_image_shards
from mmzoo.cli import main
from mmzoo.errors import InputError
from mmzoo.training.strategies import check_support
from tokenizers_visual.evotok.contract import training_config

PAGE = Path(__file__).parents[3] / "docs" / "training.md"
STEPS = 2
PLAIN = "`precision: 32-true`"
OPTIMIZER = "--model.init_args.optimizer"
SEVERAL = "several optimisers"
#: Row of the table -> the flags that switch it on.
ROWS = {
    PLAIN: [],
    "`precision: bf16-mixed`": ["--trainer.precision", "bf16-mixed"],
    "`precision: 16-mixed`": ["--trainer.precision", "16-mixed"],
    "`precision: bf16-true`": ["--trainer.precision", "bf16-true"],
    "`accelerator: mps`": ["--trainer.accelerator", "mps"],
    "accumulation and clipping": [
        *("--trainer.accumulate_grad_batches", "2", "--data.init_args.global_batch", "2"),
        *("--trainer.gradient_clip_val", "0.05", "--data.init_args.steps_per_epoch", "4"),
    ],
    SEVERAL: ["--model", "tiny_training.SeveralTraining"],
    "`ema.decay`": ["--ema.decay", "0.9"],
    "`optimizer.fused`": [f"{OPTIMIZER}.fused", "true"],
    "`speed.gradient_checkpointing`": ["--speed.gradient_checkpointing", "true"],
    # What is ours is what is compiled and when; the backend that writes C++ takes minutes on a small machine.
    "`speed.compile`": ["--speed.compile", "true", "--speed.compile_backend", "eager"],
    "`speed.channels_last`": ["--speed.channels_last", "true"],
    "validation images": ["--images.most", "2"],
    "`strategy: fsdp`, `ModelParallelStrategy`": ["--trainer.strategy", "fsdp"],
    "`strategy: deepspeed`": ["--trainer.strategy", "deepspeed"],
}
#: What each column adds.
COLUMNS = {
    "cpu": ["--trainer.accelerator", "cpu"],
    "cpu, 2 ranks (gloo)": ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"],
    "gpu": ["--trainer.accelerator", "gpu"],
    "gpu, 2 ranks (nccl)": ["--trainer.accelerator", "gpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"],
}
#: A start of two ranks costs 12 s: there these rows share one run of EvoTok, in bfloat16. Plain float32 shares
#: the run of several optimisers; test_update_ranks.py holds it to the weights of one rank.
TOGETHER = [row for row in ROWS if row not in (PLAIN, SEVERAL, "`precision: 16-mixed`")]
EXACT = {"`speed.gradient_checkpointing`", "validation images", "`ema.decay`"}  # bit for bit the plain training


def table() -> dict[tuple[str, str], str]:
    """(row, column) -> cell, of the page's last table."""
    section = PAGE.read_text(encoding="utf-8").partition("## What a training runs on")[2]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {(row[0], column): cell for row in cells[2:] for column, cell in zip(cells[0][1:], row[1:], strict=True)}


CELLS = table()
SUPPORTED = [cell for cell, says in CELLS.items() if says == "yes"]
REFUSED = [cell for cell, says in CELLS.items() if says == "refused"]


def test_the_table_says_yes_or_refused_of_every_row_and_column():
    assert set(CELLS) == {(row, column) for row in ROWS for column in COLUMNS}
    assert len(SUPPORTED) + len(REFUSED) == len(CELLS)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """EvoTok tiny on 12 small pictures, two of them for validation."""
    folder = tmp_path_factory.mktemp("matrix")
    random = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    for number in range(12):
        coarse = Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        coarse.resize((48, 40), Image.Resampling.BICUBIC).save(folder / "pictures" / f"{number:02}.png")
    build_image_shards(BuildSettings(folder / "pictures", folder / "shards", val_fraction=0.2))
    trainer = {"devices": 1, "max_steps": STEPS, "log_every_n_steps": 1, "enable_progress_bar": False}
    sections = {"seed_everything": 1, "trainer": trainer, **training_config(folder / "shards")}
    sections["data"]["init_args"]["steps_per_epoch"] = 2
    path = folder / "evotok.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


def flags_of(row, column):
    flags = [*COLUMNS[column], *ROWS[row]]
    if row == SEVERAL:
        flags += ["--data.init_args.transform", "tiny_training.Pixels"]
    return flags


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """Trains (once) with the flags of a cell; returns the run folder."""
    done = {}

    def folder(row, column):
        two = "2 ranks" in column
        row = SEVERAL if two and row == PLAIN else row
        key = ("together" if two and row in TOGETHER else row, column)
        if key not in done:
            place = tmp_path_factory.mktemp("run")
            flags = flags_of(row, column)
            if key[0] == "together":
                rows = [row for row, at in SUPPORTED if at == column and row in TOGETHER]
                flags = [*COLUMNS[column], *(flag for row in rows for flag in ROWS[row])]
            arguments = ["fit", "-c", str(config), "--run", str(place), *flags]
            if two:
                in_new_process(place, arguments)
            else:
                assert main(arguments) == 0
            done[key] = place
        return done[key]

    return folder


def in_new_process(folder, arguments):
    script = Path(__file__).with_name("run_command.py")
    environment = {**os.environ, "PYTHONPATH": f"{script.parents[3]}:{script.parent}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def need_devices(column):
    if "gpu" in column:
        needed = 2 if "2 ranks" in column else 1
        if torch.cuda.device_count() < needed:
            pytest.skip(f"needs {needed} GPU(s), there are {torch.cuda.device_count()}")


@pytest.mark.parametrize(("row", "column"), SUPPORTED)
def test_what_the_table_promises_trains(row, column, run):
    need_devices(column)
    folder = run(row, column)
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [line["step"] for line in rows] == [str(step) for step in range(1, STEPS + 1)]
    weights = load_file(str(folder / "checkpoints/last/model/model.safetensors"))
    trainer = torch.load(folder / "checkpoints/last/trainer.ckpt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in weights.values())
    if row == SEVERAL or (row == PLAIN and "2 ranks" in column):
        assert len(trainer["optimizer_states"]) == 2
        return
    check_effect(row, folder, rows, weights, trainer)
    check_close_to_plain(row, column, run, rows, trainer)


def check_effect(row, folder, rows, weights, trainer):
    """What tells that the switch of this row was on."""
    options = trainer["optimizer_states"][0]["param_groups"][0]
    if row == "`ema.decay`":
        name = "encoder.layers.0.mlp.fc1.weight"
        average = trainer["callbacks"]["WeightAverage"][f"model.{name}"]
        assert torch.equal(weights[name], average.cpu())
        assert not torch.equal(weights[name], trainer["state_dict"][f"model.{name}"].cpu())
    elif row == "`optimizer.fused`":
        # Plain and fused alike keep moments; only the config tells, and it must have reached the optimiser.
        assert options["fused"]
    elif row == "accumulation and clipping":
        assert json.loads((folder / "checkpoints/last/data_state.json").read_text())["position"] == 4 * STEPS
        assert all(float(line["train/grad_norm_model"]) > 0.05 for line in rows)
    elif row == "validation images":
        with Image.open(folder / "images/val_reconstruction/step_00000002.png") as picture:
            assert picture.size == (66, 66)  # two rows of two pictures of 32 px, gaps of 2


def check_close_to_plain(row, column, run, rows, trainer):
    """The switches change the cost and the rounding of a training: what it learns is that of the plain one."""
    if "gpu" in column or row == "accumulation and clipping":
        return
    with (run(PLAIN, "cpu") / "metrics.csv").open() as file:
        plain_rows = list(csv.DictReader(file))
    loose = "bf16" in row or "2 ranks" in column
    first, plain_first = float(rows[0]["train/loss"]), float(plain_rows[0]["train/loss"])
    assert first == pytest.approx(plain_first, rel=2e-2 if loose else 1e-5)
    if row in EXACT and not loose:
        plain = torch.load(run(PLAIN, "cpu") / "checkpoints/last/trainer.ckpt", weights_only=True)
        ours, theirs = trainer["state_dict"], plain["state_dict"]
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(("row", "column"), REFUSED)
def test_what_the_table_refuses_is_refused_by_name(row, column, config, tmp_path, capsys, monkeypatch):
    flags = [*COLUMNS[column], *ROWS[row]]
    if "gpu" in column:  # what the command would be told on a machine with GPUs
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert main(["fit", "-c", str(config), "--run", str(tmp_path / "run"), *flags]) == 2
    key, name = ROWS[row][0].removeprefix("--"), ROWS[row][1]
    assert f"mmzoo: {key}: {name}" in capsys.readouterr().err.replace("DeepSpeed", "deepspeed")
    assert not (tmp_path / "run").exists()


def test_refusals_that_depend_on_two_settings(monkeypatch):
    class Settings:
        accelerator, precision = "gpu", "16-mixed"
        strategy = "lightning.pytorch.strategies.ModelParallelStrategy"

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(InputError, match="a fused optimiser unscales gradients itself"):
        check_support(Settings, ("model",), "X", fused=True)
    with pytest.raises(InputError, match=r"ModelParallelStrategy splits the weights over ranks"):
        check_support(Settings, ("model",), "X", fused=False)
    Settings.strategy = "deepspeed_stage_2"
    with pytest.raises(InputError, match="DeepSpeed takes one optimiser, X has several"):
        check_support(Settings, ("a", "b"), "X", fused=False)
    Settings.strategy, Settings.accelerator = "ddp", "gpo"
    with pytest.raises(InputError, match=r"gpo is not supported. Did you mean 'gpu'"):
        check_support(Settings, ("model",), "X", fused=False)
