"""Flags that reach into an option that is a plain mapping, such as one source of a mixture.

    --data.init_args.mixture.sources.photos FOLDER     that source alone
    --data.init_args.mixture.parts.photos.weight 2     that part alone: in a list, an entry goes by its name

jsonargparse would replace all that stands beside the key. So these flags are set in the config that it reads.
"""

from __future__ import annotations

import typing

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from data_engine.mixture_grammar import AMOUNTS, written_part
from mmzoo.errors import InputError, suggestion
from mmzoo.training.config_check import load_class, members, parameters_of, read_flags
from mmzoo.training.config_files import empty, entry, text_of

NULL, TEXT = "tag:yaml.org,2002:null", "tag:yaml.org,2002:str"


def with_mapping_flags(config: MappingNode, whole: MappingNode, flags: list[str]) -> tuple[MappingNode, list[str]]:
    """The config with the flags below options that are mappings set in it, and the other flags.

    `whole`: the config with all flags, which names the classes. InputError: a flag below a value that holds nothing.
    """
    options = {section: _mapping_options(whole, section) for section in ("model", "data")}
    rest: list[str] = []
    for flag in read_flags(flags):
        below = flag.path[2:] if flag.path[1:2] == ["init_args"] else []
        # One that sets the whole option, too: jsonargparse would come last with it, whatever the order of the flags.
        adds = flag.words[0].partition("=")[0].endswith("+")
        if below and below[0] in options.get(flag.path[0], ()) and not adds:
            if flag.leaf is None:
                raise InputError(f"{flag.words[0]} needs a value in YAML. Give one, or null")
            config = _set(config, flag.path, flag.leaf, "")  # pyright: ignore[reportAssignmentType]
        else:
            rest += flag.words
    return config, rest


def _mapping_options(whole: MappingNode, section: str) -> set[str]:
    """The options of the section's class that are dicts."""
    found = entry(whole, section)
    named = text_of(found[1], "class_path") if found and isinstance(found[1], MappingNode) else None
    if named is None or "." not in named:
        return set()
    try:
        parameters = parameters_of(load_class(named))
    except InputError:
        return set()  # said by the check of the config
    return {
        name
        for name, parameter in (parameters or {}).items()
        if any(typing.get_origin(member) is dict or member is dict for member in members(parameter.annotation))
    }


def _set(node: Node | None, path: list[str], leaf: Node | None, where: str) -> Node | None:
    """A copy of a node in which the value at `path` is `leaf`; what is shared by a YAML anchor stays as it is."""
    if not path:
        return leaf
    if node is None or node.tag == NULL:
        node = empty("command line")
    if isinstance(node, SequenceNode):
        return _set_entry(node, path, leaf, where)
    if not isinstance(node, MappingNode):
        raise InputError(_nothing_below(node, path, where))
    found = entry(node, path[0])
    child = _set(found[1] if found else None, path[1:], leaf, f"{where}.{path[0]}".lstrip("."))
    key = found[0] if found else ScalarNode(TEXT, path[0], node.start_mark, node.end_mark)
    pairs = [(name, child if name is key else value) for name, value in node.value]
    pairs = pairs if found else [*pairs, (key, child)]
    return MappingNode(node.tag, pairs, node.start_mark, node.end_mark)


def _nothing_below(node: Node, path: list[str], where: str) -> str:
    start = f"command line: {where} is {node.value!r}, so there is no {path[0]!r} below it."
    if path[0] in AMOUNTS and ".sources." in where:
        option, _, name = where.rpartition(".sources.")
        return f"{start} How much of a source is taken, its part says: --{option}.parts.{name}.{path[0]}"
    return f"{start} Change what it names, or give the mapping itself in the config"


def _set_entry(node: SequenceNode, path: list[str], leaf: Node | None, where: str) -> SequenceNode:
    """A copy of a list in which the entry named path[0] is changed, or becomes `leaf`."""
    names = [_name(item) for item in node.value]
    if path[0] not in names:
        hint = suggestion(path[0], [name for name in names if name])
        raise InputError(f"command line: there is no {path[0]!r} in the list {where}.{hint}")
    number = names.index(path[0])
    item = _as_mapping(node.value[number]) if len(path) > 1 else None
    if item is not None and path[1] in AMOUNTS:  # one amount takes the place of another
        item.value = [(key, value) for key, value in item.value if key.value not in AMOUNTS]
    changed = _set(item, path[1:], leaf, f"{where}.{path[0]}")
    items = [changed if place == number else old for place, old in enumerate(node.value)]
    return SequenceNode(node.tag, items, node.start_mark, node.end_mark, flow_style=node.flow_style)


def _name(item: Node) -> str | None:
    if isinstance(item, MappingNode):
        return text_of(item, "name") or text_of(item, "source")
    return written_part(item.value)["source"] if isinstance(item, ScalarNode) else None


def _as_mapping(item: Node) -> MappingNode:
    """A part as a mapping of its own."""
    if isinstance(item, MappingNode):
        return MappingNode(item.tag, list(item.value), item.start_mark, item.end_mark)
    mapping = empty("command line")
    for key, value in written_part(item.value).items():
        mapping.value.append(
            (ScalarNode(TEXT, key, item.start_mark, item.end_mark), yaml.compose(value, yaml.SafeLoader))
        )
    return mapping
