"""Settings that no CrossEarth-SAR can have are refused by name; what a setting may be is said in one place."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest

from geospatial.crossearth_sar.configuration import CrossEarthSARConfig, checked_config, setting_names
from geospatial.crossearth_sar.family import TINY
from geospatial.crossearth_sar.official import config_from_official
from geospatial.crossearth_sar.setting_checks import WORDS
from geospatial.sar.descriptors import DescriptorSettings
from geospatial.sar.domains import DOMAINS
from mmzoo.errors import InputError
from mmzoo.ops.expert_routing import GATES
from mmzoo.ops.expert_table import METHODS

WRONG = [
    ("hidden_size", "wide", "a whole number from 1 up"),
    ("num_experts", 0, "a whole number from 1 up"),
    ("num_hidden_layers", True, "a whole number from 1 up"),
    ("router_std", -0.1, "a number from 0 up"),
    ("gate", "softmax", "one of renorm, prob, ste"),
    ("gate", ["ste"], "one of renorm, prob, ste"),
    ("domain", "sigma0", "one of log1p, intensity, amplitude, db, display8"),
    ("expert_method", "groupd", "one of auto, loop, grouped. Did you mean 'grouped'"),
    ("descriptor_input", None, "one of image, network, raster, none"),
    ("descriptor_band", 0, "1, 2, 3 or 'mean'"),
    ("descriptor_bins", 1, "a whole number from 2 up"),
    ("value_range", [255, 0], "two numbers, the lower first"),
    ("image_mean", [0.5], "3 numbers"),
    ("image_std", [0.2, 0.2, 0.0], "3 numbers above 0"),
    ("feature_layers", [-1], "a list of block numbers"),
]


@pytest.mark.parametrize(("name", "value", "wanted"), WRONG)
def test_a_value_that_cannot_be_is_refused_by_name(name, value, wanted):
    with pytest.raises(InputError, match=f"^{name} is .*Give {wanted}"):
        CrossEarthSARConfig(**{**TINY, name: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_attention_heads": 5}, "not a multiple of num_attention_heads 5"),
        ({"experts_per_token": 7}, "experts_per_token is 7 of num_experts 6"),
        ({"feature_layers": [1, 4]}, "must name blocks from 0 to 3"),
        ({"feature_layers": []}, "must name blocks"),
        ({"image_size": 4}, "less than patch_size 8"),
    ],
)
def test_settings_that_contradict_each_other(settings, message):
    with pytest.raises(InputError, match=message):
        CrossEarthSARConfig(**{**TINY, **settings})


def test_the_words_are_those_of_the_parts_they_are_for():
    assert WORDS["gate"] == GATES
    assert WORDS["expert_method"] == METHODS
    assert WORDS["domain"] == DOMAINS
    assert WORDS["descriptor_scaling"] == get_args(get_type_hints(DescriptorSettings)["scaling"])


@pytest.mark.parametrize(
    ("depth", "layers"), [(24, [7, 11, 15, 23]), (12, [3, 5, 7, 11]), (4, [0, 1, 2, 3]), (1, [0, 0, 0, 0])]
)
def test_the_usual_four_layers(depth, layers):
    assert CrossEarthSARConfig(num_hidden_layers=depth).feature_layers == layers


def test_it_comes_back_from_its_file(tmp_path):
    config = CrossEarthSARConfig(**TINY, domain="db", value_range=(-25, 0), feature_layers=(1, 3))
    config.save_pretrained(tmp_path)
    back = CrossEarthSARConfig.from_pretrained(tmp_path)
    assert all(getattr(back, name) == getattr(config, name) for name in setting_names())
    assert (back.value_range, back.feature_layers, back.domain) == ([-25.0, 0.0], [1, 3], "db")


def test_an_unknown_setting_is_refused_with_a_suggestion():
    with pytest.raises(InputError, match=r"model.overrides: 'num_expert' is not a setting.*'num_experts'"):
        checked_config({"num_expert": 4}, "model.overrides")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_register_token": 4}, "setting of neither CrossEarth-SAR nor Dinov2"),
        ({"use_swiglu_ffn": True}, "use_swiglu_ffn is True, and this encoder has False"),
        ({"num_channels": 1}, "num_channels is 1, and this encoder has 3"),
        ({"model_type": "dinov2_with_registers"}, "this encoder has 'dinov2'"),
        ({"patch_size": 0}, "official config: patch_size is 0"),
    ],
)
def test_a_config_that_this_encoder_cannot_be(values, message):
    with pytest.raises(InputError, match=message):
        config_from_official(values)
