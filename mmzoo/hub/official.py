"""`mmzoo models import` and `export`: between the authors' checkpoint layout and a model folder of ours."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmzoo.durable_files import refused_writes_named, replacing, sha256_of
from mmzoo.errors import CommandParser, InputError
from mmzoo.families import get_family, load_object
from mmzoo.hub.foreign_weights import read_weights, refuse_nan

EXTRA_FILE = "official_extra.safetensors"


def _read_config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(f"there is no config file {file}. Give the JSON file of the sizes: --config.")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise InputError(f"{file} cannot be read as JSON ({fault}). Give the JSON file of the sizes.") from fault
    if not isinstance(values, dict):
        raise InputError(f"{file} holds a JSON {type(values).__name__}. Give one object: {{name: value}}.")
    return values


def import_main(argv: list[str], prog: str) -> int:
    """`mmzoo models import FAMILY --weights FILE --config FILE --out FOLDER`."""
    parser = CommandParser(prog=prog, description="Turn the authors' checkpoint into a model folder.")
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
    official = load_object(family.official)
    config = official.config_from_official(values)
    ours, extra = official.to_ours(weights, config)
    from mmzoo.hub.save import save_model

    save_model(
        _model_of(load_object(family.model), config, ours),
        arguments.out,
        processor=_processor_of(load_object(family.processor), config),
        record={
            "command": shlex.join([*prog.split(), *argv]),
            "receipts": [{"official weights": arguments.weights.name, "sha256": sha256_of(arguments.weights)}],
        },
        # Written even when empty: its presence tells export to emit exactly the tensors that came in.
        extra={EXTRA_FILE: extra},
    )
    sys.stderr.write(f"imported {len(ours)} tensors ({len(extra)} unused ones kept apart) into {arguments.out}\n")
    return 0


def _processor_of(processor_class: Any, config: Any) -> Any:
    """The processor of a configuration: by its own `for_config` where the image size does not say it all."""
    if hasattr(processor_class, "for_config"):
        return processor_class.for_config(config)
    return processor_class(image_size=config.image_size)


def _model_of(model_class: Any, config: Any, state: Mapping[str, Any]) -> Any:
    """A model that holds `state`, in the dtypes given; InputError when a tensor holds another kind of number."""
    import torch

    from mmzoo.hub.weights import kind_of

    with torch.device("meta"):
        model = model_class(config)
    wrong = [
        f"{name} is {state[name].dtype}"
        for name, tensor in model.state_dict().items()
        if kind_of(state[name].dtype) != kind_of(tensor.dtype)
    ]
    if wrong:
        raise InputError(f"official weights, another kind of number: {'; '.join(wrong[:5])}. Is the file the model's?")
    # Each its own memory: tensors of a .pt file may be views of one another, which a model folder cannot express.
    model.load_state_dict({name: tensor.clone() for name, tensor in state.items()}, strict=True, assign=True)
    return model


def export_main(argv: list[str], prog: str) -> int:
    """`mmzoo models export FOLDER --layout official --out FILE [--overwrite]`."""
    parser = CommandParser(prog=prog, description="Turn a model folder into the authors' layout.")
    parser.add_argument("folder")
    parser.add_argument("--layout", choices=["official"], default="official")
    parser.add_argument("--out", type=Path, required=True, help=".safetensors, or .pt")
    parser.add_argument("--overwrite", action="store_true")
    arguments = parser.parse_args(argv)
    out: Path = arguments.out
    _check_target(out, arguments.overwrite)
    from mmzoo.hub.load import from_pretrained
    from mmzoo.hub.source import model_folder

    folder = model_folder(arguments.folder)
    if out.resolve().parent == folder.resolve():
        raise InputError(f"--out {out} lies in the model folder itself, which it would damage. Name another place.")
    model = from_pretrained(folder)
    family = get_family(model.config.model_type)
    if not isinstance(model, load_object(family.model)):
        raise InputError(
            f"{folder} holds a {type(model).__name__}, the authors' layout is that of {family.model.split(':')[1]}. "
            f"It is in Hugging Face format already; to publish it: mmzoo models push"
        )
    state = load_object(family.official).to_official(model.state_dict(), model.config, _read_extra(folder))
    refuse_nan(state, str(folder))
    with refused_writes_named(out), replacing(out) as temporary:
        _write(state, temporary, out.suffix)
    sys.stderr.write(f"exported {len(state)} tensors to {out}\n")
    return 0


def _check_target(out: Path, overwrite: bool) -> None:
    """Before the long work: InputError when `out` cannot be what the user means."""
    if out.suffix not in (".safetensors", ".pt"):
        raise InputError(f"--out {out}: the suffix must be .safetensors or .pt.")
    if out.is_dir():
        raise InputError(f"--out {out} is a folder. Name a file in it.")
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists. Pass --overwrite to replace it.")
    if not out.parent.is_dir():
        raise InputError(f"the folder {out.parent} does not exist. Create it first.")


def _read_extra(folder: Path) -> dict[str, Any] | None:
    """What the import kept apart, checked against zoo.json; None for a model that was trained here."""
    from mmzoo.hub.zoo_file import check_files, read_zoo_file

    file = folder / EXTRA_FILE
    if not file.is_file():
        if EXTRA_FILE in ((read_zoo_file(folder) or {}).get("files") or {}):
            raise InputError(f"{folder} lacks {EXTRA_FILE}, so it cannot be exported as it came. Import it again.")
        return None
    check_files(folder, [EXTRA_FILE])
    return read_weights(file)


def _write(state: Mapping[str, Any], file: Path, suffix: str) -> None:
    if suffix == ".pt":
        import torch

        with file.open("wb") as stream:  # given a name, torch would write it, a temporary one, into the file
            torch.save({"model": dict(state)}, stream)
        return
    from safetensors.torch import save_file

    save_file({key: tensor.contiguous() for key, tensor in state.items()}, file)
