"""`mmzoo models info`: counts of a model, built on the meta device, so that any size answers at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from mmzoo.errors import CommandParser, InputError, suggestion
from mmzoo.families import Family, find_families, get_family, get_variant, load_object
from mmzoo.hub.source import load_config, model_folder, read_config


class _Named(NamedTuple):
    """What a name means: the family, the configuration, the path of the model's class, and the name to print."""

    family: Family
    config: Any
    model: str
    printed: str


def _look_up(name: str) -> _Named:
    if Path(name).expanduser().exists() or name.startswith((".", "/", "~")):
        folder = model_folder(name)
        written = read_config(folder)
        family = get_family(str(written["model_type"]))
        model = family.model_of(written.get("architectures") or ())
        return _Named(family, load_config(load_object(family.config), folder), model, name)
    if "/" not in name and name not in find_families():
        raise InputError(
            f"{name} is neither a folder nor FAMILY/VARIANT.{suggestion(name, find_families())} See: mmzoo families"
        )
    family, variant = get_variant(name)
    config = load_object(family.config)(**family.variants[variant])
    return _Named(family, config, family.model, family.public_id(variant))


def model_info(name: str) -> dict[str, Any]:
    """Counts of "family/variant" or a model folder, in elements.

    Except for `tensors` and `official_tensors`, and `flops_per_image`: operations of a forward pass on one image of the
    configured size, two a multiply-add. Of a model with a head, all but `head_parameters` and `tensors` speak of what
    stands below it, transformers' `base_model`.
    """
    import torch

    family, config, model_class, printed = _look_up(name)
    with torch.device("meta"):
        whole = load_object(model_class)(config)
    model = whole.base_model
    parameters = list(model.parameters())
    persistent = model.state_dict()
    named = {key for key, _ in model.named_parameters()}
    total = sum(p.numel() for p in parameters)
    slim = bool(getattr(config, "slim", False))
    layout = None if slim else load_object(family.official).expected_layout(config)
    return {
        "model": printed,
        "family": family.name,
        "parameters": total,
        "head_parameters": sum(p.numel() for p in whole.parameters()) - total,
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "buffers": sum(tensor.numel() for key, tensor in persistent.items() if key not in named),
        "active_parameters": model.active_parameters() if hasattr(model, "active_parameters") else total,
        "flops_per_image": model.flops() if hasattr(model, "flops") else None,
        "tensors": len(whole.state_dict()),
        "official_tensors": None if layout is None else len(layout),
    }


def main(argv: list[str], prog: str) -> int:
    """`mmzoo models info FAMILY/VARIANT|FOLDER [--json]`."""
    parser = CommandParser(prog=prog, description="Count the parameters of a model, without building it.")
    parser.add_argument("model", help="family/variant, or a model folder")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args(argv)
    info = model_info(arguments.model)
    if arguments.json:
        sys.stdout.write(json.dumps(info, indent=1) + "\n")
    else:
        sys.stdout.writelines(
            f"{key:<18} {value:,}\n" if isinstance(value, int) else f"{key:<18} {value}\n"
            for key, value in info.items()
        )
    return 0
