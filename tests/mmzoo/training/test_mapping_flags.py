"""Flags that change one entry of an option that is a mapping."""

import pytest
import yaml

from data_engine.mixture_grammar import read_mixture
from mmzoo.errors import InputError
from mmzoo.training.config_check import flags_as_config
from mmzoo.training.config_files import merge, read_config, to_yaml
from mmzoo.training.mapping_flags import with_mapping_flags

CONFIG = """\
folders: &folders {photos: runs/photos, textures: runs/textures}
model: {class_path: tiny_training.TinyTraining, init_args: {optimizer: {lr: 1e-2}}}
data:
  class_path: mmzoo.training.mixture_data.MixtureData
  init_args:
    mixture:
      sources: *folders
      parts: [photos*2, {source: textures, epochs: 1, name: rough}]
    transform: {class_path: tiny_training.MeanColour}
    packing: null
"""


@pytest.fixture
def after(tmp_path):
    """after(*flags) -> (config as it is then, the flags that are left)."""

    def set_flags(*flags, text=CONFIG):
        file = tmp_path / "config.yaml"
        file.write_text(text)
        config = read_config(file)
        changed, rest = with_mapping_flags(config, merge(config, flags_as_config(list(flags))), list(flags))
        return yaml.safe_load(to_yaml(changed)), rest

    return set_flags


def mixture(config):
    return config["data"]["init_args"]["mixture"]


@pytest.mark.parametrize("start", ["--data.init_args.mixture", "--data.mixture"])
def test_one_source_is_changed_and_the_others_stay(after, start):
    config, rest = after(f"{start}.sources.photos", "other", "--model.optimizer.lr", "1", f"{start}.sources.new=there")
    assert mixture(config)["sources"] == {"photos": "other", "textures": "runs/textures", "new": "there"}
    assert config["folders"] == {"photos": "runs/photos", "textures": "runs/textures"}, "the anchor was written to"
    assert mixture(config)["parts"] == ["photos*2", {"source": "textures", "epochs": 1, "name": "rough"}]
    assert rest == ["--model.optimizer.lr", "1"]


def test_a_part_goes_by_its_name(after):
    start = "--data.mixture.parts"
    config, _ = after(f"{start}.photos.weight", "2", f"{start}.rough.weight", "0.5")
    assert mixture(config)["parts"] == [
        {"source": "photos", "weight": 2},
        {"source": "textures", "name": "rough", "weight": 0.5},
    ]
    assert read_mixture(mixture(config)).root.how == "weight"
    assert mixture(after(f"{start}.photos", "photos%10")[0])["parts"][0] == "photos%10"
    assert mixture(after(f"{start}.photos.name", "fine")[0])["parts"][0] == {
        "source": "photos",
        "epochs": 2,
        "name": "fine",
    }


def test_the_order_of_flags_holds_and_an_option_that_was_null_begins(after):
    whole = "{sources: {a: x, b: y}, parts: [a, b]}"
    config, rest = after("--data.mixture", whole, "--data.mixture.sources.b=z", "--data.packing.capacity", "64")
    assert mixture(config) == {"sources": {"a": "x", "b": "z"}, "parts": ["a", "b"]}
    assert config["data"]["init_args"]["packing"] == {"capacity": 64}
    assert rest == []
    assert mixture(after("--data.mixture.sources.b=z", "--data.mixture", whole)[0])["sources"]["b"] == "y"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--data.mixture.sources.photos.weight", "2"],
            r"'runs/photos', .* --data.init_args.mixture.parts.photos.weight$",
        ),
        (["--data.mixture.parts.photo.weight", "2"], "no 'photo' in the list data.init_args.mixture.parts.*'photos'"),
        (["--data.mixture.sources.photos="], "--data.mixture.sources.photos= needs a value in YAML"),
        (["--data.mixture", "mix.yaml", "--data.mixture.sources.a", "b"], "is 'mix.yaml', .* Change what it names"),
    ],
)
def test_what_holds_nothing_is_one_line(after, flags, words):
    with pytest.raises(InputError, match=words) as caught:
        after(*flags)
    assert "\n" not in str(caught.value)


def test_other_flags_and_unknown_classes_are_left_alone(after):
    flags = ["--data.transform.noise", "1", "--trainer.max_steps=3", "stray", "--model.help", "--print_config"]
    assert after(*flags)[1] == flags
    assert after("--data.mixture.parts+", "photos")[1] == ["--data.mixture.parts+", "photos"]
    odd = CONFIG.replace("MixtureData", "NoSuchData")
    assert after("--data.mixture.sources.a", "b", text=odd)[1] == ["--data.mixture.sources.a", "b"]
