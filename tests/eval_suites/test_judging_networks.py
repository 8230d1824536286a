"""LPIPS and Inception: on random weights they compute what their definitions say; wrong files are named."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from skimage.data import astronaut
from torch import nn
from torchmetrics.functional.image import lpips as torchmetrics_lpips

from eval_suites.metrics.inception import FILE_NAME, Inception
from eval_suites.metrics.lpips import SOURCES, Lpips
from eval_suites.metrics.reconstruction import to_tensor
from eval_suites.metrics.weights_file import NotMeasuredError, find_weights
from mmzoo.errors import InputError
from mmzoo.hub.torch_weights import checked_sha256, read_weights

#: Where the activations that LPIPS compares stand in torchvision's `features`.
TAPS = {"vgg": (3, 8, 15, 22, 29), "alex": (1, 4, 7, 9, 11)}


@pytest.fixture(autouse=True)
def no_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


@pytest.fixture(scope="module", params=["vgg", "alex"])
def backbone(request, tmp_path_factory):
    """(name, torchvision's features with random weights, a file of them)."""
    torch.manual_seed(0)
    if request.param == "vgg":  # its layers alone: the whole VGG16 takes seconds to draw
        layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"]).eval()
    else:
        layers = torchvision.models.alexnet(weights=None).features.eval()
    file = tmp_path_factory.mktemp("weights") / f"{request.param}.safetensors"
    save_file({f"features.{name}": value for name, value in layers.state_dict().items()}, file)
    return request.param, layers, file


def pair(size=40):
    first = np.stack([astronaut()[top : top + size, 180 : 180 + size] for top in (0, 60, 200)])
    noise = np.random.default_rng(0).normal(0, 25, first.shape)
    return first, np.clip(first + noise, 0, 255).round().astype(np.uint8)


@torch.no_grad()
def plain_lpips(name, layers, first, second):
    """Zhang et al. 2018, equation 1: unit feature vectors, squared differences, weighted, mean over places, summed."""
    folder = Path(torchmetrics_lpips.__file__).parent / "lpips_models"
    heads = torch.load(folder / f"{name}.pth", map_location="cpu", weights_only=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    shift, scale = 2 * mean - 1, 2 * std  # ImageNet's normalisation for values in [-1, 1]
    sides = []
    for side in (first, second):
        x, seen = (to_tensor(side) - shift.view(1, 3, 1, 1)) / scale.view(1, 3, 1, 1), []
        for number, layer in enumerate(layers[: TAPS[name][-1] + 1]):
            x = layer(x.clone())
            if number in TAPS[name]:
                seen.append(F.normalize(x.clone(), dim=1))
        sides.append(seen)
    total = torch.zeros(len(first))
    for number, (one, other) in enumerate(zip(*sides, strict=True)):
        weight = heads[f"lin{number}.model.1.weight"]
        total += ((one - other).square() * weight.view(1, -1, 1, 1)).sum(1).mean((1, 2))
    return total.tolist()


def test_lpips_is_its_definition(backbone):
    name, layers, file = backbone
    network = Lpips.load(name, file)
    first, second = pair()
    assert network.distances(first, second).tolist() == pytest.approx(
        plain_lpips(name, layers, first, second), rel=2e-3
    )
    assert network.distances(first, first).tolist() == [0.0] * 3
    assert network.distances(first[:1], second[:1])[0] == pytest.approx(network.distances(first, second)[0], rel=1e-5)
    assert network.description["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    network.network.train(True)
    assert not any(module.training for module in network.network.modules())
    assert network.distances(*pair(SOURCES[name].least_side)).shape == (3,)
    with pytest.raises(InputError, match=f"at least {SOURCES[name].least_side} px"):
        network.distances(*pair(SOURCES[name].least_side - 1))


def test_another_network_is_not_taken_for_the_backbone(tmp_path):
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other.safetensors is not the network .* is \(64, 3, 3, 3\), not"):
        Lpips.load("alex", tmp_path / "other.safetensors")


def test_absent_weights_are_a_reason_and_a_wrong_path_is_a_mistake(tmp_path):
    with pytest.raises(NotMeasuredError, match=r"weights absent: fetch https://download.pytorch.org/models/vgg16"):
        Lpips.load("vgg", None)
    with pytest.raises(InputError, match=r"no weights at .*nowhere.pth"):
        Lpips.load("vgg", tmp_path / "nowhere.pth")
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    cached = tmp_path / "hub/checkpoints/vgg16-397923af.pth"
    cached.write_bytes(b"cut")
    assert find_weights(None, cached.name, "https://host.org") == cached
    with pytest.raises(InputError, match="is damaged: its sha256 begins with"):
        Lpips.load("vgg", None)


def test_damaged_files_and_files_with_code_are_refused(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"no weights")
    torch.save({"features": nn.Linear(1, 1)}, tmp_path / "b.pth")
    torch.save([torch.zeros(1)], tmp_path / "c.pth")
    for name in ("a", "b"):
        with pytest.raises(InputError, match=f"{name}.pth cannot be read as weights"):
            read_weights(tmp_path / f"{name}.pth")
    with pytest.raises(InputError, match="holds no weights by name"):
        read_weights(tmp_path / "c.pth")
    sha256 = hashlib.sha256(b"no weights").hexdigest()
    (tmp_path / f"x-{sha256[:8]}.pth").write_bytes(b"no weights")
    assert checked_sha256(tmp_path / f"x-{sha256[:8]}.pth") == sha256


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Random weights for torch-fidelity's network, which has no way of being built without a file."""
    fidelity = pytest.importorskip("torch_fidelity")
    torch.manual_seed(0)
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = fidelity.FeatureExtractorInceptionV3("random", ["2048"], feature_extractor_weights_path=empty)
    for layer in network.modules():  # torch's own start lets the signal die on the way through 94 layers
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    file = tmp_path_factory.mktemp("inception") / "inception.safetensors"
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, file)
    return file, network


def test_inception_gives_the_features_of_its_file(inception_file):
    file, network = inception_file
    images = pair()[0]
    found = Inception.load(file).features(images)
    assert (found.shape, found.dtype) == ((3, 2048), np.float32)
    expected = network(torch.from_numpy(images).permute(0, 3, 1, 2))[0].numpy()
    assert np.abs(found[0] - found[1]).max() > 0.01 * np.abs(found).max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(found).max())


def test_inception_names_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(NotMeasuredError, match=f"weights absent: fetch .*{FILE_NAME}"):
        Inception.load(None)
    save_file({"fc.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="is not the Inception of FID"):
        Inception.load(tmp_path / "other.safetensors")
    monkeypatch.setitem(__import__("sys").modules, "torch_fidelity", None)
    with pytest.raises(NotMeasuredError, match="torch-fidelity is not installed"):
        Inception.load(None)
