"""LPIPS 0.1 on VGG16 or AlexNet (Zhang et al. 2018, arXiv 1801.03924), one number per image.

The network and its linear heads are torchmetrics' (BSD 2-clause), whose class for it is private: all that is asked of
it is here. The backbones were trained by torchvision and are read from a file or from torch's cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn
from torchmetrics.functional.image import lpips as torchmetrics_lpips

from eval_suites.metrics.reconstruction import to_tensor
from eval_suites.metrics.weights_file import find_weights
from mmzoo.durable_files import sha256_of
from mmzoo.errors import InputError
from mmzoo.hub.torch_weights import checked_sha256, read_weights

Backbone = Literal["vgg", "alex"]


class _Source(NamedTuple):
    file_name: str
    heads_sha256: str  #: of the linear heads, as the authors publish them
    least_side: int  #: px; below it a pooling has nothing left


SOURCES: dict[Backbone, _Source] = {
    "vgg": _Source("vgg16-397923af.pth", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868", 16),
    "alex": _Source("alexnet-owt-7be5be79.pth", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0", 31),
}


class Lpips:
    """One frozen LPIPS network, always in evaluation mode. `description`: what the record says of it."""

    def __init__(self, network: nn.Module, least_side: int, description: dict[str, Any]) -> None:
        self.network = network
        self.least_side = least_side
        self.description = description

    @classmethod
    def load(cls, backbone: Backbone, weights: Path | None, device: torch.device | str = "cpu") -> Lpips:
        """LPIPS on torchvision's weights. NotMeasuredError: none given, none cached. InputError: not those weights."""
        source = SOURCES[backbone]
        file = find_weights(weights, source.file_name, f"https://download.pytorch.org/models/{source.file_name}")
        heads = Path(torchmetrics_lpips.__file__).parent / "lpips_models" / f"{backbone}.pth"
        if sha256_of(heads) != source.heads_sha256:
            raise RuntimeError(f"{heads} are not the heads of LPIPS 0.1: torchmetrics changed them")
        description = {"version": "0.1", "backbone": backbone, "sha256": checked_sha256(file), "range": "[-1, 1]"}
        network = torchmetrics_lpips._NoTrainLpips(net=backbone, pnet_rand=True)  # brings the heads with it
        _fill(network.net, read_weights(file), file)
        return cls(network.to(device), source.least_side, description)

    @torch.no_grad()
    def distances(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """LPIPS (B,), float64, of uint8 images (B, H, W, 3). InputError: too small."""
        if min(first.shape[1:3]) < self.least_side:
            raise InputError(
                f"LPIPS needs images of at least {self.least_side} px a side; these have {first.shape[1:3]}. "
                "Measure larger ones, or leave LPIPS out."
            )
        device = next(self.network.parameters()).device
        sides = [to_tensor(side).to(device) for side in (first, second)]
        return self.network(*sides).flatten().double().cpu().numpy()


def _fill(backbone: nn.Module, state: dict[str, torch.Tensor], file: Path) -> None:
    """torchmetrics cuts torchvision's `features` into slices and keeps each layer's number as its name."""
    for name, own in backbone.named_parameters():
        stored = f"features.{name.partition('.')[2]}"
        if stored not in state or state[stored].shape != own.shape:
            found = "missing" if stored not in state else f"{tuple(state[stored].shape)}, not {tuple(own.shape)}"
            raise InputError(f"{file} is not the network that this LPIPS stands on: {stored} is {found}.")
        own.data.copy_(state[stored])
