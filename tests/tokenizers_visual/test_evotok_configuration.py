"""Settings that no EvoTok can have are refused by name, wherever they come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mmzoo
from mmzoo.cli import main
from mmzoo.errors import InputError
from mmzoo.hub.save import save_model
from tokenizers_visual.evotok.configuration import EvoTokConfig
from tokenizers_visual.evotok.family import TINY
from tokenizers_visual.evotok.modeling import EvoTokModel
from tokenizers_visual.evotok.official import config_from_official

WRONG = [
    ("encoder_width", "sixty-four", "a whole number from 1 up"),
    ("encoder_width", -64, "a whole number from 1 up"),
    ("encoder_layers", 3.5, "a whole number from 1 up"),
    ("encoder_heads", 0, "a whole number from 1 up"),
    ("semantic_heads", 0, "a whole number from 1 up"),
    ("patch_size", 0, "a whole number from 1 up"),
    ("codebook_size", None, "a whole number from 1 up"),
    ("codebook_size", True, "a whole number from 1 up"),
    ("vq_warmup", -1, "a whole number from 0 up"),
    ("encoder_feature_index", "last", "a whole number"),
    ("ema_decay", "slow", "a number from 0 up"),
    ("slim", "yes", "true or false"),
    ("encoder_activation", "nope", "an activation"),
    ("pixel_decoder_channel_multipliers", [], "a list of whole numbers"),
    ("pixel_decoder_channel_multipliers", "x", "a list of whole numbers"),
    ("pixel_decoder_channel_multipliers", [1, 0], "a list of whole numbers"),
]


@pytest.mark.parametrize(("name", "value", "wanted"), WRONG)
def test_a_value_that_cannot_be_is_refused_by_name(name: str, value: object, wanted: str) -> None:
    with pytest.raises(InputError, match=f"^{name} is .*Give {wanted}"):
        EvoTokConfig(**{**TINY, name: value})


def test_values_at_the_edge_pass() -> None:
    edge = {"output_size": None, "vq_warmup": 0, "encoder_feature_index": 1, "ema_decay": 1, "slim": True}
    assert EvoTokConfig(**{**TINY, **edge}).ema_decay == 1


def test_the_authors_config_is_checked_too() -> None:
    with pytest.raises(InputError, match="official config: patch_size is 0"):
        config_from_official({**TINY, "patch_size": 0})


def test_a_damaged_config_in_a_model_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_model(EvoTokModel(EvoTokConfig(**TINY)), tmp_path / "model")
    (folder / "zoo.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    for name, value in (("encoder_width", "a"), ("encoder_heads", 0), ("dtype", "float7")):
        (folder / "config.json").write_text(json.dumps({**config, name: value}))
        with pytest.raises(InputError, match=r"model could not be loaded"):
            mmzoo.from_pretrained(folder)
        assert main(["models", "info", str(folder)]) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert "config.json is no sound evotok config" in message
