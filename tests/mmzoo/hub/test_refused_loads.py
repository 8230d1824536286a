"""Loads that must not succeed, each with one line that says why; and what the receipt of a good one holds."""

from __future__ import annotations

import json
import shutil
from logging import WARNING, Handler
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel
from transformers.utils import logging
from weights_by_others import change_weights

import mmzoo
from mmzoo.errors import InputError
from mmzoo.hub.save import save_model
from mmzoo.training.checkpoint_folder import seal
from tokenizers_visual.evotok.configuration import EvoTokConfig
from tokenizers_visual.evotok.family import TINY
from tokenizers_visual.evotok.modeling import EvoTokModel

TENSOR = "decode_head.0.weight"
TABLE = "quantizer.levels.0.table"


@pytest.mark.parametrize(
    ("name", "dtype", "words"),
    [
        (TENSOR, torch.int64, r"decode_head\.0\.weight \(int64, not float\)"),
        (TABLE, torch.bool, r"quantizer\.levels\.0\.table \(bool, not float\)"),
        (TENSOR, torch.uint8, r"decode_head\.0\.weight \(uint8, not float\)"),
    ],
)
def test_another_kind_of_number_is_refused(folder: Path, name: str, dtype: torch.dtype, words: str) -> None:
    change_weights(folder, lambda state: state.update({name: state[name].to(dtype)}))
    with pytest.raises(InputError, match=words):
        mmzoo.from_pretrained(folder)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_another_width_of_float_is_converted_and_recorded(folder: Path, dtype: torch.dtype) -> None:
    change_weights(folder, lambda state: state.update({TENSOR: state[TENSOR].to(dtype)}))
    model = mmzoo.from_pretrained(folder, dtype=torch.float32)
    assert model.state_dict()[TENSOR].dtype == torch.float32
    short = str(dtype).removeprefix("torch.")
    assert model.load_receipt.origins["model.safetensors"][f"{short} as float32"] == [TENSOR]


def test_the_receipt_says_file_and_dtype_of_every_tensor(model: EvoTokModel, folder: Path) -> None:
    receipt = mmzoo.from_pretrained(folder).load_receipt
    assert list(receipt.origins) == ["model.safetensors"]
    by_dtype = receipt.origins["model.safetensors"]
    assert {name for names in by_dtype.values() for name in names} == set(model.state_dict())
    assert by_dtype.keys() == {"float32"}
    assert receipt.summary().count("\n") == 0
    assert len(receipt.summary()) < 300
    halves = mmzoo.from_pretrained(folder, dtype=torch.bfloat16).load_receipt.origins["model.safetensors"]
    assert all(name.startswith("quantizer.") for name in halves["float32"])
    assert TENSOR in halves["float32 as bfloat16"]


def test_shards_are_named_and_a_lost_one_is_refused(model: EvoTokModel, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    model.save_pretrained(folder, max_shard_size="1MB")
    receipt = mmzoo.from_pretrained(folder).load_receipt
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(shards) > 2
    assert list(receipt.files) == sorted(receipt.origins) == shards
    (folder / shards[1]).unlink()
    with pytest.raises(InputError, match=rf"lacks {shards[1]}, which model\.safetensors\.index\.json names"):
        mmzoo.from_pretrained(folder)


def test_a_class_refuses_another_family(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "siglip"}))
    (folder / "zoo.json").unlink()
    with pytest.raises(InputError, match="holds a 'siglip' model and EvoTokModel is a 'evotok'"):
        EvoTokModel.from_pretrained(folder)


@pytest.mark.parametrize("inside", ["", "model"])
@pytest.mark.parametrize("load", [mmzoo.from_pretrained, EvoTokModel.from_pretrained])
def test_an_unfinished_checkpoint_is_refused(folder: Path, tmp_path: Path, load, inside: str) -> None:
    checkpoint = tmp_path / "step_00000007"
    shutil.copytree(folder, checkpoint / "model")
    (checkpoint / "trainer.ckpt").write_text("")
    with pytest.raises(InputError, match=r"step_00000007 is not a finished checkpoint: it has no DONE"):
        load(checkpoint / inside)
    seal(checkpoint, 7)
    assert load(checkpoint / inside).load_receipt.source == str(checkpoint / "model")


@pytest.mark.parametrize("option", [{"variant": "fp16"}, {"subfolder": "a"}, {"use_safetensors": False}])
def test_weights_from_elsewhere_are_refused(folder: Path, option: dict) -> None:
    with pytest.raises(InputError, match=f"does not take {next(iter(option))}"):
        EvoTokModel.from_pretrained(folder, **option)
    (folder / "zoo.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": "other.safetensors"}))
    with pytest.raises(InputError, match="transformers_weights"):
        EvoTokModel.from_pretrained(folder)


@pytest.mark.parametrize("pattern", ["(", ("a", "*"), (None,)])
def test_a_wrong_pattern_is_refused_before_loading(folder: Path, pattern) -> None:
    with pytest.raises(InputError, match=r"allow_missing: .* is no regular expression"):
        mmzoo.from_pretrained(folder, allow_missing=pattern)


def test_one_pattern_may_be_given_bare(folder: Path) -> None:
    change_weights(folder, lambda state: state.pop(TENSOR))
    assert mmzoo.from_pretrained(folder, allow_missing=r"decode_head\..*").load_receipt.missing == (TENSOR,)


def test_a_receipt_without_a_place_is_refused_before_loading(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(EvoTokModel, "_load", None)
    for place in (tmp_path / "absent" / "receipt.json", tmp_path):
        with pytest.raises(InputError, match=r"the receipt .* cannot be written"):
            mmzoo.from_pretrained(folder, receipt_file=place)


def test_a_receipt_that_cannot_be_written_is_the_users_mistake(folder: Path) -> None:
    with pytest.raises(InputError, match=r"the receipt /proc/receipt\.json cannot be written"):
        mmzoo.from_pretrained(folder, receipt_file="/proc/receipt.json")


@pytest.fixture
def said_by_transformers():
    """The messages that transformers logs at its usual level. (Its own handler keeps the stderr of its import.)"""
    messages: list[str] = []
    handler = Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    before = logging.get_verbosity()
    logging.set_verbosity_warning()
    logging.add_handler(handler)
    yield messages
    logging.remove_handler(handler)
    logging.set_verbosity(before)


def test_a_refusal_is_all_that_is_said(folder: Path, capfd, said_by_transformers: list[str]) -> None:
    change_weights(folder, lambda state: state.pop(TENSOR) is None or state.update(surplus=torch.zeros(1)))
    with pytest.raises(InputError, match="lacks tensors"):
        EvoTokModel.from_pretrained(folder)
    assert said_by_transformers == []
    assert capfd.readouterr() == ("", "")
    assert logging.get_verbosity() == WARNING  # put back
    PreTrainedModel.from_pretrained.__func__(EvoTokModel, str(folder))
    assert "LOAD REPORT" in said_by_transformers[0]  # what would be said without us


def test_a_good_load_says_one_line(folder: Path, capfd) -> None:
    mmzoo.from_pretrained(folder)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"loaded {folder}: 231/231 tensors (100 %) from model.safetensors ")
    assert err.count("\n") == 1
    mmzoo.from_pretrained(folder, quiet=True)
    assert capfd.readouterr() == ("", "")


def test_a_misspelt_setting_is_refused_with_the_name_that_was_meant(folder: Path) -> None:
    (folder / "zoo.json").unlink()  # else its hash of config.json says so first
    file = folder / "config.json"
    values = json.loads(file.read_text())
    values["encoder_featur_index"] = values.pop("encoder_feature_index")
    file.write_text(json.dumps(values))
    with pytest.raises(InputError, match="Did you mean 'encoder_feature_index'"):
        mmzoo.from_pretrained(folder)


def test_a_key_of_a_newer_transformers_passes(folder: Path) -> None:
    (folder / "zoo.json").unlink()
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "quantum_settings": 1}))
    mmzoo.from_pretrained(folder)


def test_counters_stay_whole_numbers_in_any_dtype(tmp_path: Path) -> None:
    model = EvoTokModel(EvoTokConfig(**TINY, quantizer_mode="faithful", vq_warmup=2000))
    model.quantizer.get_buffer("levels.0.step").fill_(1999)  # bfloat16 would round it to 2000
    save_model(model, tmp_path / "model")
    loaded = mmzoo.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
    step = loaded.quantizer.get_buffer("levels.0.step")
    assert (step.dtype, int(step)) == (torch.int64, 1999)
