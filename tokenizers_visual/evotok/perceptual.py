"""The perceptual loss: LPIPS on a VGG16 (Zhang et al., arXiv 1801.03924; spec section 2.1).

The linear heads are torchmetrics' copy of the file that the authors' code uses (BSD 2-clause). The VGG16 backbone was
trained on ImageNet by torchvision and does not come with any package: it is read from a file or from torch's cache.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmzoo.durable_files import sha256_of
from mmzoo.errors import InputError
from mmzoo.hub.torch_weights import cached_weights, checked_sha256, read_weights
from mmzoo.training.loss_sums import LossSum

#: torchvision's file; the part after the dash is how its sha256 begins.
BACKBONE_FILE = "vgg16-397923af.pth"
BACKBONE_URL = f"https://download.pytorch.org/models/{BACKBONE_FILE}"
HEADS_SHA256 = "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"
#: Channels of VGG16's convolutions between two poolings; each block's last activation is compared.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
#: Images in [-1, 1] are normalised by these, which is ImageNet's mean and deviation for that range.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
#: Keeps the length of a feature vector of zeros differentiable; invisible beside any other.
LENGTH_EPS = 1e-8
#: px; four poolings halve it to one.
LEAST_SIZE = 16


class Perceptual(nn.Module):
    """LPIPS of images (B, 3, H, W) in [-1, 1]: weighted squared distances of unit feature vectors, in five layers.

    Frozen and always in evaluation mode: unlike in the authors' code no dropout of the heads makes the loss noisy.
    Not part of any checkpoint: it is loaded from its own source.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_block(a, b) for a, b in zip((3, 64, 128, 256, 512), BLOCKS, strict=True))
        self.heads = nn.ParameterList(torch.empty(1, widths[-1], 1, 1) for widths in BLOCKS)
        self.receipt: dict[str, Any] = {}
        for name, values in (("shift", SHIFT), ("scale", SCALE)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, backbone: str | None) -> Perceptual:
        """LPIPS with its weights: `backbone` is a file of VGG16 weights, None = torch's cache. InputError if absent."""
        file = _backbone_file(backbone)
        loss = cls()
        loss.load_backbone(read_weights(file), str(file))
        loss.load_heads(heads_file())
        loss.receipt = {"file": str(file), "sha256": checked_sha256(file), "heads_sha256": HEADS_SHA256}
        return loss

    def load_backbone(self, state: dict[str, Tensor], source: str) -> None:
        """Takes torchvision's VGG16 (its convolutions; classifier weights are ignored). InputError if it lacks some."""
        convolutions = [layer for layer in self.blocks.modules() if isinstance(layer, nn.Conv2d)]
        for position, layer in zip(_positions(), convolutions, strict=True):
            for kind, own in layer.named_parameters():
                name = f"features.{position}.{kind}"
                if name not in state or state[name].shape != own.shape:
                    found = "missing" if name not in state else f"{tuple(state[name].shape)}, not {tuple(own.shape)}"
                    raise InputError(
                        f"{source} holds no VGG16 of torchvision ({name} is {found}). Give {BACKBONE_FILE} "
                        f"from {BACKBONE_URL}"
                    )
                own.data.copy_(state[name])

    def load_heads(self, file: Path) -> None:
        """Takes the linear heads of LPIPS version 0.1."""
        if sha256_of(file) != HEADS_SHA256:
            raise RuntimeError(f"{file} is not LPIPS 0.1 for VGG: torchmetrics changed it")
        state = read_weights(file)
        for number, head in enumerate(self.heads):
            head.data.copy_(state[f"lin{number}.model.1.weight"])

    def train(self, mode: bool = True) -> Perceptual:  # noqa: ARG002
        """Stays in evaluation mode whatever its parent does."""
        return super().train(False)

    def forward(self, images: Tensor, target: Tensor) -> LossSum:
        """`images` against `target`, both (B, 3, H, W) in [-1, 1], H and W >= 16 px; one term an image.

        The gradient reaches `images` only. What is compared is float32, also where autocast made the features.
        """
        if images.shape != target.shape or min(images.shape[-2:]) < LEAST_SIZE:
            raise InputError(
                f"the perceptual loss takes two batches of one shape, at least {LEAST_SIZE} px a side; "
                f"got {tuple(images.shape)} and {tuple(target.shape)}"
            )
        with torch.no_grad():
            wanted = self._features(target)
        distances = [
            ((ours - theirs).square() * head).sum(1).mean((1, 2)).sum()  # a convolution autocast would round
            for ours, theirs, head in zip(self._features(images), wanted, self.heads, strict=True)
        ]
        return LossSum(torch.stack(distances).sum(), len(images))

    def _features(self, images: Tensor) -> list[Tensor]:
        """Unit vectors (B, C, h, w), float32, of the five layers."""
        x, found = (images - self.shift) / self.scale, []
        for block in self.blocks:
            x = block(x)
            exact = x.float()
            found.append(exact * (exact.square().sum(1, keepdim=True) + LENGTH_EPS).rsqrt())
        return found


def _block(channels_in: int, widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = [] if channels_in == 3 else [nn.MaxPool2d(2)]
    for width in widths:
        layers += [nn.Conv2d(channels_in, width, 3, padding=1), nn.ReLU()]
        channels_in = width
    return nn.Sequential(*layers)


def _positions() -> list[int]:
    """Where the convolutions stand in torchvision's list of layers: each has an activation, each block a pooling."""
    found, position = [], 0
    for widths in BLOCKS:
        for _ in widths:
            found.append(position)
            position += 2
        position += 1
    return found


def heads_file() -> Path:
    """torchmetrics' file of the linear heads, found without importing it."""
    spec = find_spec("torchmetrics")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "functional" / "image" / "lpips_models" / "vgg.pth"


def _backbone_file(given: str | None) -> Path:
    file = Path(given).expanduser() if given else cached_weights(BACKBONE_FILE)
    if not file.is_file():
        raise InputError(
            f"the perceptual loss needs the weights of VGG16, and there is no {file}. Fetch {BACKBONE_URL} and name "
            f"it: model.init_args.losses.perceptual_weights_file, or train without: losses.perceptual: none"
        )
    return file
