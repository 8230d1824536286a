"""The 2,048 features of Inception v3 (2015-12-05) that FID is made of, by torch-fidelity's network.

torch-fidelity (Apache-2.0) resizes bytes to 299 px as TensorFlow 1 did. It would unpickle its weights file freely; here
the file is read as plain tensors first, and only those are handed on.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from eval_suites.metrics.weights_file import NotMeasuredError, find_weights
from mmzoo.errors import InputError
from mmzoo.hub.torch_weights import checked_sha256, read_weights

FILE_NAME = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE_NAME}"
WIDTH = 2048


class Inception:
    """The frozen network. `description`: what the record says of it."""

    width = WIDTH

    def __init__(self, network: nn.Module, description: dict[str, Any]) -> None:
        self.network = network
        self.description = description

    @classmethod
    def load(cls, weights: Path | None, device: torch.device | str = "cpu") -> Inception:
        """NotMeasuredError: torch-fidelity or the weights are absent. InputError: not those weights."""
        try:
            from torch_fidelity import FeatureExtractorInceptionV3
        except ModuleNotFoundError as fault:
            raise NotMeasuredError("torch-fidelity is not installed: pip install torch-fidelity") from fault
        file = find_weights(weights, FILE_NAME, URL)
        description = {"network": "torch-fidelity Inception v3, 2048 features", "sha256": checked_sha256(file)}
        plain = io.BytesIO()
        torch.save(read_weights(file), plain)
        plain.seek(0)
        try:
            network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=plain)
        except RuntimeError as fault:  # torch: names or shapes that do not fit
            raise InputError(f"{file} is not the Inception of FID. Fetch {URL}") from fault
        return cls(network.to(device), description)

    @torch.no_grad()
    def features(self, images: np.ndarray) -> np.ndarray:
        """float32 (B, 2048) of uint8 images (B, H, W, 3)."""
        device = next(self.network.parameters()).device
        batch = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)
        return self.network(batch)[0].cpu().numpy()
