"""The teacher's inner features against the recorded ones, through the loader that users have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import SiglipVisionModel

from mmzoo.errors import InputError
from tokenizers_visual.evotok.official import config_from_official
from tokenizers_visual.evotok.teacher import Teacher, TeacherSettings


@pytest.fixture(scope="module")
def teacher_folder(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    golden = shared / "parity/evotok/tokenizer_tiny"
    config = config_from_official(json.loads((golden / "config.json").read_text()))
    network = SiglipVisionModel(config.encoder_config())
    state = {
        name.removeprefix("vision_model."): tensor
        for name, tensor in load_file(golden / "teacher_state_dict.safetensors").items()
    }
    network.load_state_dict(state, strict=True)
    folder = tmp_path_factory.mktemp("teacher")
    network.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("images", "outputs"), [("images", "outputs"), ("images_out_of_range", "outputs_out_of_range")]
)
def test_features_equal_the_recorded_ones(teacher_folder: Path, shared: Path, images: str, outputs: str):
    golden = shared / "parity/evotok/tokenizer_tiny"
    teacher = Teacher.load(TeacherSettings(str(teacher_folder), layer="encoder.layers.1"))
    features = teacher(load_file(golden / "inputs.safetensors")[images], (4, 4))
    expected = load_file(golden / f"{outputs}.safetensors")["teacher_features"]
    torch.testing.assert_close(features, expected, atol=2e-5, rtol=0)


def test_another_grid_is_resized_and_nothing_learns(teacher_folder: Path):
    teacher = Teacher.load(TeacherSettings(str(teacher_folder), layer="encoder.layers.1")).train()
    assert teacher(torch.zeros(1, 3, 32, 32), (2, 6)).shape == (1, 12, 64)
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_absent_weights_and_layers_are_one_clear_line(teacher_folder: Path, tmp_path: Path):
    with pytest.raises(InputError, match="there is no folder"):
        Teacher.load(TeacherSettings(str(tmp_path / "nowhere"), layer="encoder.layers.1"))
    with pytest.raises(InputError, match=r"no layer 'encoder\.layer\.1'"):
        Teacher.load(TeacherSettings(str(teacher_folder), layer="encoder.layer.1"))
