"""Finds, reads and merges YAML configs, keeping for every key the file and line where it stands.

Configs are kept as PyYAML nodes: those know their lines, and scalars stay as the user wrote them (`1e-3`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

import train_configs
from mmzoo.errors import InputError, suggestion

SUFFIXES = (".yaml", ".yml")


def shipped_folder() -> Path:
    """Where the configs that come with the package lie."""
    return Path(next(iter(train_configs.__path__)))


def shipped_names() -> list[str]:
    """The shipped configs as the user names them: "evotok/tiny-demo"."""
    root = shipped_folder()
    found = (path for suffix in SUFFIXES for path in root.rglob(f"*{suffix}"))
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in found)


def find_config(name: str) -> Path:
    """The file named on the command line: a path first, then a shipped config, with or without its suffix."""
    for base in (Path(name), shipped_folder() / name):
        for candidate in (base, *(base.with_name(base.name + suffix) for suffix in SUFFIXES)):
            if candidate.is_file():
                return candidate
    if Path(name).is_dir():
        raise InputError(f"the config {name} is a folder. Give a YAML file in it.")
    raise InputError(f"there is no config {name}.{suggestion(name, shipped_names())}")


def kind_of(node: Node) -> str:
    """ "mapping", "sequence" or "scalar"."""
    return type(node).__name__.removesuffix("Node").lower()


def where(node: Node) -> str:
    """ "file:line" of a node, or "command line"."""
    mark = node.start_mark
    return mark.name if mark.name.startswith("command line") else f"{mark.name}:{mark.line + 1}"


def read_config(path: Path) -> MappingNode:
    """A YAML file as a mapping of nodes. InputError with file:line for bad syntax, duplicate keys, or no mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise InputError(f"the config {path} cannot be read: {fault}") from fault
    loader = yaml.SafeLoader(text)
    loader.name = str(path)
    try:
        node = loader.get_single_node()
        if node is not None:
            _check_keys(node, loader)
    except yaml.MarkedYAMLError as fault:
        mark = fault.problem_mark or fault.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise InputError(f"{path}{line}: this is not valid YAML: {fault.problem or fault.context}") from fault
    except yaml.YAMLError as fault:
        raise InputError(f"{path}: this is not valid YAML: {' '.join(str(fault).split())}") from fault
    finally:
        loader.dispose()
    if node is None:
        return empty(str(path))
    if not isinstance(node, MappingNode):
        raise InputError(f"{where(node)}: a config is a mapping of keys, this is a {kind_of(node)}.")
    return node


def _check_keys(node: Node, loader: yaml.SafeLoader) -> None:
    """Refuses duplicate and non-text keys, then resolves `<<` merges, at any depth."""
    if isinstance(node, SequenceNode):
        for child in node.value:
            _check_keys(child, loader)
    if not isinstance(node, MappingNode):
        return
    seen: dict[str, Node] = {}
    for key, child in node.value:
        if not isinstance(key, ScalarNode):
            raise InputError(f"{where(key)}: a key must be a plain name, this is a {kind_of(key)}.")
        if key.value in seen:
            raise InputError(
                f"{where(key)}: the key {key.value!r} stands twice in one mapping, first in line "
                f"{seen[key.value].start_mark.line + 1}. Remove one."
            )
        seen[key.value] = key
        _check_keys(child, loader)
    loader.flatten_mapping(node)
    # After a merge the explicit keys come last and win; earlier ones of the same name go.
    node.value = list({key.value: (key, child) for key, child in node.value}.values())


def empty(name: str) -> MappingNode:
    """A mapping without keys."""
    mark = yaml.Mark(name, 0, 0, 0, None, 0)
    return MappingNode("tag:yaml.org,2002:map", [], mark, mark)


def entry(mapping: MappingNode, key: str) -> tuple[ScalarNode, Node] | None:
    """The (key node, value node) of a key."""
    return next(((name, value) for name, value in mapping.value if name.value == key), None)


def text_of(mapping: MappingNode, key: str) -> str | None:
    """The text of a scalar entry, None when absent or not a scalar."""
    found = entry(mapping, key)
    return found[1].value if found and isinstance(found[1], ScalarNode) else None


def merge(base: MappingNode, later: MappingNode) -> MappingNode:
    """Deep merge, later wins. Lists are replaced; under another `class_path` the earlier init_args are dropped."""
    another_class = text_of(later, "class_path") not in (None, text_of(base, "class_path"))
    merged = {
        key.value: (key, value)
        for key, value in base.value
        if not (another_class and key.value in ("init_args", "dict_kwargs"))
    }
    for key, value in later.value:
        before = merged.get(key.value)
        if before and isinstance(before[1], MappingNode) and isinstance(value, MappingNode):
            value = merge(before[1], value)
        merged[key.value] = (key, value)
    return MappingNode(base.tag, list(merged.values()), later.start_mark, later.end_mark)


def compose(names: Sequence[str]) -> MappingNode:
    """The configs of a command line merged in their order."""
    merged = empty("command line")
    for name in names:
        merged = merge(merged, read_config(find_config(name)))
    return merged


def to_yaml(node: MappingNode) -> str:
    """The merged config as YAML text, scalars as they were written."""
    return yaml.serialize(node, Dumper=yaml.SafeDumper) if node.value else "{}\n"


def locate(config: MappingNode, keys: Sequence[str]) -> tuple[Node, str] | None:
    """The key node at a path and the path in full; `init_args` may be left out of `keys`. None when it is not there."""
    if not keys:
        return None
    for prefix in ([], ["init_args"]):
        node: Node = config
        for step in prefix:
            inner = entry(node, step) if isinstance(node, MappingNode) else None
            node = inner[1] if inner else empty("")
        found = entry(node, keys[0]) if isinstance(node, MappingNode) else None
        if found is None:
            continue
        path = ".".join([*prefix, keys[0]])
        if len(keys) == 1:
            return found[0], path
        deeper = locate(found[1], keys[1:]) if isinstance(found[1], MappingNode) else None
        return (deeper[0], f"{path}.{deeper[1]}") if deeper else None
    return None
