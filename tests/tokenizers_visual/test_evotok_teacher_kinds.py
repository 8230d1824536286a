"""Teachers of every kind: their normalisation, the tapped layer and nothing behind it; where the encoder starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import SiglipVisionModel

from mmzoo.errors import InputError
from mmzoo.hub.save import save_model
from tokenizers_visual.evotok.configuration import EvoTokConfig
from tokenizers_visual.evotok.family import TINY
from tokenizers_visual.evotok.modeling import EvoTokModel
from tokenizers_visual.evotok.teacher import Teacher, TeacherSettings
from tokenizers_visual.evotok.training import EvoTokTraining


class Tower(nn.Module):
    """Two layers; the second must never be reached."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Identity()
        self.unused = nn.Identity()

    def forward(self, pixels):
        self.first(pixels)
        raise AssertionError("ran past the tapped layer")


@pytest.fixture(scope="module")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("siglip")
    SiglipVisionModel(EvoTokConfig(**TINY).encoder_config()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def timm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("timm")
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, **sizes)
    save_file(network.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 0,
        "model_args": sizes,
        "pretrained_cfg": {
            "mean": [0.4, 0.5, 0.6],
            "std": [0.2, 0.25, 0.3],
            "num_classes": 0,
            "input_size": [3, 32, 32],
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_what_lies_behind_the_layer_never_runs():
    teacher = Teacher(Tower(), "first")
    images = torch.rand(1, 3, 2, 2) * 2 - 1
    torch.testing.assert_close(teacher(images, (2, 2)), images.flatten(2).transpose(1, 2))
    with pytest.raises(InputError, match="'unused' takes no part"):
        Teacher(_Skips(), "unused")(images, (2, 2))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"layer": ""}, "no layer ''"),
        ({"layer": "head"}, r"gives \(1, 64\), not features|gives \w+, not features"),
        ({"prefix_tokens": -1}, "Give 0 or more"),
        ({"prefix_tokens": 999}, "gives 0 tokens after 999"),
        ({"image_size": 0}, "image_size is 0"),
        ({"image_size": 48}, r"cannot take images of 3 x 48 x 48 px \(RuntimeError"),
        ({"std": (0.0, 0.5, 0.5)}, "three numbers above 0"),
        ({"source": "nowhere"}, "there is no folder nowhere"),
        ({"source": "runs/teacher/checkpoints/best"}, "there is no folder runs/teacher"),
        ({"source": "local-dir:nowhere", "kind": "timm"}, "there is no folder nowhere"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused_before_training(siglip_folder: Path, wrong: dict, words: str):
    settings = {"source": str(siglip_folder), "layer": "encoder.layers.1", **wrong}
    with pytest.raises(InputError, match=words) as refusal:
        EvoTokTraining("evotok/tiny", teacher=TeacherSettings(**settings))
    assert len(str(refusal.value)) < 800


def test_a_teacher_of_another_width_is_refused_before_training(siglip_folder: Path):
    with pytest.raises(InputError, match="semantic_out_width to 64"):
        EvoTokTraining(
            "evotok/tiny", {"semantic_out_width": 32}, teacher=TeacherSettings(str(siglip_folder), "encoder.layers.1")
        )


def test_a_teacher_stored_in_bfloat16_can_be_tried_out(siglip_folder: Path, tmp_path: Path):
    SiglipVisionModel.from_pretrained(siglip_folder).to(torch.bfloat16).save_pretrained(tmp_path / "narrow")
    teacher = Teacher.load(TeacherSettings(str(tmp_path / "narrow"), layer="encoder.layers.1"))
    assert teacher.try_out(32, (4, 4)) == 64


def test_a_checkpoint_folder_stands_for_its_model(siglip_folder: Path, tmp_path: Path):
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "model").symlink_to(siglip_folder)
    teacher = Teacher.load(TeacherSettings(str(tmp_path / "best"), layer="encoder.layers.1"))
    assert list(teacher.receipt["files"]) == ["model.safetensors"]


class _Skips(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Identity()

    def forward(self, pixels):
        return pixels


def test_a_timm_teacher_gets_the_input_it_was_trained_on(timm_folder: Path):
    settings = TeacherSettings(f"local-dir:{timm_folder}", layer="blocks.1", kind="timm", prefix_tokens=1)
    teacher = Teacher.load(settings)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    pixels = (images + 1) / 2
    normalised = (pixels - torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1)) / torch.tensor([0.2, 0.25, 0.3]).view(
        1, 3, 1, 1
    )
    network = timm.create_model(f"local-dir:{timm_folder}", pretrained=True, num_classes=0).eval()
    with torch.no_grad():
        expected = network.forward_intermediates(normalised, indices=[1], output_fmt="NLC", intermediates_only=True)[0]
    torch.testing.assert_close(teacher(images, (4, 4)), expected, atol=1e-5, rtol=1e-5)
    assert teacher.receipt["mean"] == [0.4, 0.5, 0.6]
    assert list(teacher.receipt["files"]) == ["model.safetensors"]


def test_a_model_of_this_zoo_can_teach(tmp_path: Path):
    torch.manual_seed(1)
    model = EvoTokModel(EvoTokConfig(**TINY)).eval()
    folder = save_model(model, tmp_path / "zoo")
    teacher = Teacher.load(TeacherSettings(str(folder), layer="encoder.layers.1", kind="mmzoo"))
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(teacher(images, (4, 4)), model.encoder(images))


def test_preprocessing_beside_a_transformers_folder_is_read_and_the_user_overrides_it(
    siglip_folder: Path, tmp_path: Path
):
    folder = tmp_path / "with_preprocessing"
    SiglipVisionModel.from_pretrained(siglip_folder).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]})
    )
    found = Teacher.load(TeacherSettings(str(folder), layer="encoder.layers.1"))
    assert found.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert found.std.flatten().tolist() == [1, 2, 3]
    told = Teacher.load(
        TeacherSettings(str(folder), layer="encoder.layers.1", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    )
    assert told.mean.flatten().tolist() == [0.5, 0.5, 0.5]


def test_images_are_resized_for_a_teacher_of_another_size(siglip_folder: Path):
    settings = TeacherSettings(str(siglip_folder), layer="encoder.layers.1", image_size=32)
    assert Teacher.load(settings)(torch.zeros(1, 3, 48, 48), (6, 6)).shape == (1, 36, 64)


def test_the_encoder_starts_from_a_teacher_of_its_sizes(siglip_folder: Path):
    settings = TeacherSettings(str(siglip_folder), layer="encoder.layers.1")
    training = EvoTokTraining("evotok/tiny", teacher=settings)
    tower = SiglipVisionModel.from_pretrained(siglip_folder).state_dict()
    ours = training.model.encoder.state_dict()
    assert len(ours) == len(tower)
    assert torch.equal(ours["layers.1.mlp.fc1.weight"], tower["encoder.layers.1.mlp.fc1.weight"])
    assert {"encoder_from": "the teacher"} in training.receipts
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(training.teacher(images, (4, 4)), training.model.encoder(images))

    other = EvoTokTraining("evotok/tiny", {"encoder_width": 128, "semantic_out_width": 64}, teacher=settings)
    assert (
        "embeddings.patch_embedding.weight is (64, 3, 8, 8) there and (128, 3, 8, 8) here"
        in other.receipts[1]["because"]
    )
    random = EvoTokTraining("evotok/tiny", teacher=settings, encoder_from="random")
    assert not torch.equal(
        random.model.encoder.state_dict()["layers.1.mlp.fc1.weight"], ours["layers.1.mlp.fc1.weight"]
    )


def test_the_encoder_starts_from_a_folder(siglip_folder: Path, tmp_path: Path):
    training = EvoTokTraining("evotok/tiny", encoder_from=str(siglip_folder))
    tower = SiglipVisionModel.from_pretrained(siglip_folder).state_dict()
    assert torch.equal(
        training.model.encoder.state_dict()["embeddings.patch_embedding.weight"],
        tower["embeddings.patch_embedding.weight"],
    )
    with pytest.raises(InputError, match="there is no folder"):
        EvoTokTraining("evotok/tiny", encoder_from=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="cannot start from"):
        EvoTokTraining("evotok/tiny", {"encoder_mlp_width": 64}, encoder_from=str(siglip_folder))
