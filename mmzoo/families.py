"""Finds the model families: every folder with a `family.py` in a room of the house, and every installed plug-in.

Nothing here imports torch: a family describes itself by dotted paths, which are loaded when they are needed.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from mmzoo.errors import CommandParser, InputError, suggestion

ROOMS = ("tokenizers_visual", "vlm", "geospatial")
SUITE_ROOM = "eval_suites"
ENTRY_POINT_GROUP = "mmzoo.families"
#: Every family has the same files, so that knowing one is knowing all.
FAMILY_FILES = (
    "family.py",
    "configuration.py",
    "modeling.py",
    "processing.py",
    "training.py",
    "official.py",
    "README.md",
)


class Command(NamedTuple):
    """A verb: `target` is "package.module:function", called as function(argv, prog) -> exit code."""

    target: str
    help: str


@dataclass(frozen=True)
class Family:
    """What the front door knows of a family. Dotted paths are "package.module:name" and are imported on use."""

    name: str  #: folder name = Hugging Face model_type
    task: str
    paper: str
    licence: str  #: of the code here, and what is known of the authors' weights
    config: str  #: PretrainedConfig class
    model: str  #: PreTrainedModel class
    processor: str  #: image processor (or processor) class
    official: str  #: module with import_official(...) and export_official(...)
    contract: str  #: module of small inputs that the contract test runs with
    stages: Mapping[str, str]  #: training stage -> LightningModule class
    variants: Mapping[str, Mapping[str, Any]]  #: public variant name -> config arguments; always holds "tiny"
    suites: tuple[str, ...] = ()
    demo: str | None = None  #: function(mmzoo.demo.Demo) -> path of its report
    #: function(source, model) -> the network that taught the model's semantic read-out: images (B, 3, H, W) in
    #: [-1, 1], grid (h, w) -> features (B, h * w, C). `source`: folder or Hub id, as the user names it.
    teacher: str | None = None
    auto_classes: tuple[str, ...] = ("AutoModel",)
    #: Models on top of `model` with a class of their own: transformers' Auto class -> PreTrainedModel class. A saved
    #: one is known by its class name, in config.json under `architectures`.
    other_models: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def model_of(self, architectures: Sequence[str]) -> str:
        """Dotted path of the class that saved a model, by the `architectures` of its config.json; else `model`."""
        named = [target for target in self.other_models.values() if target.partition(":")[2] in architectures]
        return named[0] if named else self.model

    def public_id(self, variant: str) -> str:
        """The one form in which a variant's name is printed, e.g. "crossearth-sar/L"."""
        return f"{self.name.replace('_', '-')}/{variant}"


class FoundFamily(NamedTuple):
    """A family that was found, its commands, where it was found, and what its folder lacks (empty = complete)."""

    family: Family
    commands: Mapping[str, Command]
    module: str
    missing: tuple[str, ...]


def load_object(target: str) -> Any:
    """Imports "package.module:name" (or "package.module") and returns the object."""
    module_name, _, attribute = target.partition(":")
    module = importlib.import_module(module_name)
    return getattr(module, attribute) if attribute else module


def room_folder(room: str) -> Path | None:
    """The folder of a top-level package, without importing it; None when it is not installed."""
    spec = importlib.util.find_spec(room)
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def _modules_with(room: str, file_name: str) -> list[tuple[str, Path]]:
    folder = room_folder(room)
    if folder is None:
        return []
    return [(f"{room}.{child.name}", child) for child in sorted(folder.iterdir()) if (child / file_name).is_file()]


def _missing(folder: Path | None, family: Family) -> tuple[str, ...]:
    gaps = [] if folder is None else [name for name in FAMILY_FILES if not (folder / name).is_file()]
    if "tiny" not in family.variants:
        gaps.append("variant 'tiny'")
    if folder is not None and folder.name != family.name:
        gaps.append(f"name {family.name!r} (the folder is called {folder.name!r})")
    return tuple(gaps)


def _describe(module: ModuleType, folder: Path | None) -> FoundFamily:
    family = getattr(module, "family", None)
    if not isinstance(family, Family):
        raise InputError(f"{module.__name__} has no `family = Family(...)`. Add one; CONTRIBUTING.md shows how.")
    commands = {name: Command(*value) for name, value in getattr(module, "commands", {}).items()}
    return FoundFamily(family, commands, module.__name__, _missing(folder, family))


def find_families() -> dict[str, FoundFamily]:
    """All families by name: the folders of the rooms first, then plug-ins of the entry-point group."""
    from importlib.metadata import entry_points

    found: dict[str, FoundFamily] = {}
    for room in ROOMS:
        for package, folder in _modules_with(room, "family.py"):
            entry = _describe(importlib.import_module(f"{package}.family"), folder)
            found[entry.family.name] = entry
    for plugin in entry_points(group=ENTRY_POINT_GROUP):
        entry = _describe(importlib.import_module(plugin.value), None)
        if entry.family.name in found:
            raise InputError(
                f"the plug-in {plugin.value} and {found[entry.family.name].module} both provide {entry.family.name!r}. "
                f"Uninstall one of them."
            )
        found[entry.family.name] = entry
    return found


def almost_families() -> dict[str, tuple[str, ...]]:
    """Folders in a room that hold some files of a family but no `family.py`: package name -> missing files."""
    almost: dict[str, tuple[str, ...]] = {}
    for room in ROOMS:
        folder = room_folder(room)
        for child in sorted(folder.iterdir()) if folder else []:
            present = [name for name in FAMILY_FILES if (child / name).is_file()]
            if present and "family.py" not in present:
                almost[f"{room}.{child.name}"] = tuple(name for name in FAMILY_FILES if name not in present)
    return almost


def find_commands() -> dict[str, Command]:
    """Every verb that a family or an eval suite brings along."""
    commands: dict[str, Command] = {}
    for entry in find_families().values():
        commands.update(entry.commands)
    for package, _ in _modules_with(SUITE_ROOM, "suite.py"):
        table: Mapping[str, Command] = getattr(importlib.import_module(f"{package}.suite"), "commands", {})
        commands.update({name: Command(*value) for name, value in table.items()})
    return commands


def _plain(name: str) -> str:
    return name.replace("_", "-").lower()


def get_family(name: str) -> Family:
    """The family of that name; `-` and `_`, upper and lower case are the same. InputError with the nearest name."""
    found = {_plain(key): entry.family for key, entry in find_families().items()}
    if _plain(name) not in found:
        names = [family.name for family in found.values()]
        raise InputError(f"unknown family {name!r}.{suggestion(name, names)} See: mmzoo families")
    return found[_plain(name)]


def get_variant(public_id: str) -> tuple[Family, str]:
    """Splits "evotok/siglip2-256" into its family and the variant's printed name."""
    family_name, _, variant = public_id.partition("/")
    family = get_family(family_name)
    if not variant:
        raise InputError(f"which {family.name}? Give one of: {', '.join(map(family.public_id, family.variants))}.")
    known = {_plain(name): name for name in family.variants}
    if _plain(variant) not in known:
        raise InputError(
            f"family {family.name!r} has no variant {variant!r}.{suggestion(variant, family.variants)} "
            f"Write it as {family.public_id('VARIANT')}."
        )
    return family, known[_plain(variant)]


def _as_record(entry: FoundFamily) -> dict[str, Any]:
    family = entry.family
    return {
        "name": family.name,
        "task": family.task,
        "paper": family.paper,
        "licence": family.licence,
        "variants": list(family.variants),
        "public_ids": [family.public_id(variant) for variant in family.variants],
        "stages": dict(family.stages),
        "suites": list(family.suites),
        "commands": sorted(entry.commands),
        "found_in": entry.module,
        "missing": list(entry.missing),
    }


def main(argv: list[str], prog: str) -> int:
    """`mmzoo families`: what is in the zoo, and what is missing in a folder that almost fits."""
    parser = CommandParser(prog=prog, description="List the model families and their variants.")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args(argv)
    records = [_as_record(entry) for entry in find_families().values()]
    almost = almost_families()
    write = sys.stdout.write
    if arguments.json:
        write(json.dumps({"families": records, "incomplete": {k: list(v) for k, v in almost.items()}}, indent=1) + "\n")
        return 0
    for record in records:
        write(f"{record['name']}: {record['task']}\n")
        write(f"  paper    {record['paper']}\n  licence  {record['licence']}\n")
        write(f"  variants {', '.join(record['public_ids'])}\n")
        write(f"  stages   {', '.join(record['stages'])}\n")
        if record["missing"]:
            write(f"  MISSING  {', '.join(record['missing'])}\n")
    for package, missing in almost.items():
        write(f"{package}: not a family yet, missing {', '.join(missing)}\n")
    return 0


CommandFunction = Callable[[list[str], str], int]
