"""Fine-tuning with the shipped config: the weights of the source are taken, and nothing else of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from data_engine.image_shards import BuildSettings, build_image_shards
from mmzoo.cli import main
from mmzoo.training.checkpoint_folder import TRAINER_FILE


def shards(folder: Path, seed: int) -> Path:
    for number in range(12):
        pixels = np.random.default_rng((seed, number)).integers(0, 256, (5, 5, 3), np.uint8)
        file = folder / "photos" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((40, 40), Image.Resampling.BICUBIC).save(file)
    build_image_shards(BuildSettings(folder / "photos", folder / "shards", val_fraction=0.2))
    return folder / "shards"


def fit(config: str, index: Path, run: Path, steps: int, *flags: str) -> int:
    data = ["--data.init_args.index", str(index), "--data.init_args.global_batch", "4"]
    length = ["--data.init_args.steps_per_epoch", str(steps), "--trainer.max_steps", str(steps)]
    return main(
        ["fit", "-c", config, *data, *length, "--checkpoint.every_n_steps", str(steps), "--run", str(run), *flags]
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    assert fit("evotok/tiny-natural", shards(folder, 0), folder / "run", 3) == 0
    return folder / "run" / "checkpoints" / "last"


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "model" / "model.safetensors")


def test_only_the_weights_are_taken(source, tmp_path):
    still = ["--model.init_args.optimizer.lr", "0"]
    index = shards(tmp_path, 1)
    assert fit("evotok/finetune", index, tmp_path / "run", 1, "--init_from", str(source), *still) == 0
    tuned = tmp_path / "run" / "checkpoints" / "last"
    before, after = weights(source), weights(tuned)
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert json.loads((tuned / "data_state.json").read_text())["position"] == 4
    state = torch.load(tuned / TRAINER_FILE, weights_only=True)
    moments = state["optimizer_states"][0]["state"].values()
    assert {int(entry["step"]) for entry in moments} == {1}  # the source's had made three
    fresh = tmp_path / "fresh"  # the settings are this config's, not the source's
    assert fit("evotok/finetune", index, fresh, 1, *still) == 0
    configs = [json.loads((path / "model" / "config.json").read_text()) for path in (tuned, fresh / "checkpoints/last")]
    assert configs[0] == configs[1]
    assert (configs[0]["freeze_codebooks"], configs[0]["level_dropout"]) == (True, 0.5)


def test_the_codebooks_stay_and_the_rest_learns(source, tmp_path):
    index = shards(tmp_path, 1)
    assert fit("evotok/finetune", index, tmp_path / "run", 3, "--init_from", str(source)) == 0
    before, after = weights(source), weights(tmp_path / "run" / "checkpoints" / "last")
    codebooks = {name for name in before if name.startswith("quantizer.")}
    assert codebooks
    assert all(torch.equal(after[name], before[name]) for name in codebooks)
    assert not torch.equal(after["pixel_decoder.conv_out.weight"], before["pixel_decoder.conv_out.weight"])
    assert not torch.equal(after["encode_head.0.weight"], before["encode_head.0.weight"])
    thawed = ["--init_from", str(source), "--model.init_args.overrides.freeze_codebooks", "false"]
    assert fit("evotok/finetune", index, tmp_path / "thawed", 1, *thawed) == 0
    moved = weights(tmp_path / "thawed" / "checkpoints" / "last")
    assert any(not torch.equal(moved[name], before[name]) for name in codebooks)


def test_another_quantiser_does_not_take_the_weights(source, tmp_path, capsys):
    other = ["--init_from", str(source), "--model.init_args.overrides.quantizer", "residual_vq"]
    assert fit("evotok/finetune", shards(tmp_path, 1), tmp_path / "run", 1, *other) == 2
    assert "does not fit the model of this config" in capsys.readouterr().err
