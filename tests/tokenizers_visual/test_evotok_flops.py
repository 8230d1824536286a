"""What a forward pass costs, against torch's own counter."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmzoo.cli import main
from tokenizers_visual.evotok.configuration import EvoTokConfig
from tokenizers_visual.evotok.family import SMALL_64, TINY
from tokenizers_visual.evotok.flops import KINDS, forward_flops
from tokenizers_visual.evotok.modeling import EvoTokModel

ATTENTION = "scaled_dot_product"


def counted(model: EvoTokModel, height: int, width: int) -> dict[str, int]:
    """Operations by aten's name."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, height, width))
    return {str(name): count for name, count in counter.get_flop_counts()["Global"].items()}


@pytest.mark.parametrize(
    ("sizes", "height", "width"),
    [(TINY, 32, 32), (TINY, 48, 24), (SMALL_64, 64, 64), ({**TINY, "slim": True}, 32, 32)],
)
def test_flops_are_what_torch_counts(sizes: dict, height: int, width: int) -> None:
    model = EvoTokModel(EvoTokConfig(**sizes)).eval()
    tokens = (height // 8) * (width // 8)
    theirs, ours = counted(model, height, width), forward_flops(model, tokens)
    assert model.flops(tokens) == sum(ours.values()) == pytest.approx(sum(theirs.values()), rel=0.01)
    assert set(ours) == set(KINDS)
    assert ours["conv"] == pytest.approx(theirs["aten.convolution"], rel=0.01)
    assert ours["attention"] == pytest.approx(sum(n for k, n in theirs.items() if ATTENTION in k), rel=0.01)
    products = theirs["aten.addmm"] + theirs["aten.mm"]  # of the linear layers and of the quantizer's scores
    assert ours["linear"] + ours["quantizer"] == pytest.approx(products, rel=0.01)


def test_flops_are_of_one_image_of_the_configured_size() -> None:
    with torch.device("meta"):
        model = EvoTokModel(EvoTokConfig(**TINY))
    assert model.flops() == model.flops(16)
    assert model.flops(64) > 4 * model.flops(16)  # attention grows with the square


def test_info_shows_them(capsys) -> None:
    assert main(["models", "info", "evotok/tiny", "--json"]) == 0
    with torch.device("meta"):
        expected = EvoTokModel(EvoTokConfig(**TINY)).flops()
    assert json.loads(capsys.readouterr().out)["flops_per_image"] == expected == 179_903_100
