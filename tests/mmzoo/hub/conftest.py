"""A tiny model whose every tensor differs from a fresh one's, and its saved folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmzoo.hub.save import save_model
from tokenizers_visual.evotok.configuration import EvoTokConfig
from tokenizers_visual.evotok.family import TINY
from tokenizers_visual.evotok.modeling import EvoTokModel
from tokenizers_visual.evotok.processing import EvoTokImageProcessor


@pytest.fixture(scope="session")
def model() -> EvoTokModel:
    torch.manual_seed(0)
    model = EvoTokModel(EvoTokConfig(**TINY)).eval()
    with torch.no_grad():  # no tensor keeps a value that a fresh model could also have
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not name.startswith(("quantizer.", "scaling.")):
                tensor.add_(0.01 * torch.randn_like(tensor))
    return model


@pytest.fixture
def folder(model: EvoTokModel, tmp_path: Path) -> Path:
    return save_model(model, tmp_path / "saved", processor=EvoTokImageProcessor(image_size=32))
