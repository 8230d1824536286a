"""The authors' checkpoint layout: there and back without a changed bit, and nothing else accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mmzoo.errors import InputError
from tokenizers_visual.evotok.official import (
    USAGE_ROWS,
    USAGE_WINDOW,
    config_from_official,
    expected_layout,
    official_name,
    to_official,
    to_ours,
)


@pytest.fixture(scope="module")
def values(shared: Path) -> dict[str, Any]:
    return json.loads((shared / "parity/evotok/tokenizer_tiny/config.json").read_text())


@pytest.fixture
def state(shared: Path) -> dict[str, Tensor]:
    return load_file(shared / "parity/evotok/tokenizer_tiny/state_dict.safetensors")


def same_bits(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return set(left) == set(right) and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and left[name].contiguous().numpy().tobytes() == right[name].contiguous().numpy().tobytes()
        for name in left
    )


def test_round_trip_without_the_usage_window(values: dict[str, Any], state: dict[str, Tensor]) -> None:
    config = config_from_official(values)
    ours, extra = to_ours(state, config)
    assert extra == {}
    assert same_bits(to_official(ours, config, extra), state)


def test_round_trip_with_the_usage_window(values: dict[str, Any], state: dict[str, Tensor]) -> None:
    config = config_from_official(values)
    generator = torch.Generator().manual_seed(0)
    state[USAGE_WINDOW] = torch.randint(0, 64, (USAGE_ROWS, 4), generator=generator).float()
    ours, extra = to_ours(state, config)
    assert list(extra) == [USAGE_WINDOW]
    assert USAGE_WINDOW not in {official_name(name) for name in ours}
    assert same_bits(to_official(ours, config, extra), state)


def test_a_model_trained_here_gets_an_empty_usage_window(values: dict[str, Any], state: dict[str, Tensor]) -> None:
    config = config_from_official(values)
    ours, _ = to_ours(state, config)
    official = to_official(ours, config, None)
    assert {name: tuple(tensor.shape) for name, tensor in official.items()} == expected_layout(config)
    assert not official[USAGE_WINDOW].any()


def test_a_missing_tensor_is_refused(values: dict[str, Any], state: dict[str, Tensor]) -> None:
    del state["decoder.conv_in.weight"]
    with pytest.raises(InputError, match=r"missing: decoder\.conv_in\.weight"):
        to_ours(state, config_from_official(values))


def test_an_unexpected_tensor_is_refused(values: dict[str, Any], state: dict[str, Tensor]) -> None:
    state["decoder.surplus"] = torch.zeros(1)
    with pytest.raises(InputError, match=r"unexpected: decoder\.surplus"):
        to_ours(state, config_from_official(values))


def test_a_tensor_of_the_wrong_shape_is_refused(values: dict[str, Any], state: dict[str, Tensor]) -> None:
    name = "post_quant_conv.weight"
    state[name] = state[name].flatten(1)
    with pytest.raises(InputError, match=r"wrong shape: post_quant_conv\.weight is \(32, 8\), not \(32, 8, 1, 1\)"):
        to_ours(state, config_from_official(values))


def test_a_usage_window_of_the_wrong_shape_is_refused(values: dict[str, Any], state: dict[str, Tensor]) -> None:
    state[USAGE_WINDOW] = torch.zeros(8, 4)
    with pytest.raises(InputError, match=r"wrong shape: quantize\.codebook_used"):
        to_ours(state, config_from_official(values))


def test_a_padding_row_that_is_not_zero_is_refused(values: dict[str, Any], state: dict[str, Tensor]) -> None:
    state["quantize.codebooks.2.weight"][-1, 0] = 1.0
    with pytest.raises(InputError, match=r"padding row of quantize\.codebooks\.2\.weight"):
        to_ours(state, config_from_official(values))


def test_an_unknown_config_key_is_refused_with_a_suggestion(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"'codebook_sizes' is not a setting of EvoTok.*codebook_size"):
        config_from_official({**values, "codebook_sizes": 64})


def test_a_config_that_contradicts_itself_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="grid_size is 5"):
        config_from_official({**values, "grid_size": 5})
