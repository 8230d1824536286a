"""`mmzoo models import` and `export`: between the authors' checkpoint layout and a model folder of ours."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from mmzoo.errors import InputError
from mmzoo.families import get_family, load_object
from mmzoo.hub.load import from_pretrained, model_folder

EXTRA_FILE = "official_extra.safetensors"
STATE_KEYS = ("ema", "model", "state_dict")


def read_weights(file: Path) -> dict[str, Any]:
    """Tensors of a .safetensors, .pt or .pth file; pickles only through torch's weights-only reader."""
    if not file.is_file():
        raise InputError(f"there is no weights file {file}.")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        import torch

        with torch.serialization.safe_globals([argparse.Namespace]):
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as fault:  # safetensors, zipfile and pickle each raise their own types for a damaged file
        raise InputError(f"{file} cannot be read as weights ({type(fault).__name__}). Is it complete?") from fault
    if not isinstance(state, dict):
        raise InputError(f"{file} holds no dictionary of tensors.")
    return next((state[key] for key in STATE_KEYS if key in state), state)


def _read_config(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise InputError(f"{file} cannot be read as a JSON config ({type(fault).__name__}).") from fault
    if not isinstance(values, dict):
        raise InputError(f"{file} holds no JSON object.")
    return values


def import_main(argv: list[str], prog: str) -> int:
    """`mmzoo models import FAMILY --weights FILE --config FILE --out FOLDER`."""
    parser = argparse.ArgumentParser(prog=prog, description="Turn the authors' checkpoint into a model folder.")
    parser.add_argument("family")
    parser.add_argument("--weights", type=Path, required=True, help=".safetensors, .pt or .pth")
    parser.add_argument("--config", type=Path, required=True, help="JSON of the sizes")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    arguments = parser.parse_args(argv)
    family = get_family(arguments.family)
    values = _read_config(arguments.config)
    if arguments.out.exists():
        raise InputError(f"{arguments.out} exists. Choose a new folder.")
    weights = read_weights(arguments.weights)
    import torch
    from safetensors.torch import save_file

    from mmzoo.hub.save import save_model

    official = load_object(family.official)
    config = official.config_from_official(values)
    ours, extra = official.to_ours(weights, config)
    with torch.device("meta"):
        model = load_object(family.model)(config)
    model.load_state_dict(ours, strict=True, assign=True)
    processor = load_object(family.processor)(image_size=config.image_size)
    save_model(model, arguments.out, processor=processor, card={"command": f"{prog} {' '.join(argv)}"})
    # Written even when empty: its presence tells export to emit exactly the tensors that came in.
    save_file({name: tensor.contiguous() for name, tensor in extra.items()}, arguments.out / EXTRA_FILE)
    sys.stderr.write(f"imported {len(ours)} tensors ({len(extra)} unused ones kept apart) into {arguments.out}\n")
    return 0


def export_main(argv: list[str], prog: str) -> int:
    """`mmzoo models export FOLDER --layout official --out FILE [--overwrite]`."""
    parser = argparse.ArgumentParser(prog=prog, description="Turn a model folder into the authors' layout.")
    parser.add_argument("folder")
    parser.add_argument("--layout", choices=["official"], default="official")
    parser.add_argument("--out", type=Path, required=True, help=".safetensors, or .pt")
    parser.add_argument("--overwrite", action="store_true")
    arguments = parser.parse_args(argv)
    out: Path = arguments.out
    if out.suffix not in (".safetensors", ".pt"):
        raise InputError(f"--out {out}: the suffix must be .safetensors or .pt.")
    if out.exists() and not arguments.overwrite:
        raise InputError(f"{out} exists. Pass --overwrite to replace it.")
    if not out.parent.is_dir():
        raise InputError(f"the folder {out.parent} does not exist. Create it first.")
    folder = model_folder(arguments.folder)
    model = from_pretrained(folder)
    extra = read_weights(folder / EXTRA_FILE) if (folder / EXTRA_FILE).is_file() else None
    state = load_object(get_family(model.config.model_type).official).to_official(
        model.state_dict(), model.config, extra
    )
    _write(state, out)
    sys.stderr.write(f"exported {len(state)} tensors to {out}\n")
    return 0


def _write(state: dict[str, Any], out: Path) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
    os.close(handle)
    try:
        if out.suffix == ".pt":
            import torch

            torch.save({"model": state}, name)
        else:
            from safetensors.torch import save_file

            save_file({key: tensor.contiguous() for key, tensor in state.items()}, name)
        Path(name).chmod(0o644)
        shutil.move(name, out)
    finally:
        Path(name).unlink(missing_ok=True)
