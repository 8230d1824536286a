"""EvoTok's perceptual loss: equal to torchmetrics' LPIPS on any VGG16, and never silently without its weights.

The backbone's real weights come with no package, so these tests draw random ones; the linear heads are the real ones.
"""

from __future__ import annotations

import hashlib

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torchmetrics.functional.image import lpips

from mmzoo.errors import InputError
from tokenizers_visual.evotok.losses import GeneratorLossSettings
from tokenizers_visual.evotok.perceptual import BACKBONE_FILE, Perceptual, heads_file
from tokenizers_visual.evotok.training import EvoTokTraining


@pytest.fixture(scope="module")
def features():
    """The convolutions of torchvision's VGG16, with random weights of sensible size."""
    torch.manual_seed(0)
    network = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    for layer in network:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
            torch.nn.init.normal_(layer.bias, std=0.1)
    return network


@pytest.fixture(scope="module")
def backbone(features, tmp_path_factory):
    """The same as torchvision's file has it, with a classifier that is not wanted."""
    state = {f"features.{name}": value for name, value in features.state_dict().items()}
    file = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save({**state, "classifier.0.bias": torch.zeros(3)}, file)
    return file


@pytest.fixture(scope="module")
def perceptual(backbone):
    return Perceptual.load(str(backbone))


@pytest.fixture
def oracle(features, monkeypatch):
    monkeypatch.setattr(lpips, "_get_tv_model_features", lambda net, pretrained: features)
    return lpips._LPIPS(pretrained=True, net="vgg", pnet_rand=True)


def pair(size=(3, 3, 40, 48)):
    random = torch.Generator().manual_seed(1)
    target = torch.rand(size, generator=random) * 2 - 1
    return (target + 0.3 * torch.randn(size, generator=random)).requires_grad_(), target


def test_values_and_gradients_are_those_of_torchmetrics(perceptual, oracle):
    images, target = pair()
    part = perceptual(images, target)
    expected = oracle(images, target)
    assert part.count == len(images)
    torch.testing.assert_close(part.mean, expected.mean(), rtol=1e-5, atol=1e-6)
    (ours,) = torch.autograd.grad(part.sum, images)
    (theirs,) = torch.autograd.grad(expected.sum(), images)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * float(theirs.abs().max()))


def test_equal_images_are_at_no_distance_and_flat_ones_keep_their_gradient_finite(perceptual):
    _, target = pair()
    assert float(perceptual(target, target).sum) == 0
    flat = torch.zeros(1, 3, 16, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(perceptual(flat, torch.ones_like(flat)).sum, flat)
    assert gradient.isfinite().all()


def test_parts_of_a_batch_add_up(perceptual):
    images, target = pair()
    parts = [perceptual(a, b) for a, b in zip(images.split([1, 0, 2]), target.split([1, 0, 2]), strict=True)]
    added = parts[0] + parts[1] + parts[2]
    assert added.count == 3
    torch.testing.assert_close(added.sum, perceptual(images, target).sum)


def test_nothing_in_it_learns_or_is_noisy_in_training(perceptual):
    images, target = pair()
    perceptual.train()
    assert not any(module.training for module in perceptual.modules())
    assert not any(parameter.requires_grad for parameter in perceptual.parameters())
    assert torch.equal(perceptual(images, target).sum, perceptual(images, target).sum)


def test_distances_are_float32_under_autocast(perceptual):
    images, target = pair()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = perceptual(images, target).mean
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, perceptual(images, target).mean, rtol=2e-2, atol=0)


def test_safetensors_are_read_as_well(backbone, perceptual, tmp_path):
    save_file(torch.load(backbone, weights_only=True), tmp_path / "vgg.safetensors")
    other = Perceptual.load(str(tmp_path / "vgg.safetensors"))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in perceptual.state_dict().items())


def test_absent_weights_are_one_line_that_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for given, place in ((None, tmp_path / "hub/checkpoints" / BACKBONE_FILE), (str(tmp_path / "x.pth"), "x.pth")):
        settings = GeneratorLossSettings(perceptual="vgg", perceptual_weights_file=given)
        with pytest.raises(InputError, match=rf"there is no \S*{place}. Fetch https\S+ and name it: .*none") as refusal:
            EvoTokTraining("evotok/tiny", losses=settings)
        assert "\n" not in str(refusal.value)


def test_the_cache_is_found_and_a_damaged_file_is_not_used(backbone, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub/checkpoints" / BACKBONE_FILE
    cached.parent.mkdir(parents=True)
    cached.symlink_to(backbone)
    with pytest.raises(InputError, match="is damaged: its sha256 begins with"):  # random weights are not its content
        Perceptual.load(None)
    told = hashlib.sha256(backbone.read_bytes()).hexdigest()
    named = tmp_path / f"vgg16-{told[:8]}.pth"
    named.symlink_to(backbone)
    assert Perceptual.load(str(named)).receipt["sha256"] == told


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda whole: whole[: len(whole) // 2], "cannot be read as weights"),
        (lambda whole: b"", "cannot be read as weights"),
    ],
)
def test_files_that_are_cut_off_are_named(backbone, tmp_path, content, message):
    (tmp_path / "vgg.pth").write_bytes(content(backbone.read_bytes()))
    with pytest.raises(InputError, match=message):
        Perceptual.load(str(tmp_path / "vgg.pth"))


def test_weights_of_another_network_are_named(backbone, tmp_path):
    state = torch.load(backbone, weights_only=True)
    cases = [
        ({n: v for n, v in state.items() if "features.28" not in n}, r"features.28.weight is missing"),
        ({**state, "features.0.bias": torch.zeros(3)}, r"features.0.bias is \(3,\), not \(64,\)"),
        ([1, 2], "holds no weights by name"),
    ]
    for wrong, message in cases:
        torch.save(wrong, tmp_path / "wrong.pth")
        with pytest.raises(InputError, match=message):
            Perceptual.load(str(tmp_path / "wrong.pth"))


def test_other_heads_than_the_published_ones_are_refused(perceptual, tmp_path):
    other = tmp_path / "vgg.pth"
    other.write_bytes(heads_file().read_bytes() + b" ")
    with pytest.raises(RuntimeError, match="torchmetrics changed it"):
        Perceptual().load_heads(other)


@pytest.mark.parametrize("sizes", [((1, 3, 15, 16), (1, 3, 15, 16)), ((1, 3, 16, 16), (2, 3, 16, 16))])
def test_shapes_that_cannot_be_compared_are_named(perceptual, sizes):
    with pytest.raises(InputError, match="two batches of one shape, at least 16 px"):
        perceptual(*(torch.zeros(size) for size in sizes))


def test_it_is_a_part_of_the_training_and_of_no_checkpoint(backbone, perceptual):
    torch.manual_seed(2)
    settings = GeneratorLossSettings(perceptual="vgg", perceptual_weight=0.25, perceptual_weights_file=str(backbone))
    module = EvoTokTraining("evotok/tiny", losses=settings)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    loss, output = module._loss(images)
    expected = perceptual(output.reconstruction, images)
    torch.testing.assert_close(loss.parts["perceptual"].sum, expected.sum)
    assert loss.weights["perceptual"] == 0.25
    assert module.loss_counts({"image": images})["perceptual"] == 2
    assert module.receipts == [{"perceptual": perceptual.receipt}]
    state = module.state_dict()
    assert not any(name.startswith("perceptual") for name in state)
    module.load_state_dict(state)
    with pytest.raises(InputError, match="needs 16 px, image_size is 8"):
        EvoTokTraining("evotok/tiny", {"image_size": 8}, settings)
