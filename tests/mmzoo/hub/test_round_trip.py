"""Saving and loading a model folder: the same numbers in a fresh process without a network, and damage refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from weights_by_others import change_weights

import mmzoo
from mmzoo.errors import InputError
from tokenizers_visual.evotok.modeling import EvoTokModel

REPOSITORY = Path(__file__).parents[3]
TENSOR = "decode_head.0.weight"
OUTPUTS = ("latent", "codes", "reconstruction", "semantics", "commitment_loss")

FRESH_PROCESS = """
import json, socket, sys

def refuse(*arguments):
    raise AssertionError(f"network use: {arguments[1:]}")

socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = refuse
import torch
from safetensors.torch import load_file, save_file

folder, images_file, results_file, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
import mmzoo
from mmzoo.hub.auto import register_families

images = load_file(images_file)["images"]
results = {}

def run(label, model):
    assert not model.training
    with torch.no_grad():
        output = model(images)
    for name in ("latent", "codes", "reconstruction", "semantics", "commitment_loss"):
        results[f"{label}.{name}"] = output[name].contiguous()

run("zoo", mmzoo.from_pretrained(folder))
register_families()
register_families()
from transformers import AutoConfig, AutoImageProcessor, AutoModel

run("auto", AutoModel.from_pretrained(folder))
save_file(results, results_file)
processor = AutoImageProcessor.from_pretrained(folder)
print(json.dumps({
    "config": type(AutoConfig.from_pretrained(folder)).__name__,
    "codebook_size": AutoConfig.from_pretrained(folder).codebook_size,
    "processor": type(processor).__name__,
    "image_size": processor.image_size,
}))
"""


def test_a_fresh_process_gives_the_same_bits(model: EvoTokModel, folder: Path, tmp_path: Path) -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    save_file({"images": images}, tmp_path / "images.safetensors")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    arguments = [folder, tmp_path / "images.safetensors", tmp_path / "results.safetensors", torch.get_num_threads()]
    # HF_HUB_OFFLINE stays unset: loading a folder must not even try the network.
    environment = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
    child = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, *map(str, arguments)],
        cwd=elsewhere,
        env={**environment, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert json.loads(child.stdout.splitlines()[-1]) == {
        "config": "EvoTokConfig",
        "codebook_size": 64,
        "processor": "EvoTokImageProcessor",
        "image_size": 32,
    }
    results = load_file(tmp_path / "results.safetensors")
    with torch.no_grad():
        expected = model(images)
    for label in ("zoo", "auto"):
        for name in OUTPUTS:
            assert torch.equal(results[f"{label}.{name}"], expected[name]), f"{label}.{name}"


def test_every_tensor_comes_back(model: EvoTokModel, folder: Path) -> None:
    loaded = mmzoo.from_pretrained(folder).state_dict()
    saved = model.state_dict()
    assert list(loaded) == list(saved)
    assert all(torch.equal(loaded[name], saved[name]) and loaded[name].dtype == saved[name].dtype for name in saved)


def test_bfloat16_leaves_the_quantizer_in_float32(model: EvoTokModel, folder: Path) -> None:
    loaded = mmzoo.from_pretrained(folder, dtype=torch.bfloat16).state_dict()
    floating = {name for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    quantizer = {name for name in floating if name.startswith("quantizer.")}
    assert any(name.endswith(".table") for name in quantizer)
    assert {loaded[name].dtype for name in quantizer} == {torch.float32}
    assert all(torch.equal(loaded[name], model.state_dict()[name]) for name in quantizer)
    assert loaded[TENSOR].dtype == torch.bfloat16


def test_the_receipt_counts_every_tensor(model: EvoTokModel, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "receipt.json"
    receipt = mmzoo.from_pretrained(folder, receipt_file=file).load_receipt
    state = model.state_dict()
    assert receipt.tensors_from_file == receipt.tensors == len(state)
    assert receipt.elements_from_file == receipt.elements == sum(tensor.numel() for tensor in state.values())
    assert list(receipt.files) == ["model.safetensors"]
    assert json.loads(file.read_text()) == json.loads(json.dumps(receipt.as_json()))


def test_a_missing_tensor_is_refused(folder: Path) -> None:
    change_weights(folder, lambda state: state.pop(TENSOR))
    with pytest.raises(InputError, match=r"lacks tensors: decode_head\.0\.weight"):
        mmzoo.from_pretrained(folder)
    with pytest.raises(InputError, match="lacks tensors"):
        mmzoo.from_pretrained(folder, allow_missing=(r"decode_head\.2\..*",))


def test_a_missing_tensor_may_be_allowed(folder: Path) -> None:
    change_weights(folder, lambda state: state.pop(TENSOR))
    receipt = mmzoo.from_pretrained(folder, allow_missing=(r"decode_head\.0\..*",)).load_receipt
    assert receipt.missing == (TENSOR,)
    assert receipt.tensors_from_file == receipt.tensors - 1
    assert receipt.elements_from_file == receipt.elements - 64 * 64


def test_a_missing_codebook_is_refused(folder: Path) -> None:
    change_weights(folder, lambda state: state.pop("quantizer.levels.1.table"))
    with pytest.raises(InputError, match=r"lacks tensors: quantizer\.levels\.1\.table"):
        mmzoo.from_pretrained(folder)


def test_an_unexpected_tensor_is_refused(folder: Path) -> None:
    change_weights(folder, lambda state: state.update(surplus=torch.zeros(1)))
    with pytest.raises(InputError, match="has unknown tensors: surplus"):
        mmzoo.from_pretrained(folder)


def test_a_misshapen_tensor_is_refused(folder: Path) -> None:
    change_weights(folder, lambda state: state.update({TENSOR: torch.zeros(3, 5)}))
    with pytest.raises(InputError, match=r"has misshapen tensors: decode_head\.0\.weight"):
        mmzoo.from_pretrained(folder)


@pytest.mark.parametrize("kept", [0.5, 0.001])
def test_a_truncated_file_is_refused(folder: Path, kept: float) -> None:
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(InputError, match="could not be loaded"):
        mmzoo.from_pretrained(folder)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no model folder"):
        mmzoo.from_pretrained(tmp_path / "absent")


def test_a_folder_without_config_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"holds no config\.json"):
        mmzoo.from_pretrained(folder)


def test_another_model_type_is_refused(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_type": "evotoc"}))
    with pytest.raises(InputError, match=r"'evotoc', which is no family of this zoo.*evotok"):
        mmzoo.from_pretrained(folder)
