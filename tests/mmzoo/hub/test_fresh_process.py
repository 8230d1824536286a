"""What is compared between two processes: every tensor that a model returns, however deep it lies."""

from __future__ import annotations

import pytest
import torch

from mmzoo.hub.fresh_process import outputs_of


class Nested(torch.nn.Module):
    def forward(self, x):
        return {"head": {"logits": x}, "maps": (x + 1, x + 2), "count": 3, "flat": x}


class Silent(torch.nn.Module):
    def forward(self, x):
        return {"count": len(x)}


def test_inner_tensors_are_compared_too():
    x = torch.arange(3.0)
    found = outputs_of(Nested(), {"x": x})
    assert {name: value.tolist() for name, value in found.items()} == {
        "head.logits": [0, 1, 2],
        "maps.0": [1, 2, 3],
        "maps.1": [2, 3, 4],
        "flat": [0, 1, 2],
    }
    assert len({value.data_ptr() for value in found.values()}) == 4


def test_a_model_that_returns_no_tensor_is_not_taken_for_equal():
    with pytest.raises(ValueError, match="Silent returns no tensor for x"):
        outputs_of(Silent(), {"x": torch.zeros(2)})
