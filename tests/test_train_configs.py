"""Every shipped config parses as the command parses it, and builds its model and data."""

from __future__ import annotations

import contextlib
import io

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from mmzoo.cli import main
from mmzoo.training.config_files import compose, shipped_folder, shipped_names, to_yaml
from mmzoo.training.data_module import ShardData
from mmzoo.training.module import ZooModule

NAMES = shipped_names()


def test_configs_are_shipped():
    assert "evotok/tiny-demo" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_config_parses_and_builds(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        assert main(["fit", "-c", name, "--print_config"]) == 0
    whole = yaml.safe_load(printed.getvalue())
    written = yaml.safe_load(to_yaml(compose([name])))
    assert whole["model"]["class_path"] == written["model"]["class_path"]
    assert int(whole["trainer"]["max_steps"]) == int(written["trainer"]["max_steps"])

    arguments = written["model"]["init_args"]
    arguments.pop("teacher", None)  # its weights are made by another run, or on the Hub
    arguments.pop("encoder_from", None)  # as are these
    if written["model"]["class_path"].endswith(".EvoTokTraining"):
        # Said in each; VGG's weights are fetched by hand.
        assert arguments["losses"].pop("perceptual") in ("vgg", "none")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ZooModule, "model")
    parser.add_subclass_arguments(ShardData, "data")
    with torch.device("meta"):
        built = parser.instantiate(parser.parse_object({key: written[key] for key in ("model", "data")}))
    assert sum(p.numel() for p in built.model.parameters()) > 0
    assert built.data.global_batch == written["data"]["init_args"]["global_batch"]


@pytest.mark.parametrize("name", NAMES)
def test_the_head_comment_says_command_and_hardware(name: str):
    text = (shipped_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    head = text.partition("seed_everything")[0]
    assert f"mmzoo fit -c {name}" in head
    assert "Hardware:" in head
