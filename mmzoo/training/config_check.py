"""Checks a merged config against the signatures of the classes it names, before jsonargparse sees it.

jsonargparse says of an unknown key under `init_args` only that the whole value fits none of the types. Here each
finding names the key, the file and line where it stands, and the nearest valid key.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# jsonargparse's own introspection, so that both follow **kwargs into the same parents. Covered by a test.
from jsonargparse._parameter_resolvers import get_signature_parameters
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from mmzoo.errors import InputError, suggestion
from mmzoo.training.config_files import empty, entry, kind_of, text_of, where

CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")


class Section(typing.NamedTuple):
    """What a top-level key holds: the options of `options_of`, or a class chosen by class_path below `base`."""

    options_of: Callable[..., Any] | None = None
    base: type | None = None


def check_config(config: MappingNode, sections: Mapping[str, Section], prog: str) -> None:
    """InputError with every finding: one line when there is one, else a summary and one line each."""
    findings: list[str] = []
    for key, value in config.value:
        name = key.value
        if name not in sections:
            findings.append(_unknown(key, name, f"`{prog}`", list(sections)))
            continue
        section = sections[name]
        if section.base is not None:
            findings += _check_class(key, value, name, section.base)
        elif section.options_of is not None and isinstance(value, MappingNode):
            findings += _check_options(value, name, section.options_of)
    if len(findings) == 1:
        raise InputError(findings[0])
    if findings:
        raise InputError("\n  ".join([f"the config has {len(findings)} mistakes:", *findings]))


def _unknown(key: Node, path: str, owner: str, known: list[str]) -> str:
    name = path.rpartition(".")[2]
    return f"{where(key)}: {path} is not an option of {owner}.{suggestion(name, known)}"


def _check_class(key: Node, node: Node, path: str, base: type | None) -> list[str]:
    """A mapping with class_path and init_args (or a bare class path)."""
    if isinstance(node, ScalarNode):
        return []
    if not isinstance(node, MappingNode):
        return [f"{where(key)}: {path} must be a mapping with class_path and init_args, this is a {kind_of(node)}."]
    class_entry = entry(node, "class_path")
    if class_entry is None:
        return [f"{where(key)}: {path} names no class. Add {path}.class_path: package.module.Class"]
    findings = [
        _unknown(name, f"{path}.{name.value}", "a class entry", list(CLASS_KEYS))
        for name, _ in node.value
        if name.value not in CLASS_KEYS
    ]
    given = text_of(node, "class_path") or ""
    if "." not in given:
        return findings  # a short name: jsonargparse knows which ones
    try:
        target = load_class(given)
    except InputError as mistake:
        return [*findings, f"{where(class_entry[1])}: {path}.class_path: {mistake}"]
    if base is not None and not (isinstance(target, type) and issubclass(target, base)):
        line = f"{where(class_entry[1])}: {path}.class_path: {given} is not a {base.__name__}. Name a subclass of it."
        return [*findings, line]
    init = entry(node, "init_args")
    if init is not None and isinstance(init[1], MappingNode):
        findings += _check_options(init[1], f"{path}.init_args", target)
    return findings


def load_class(dotted: str) -> Any:
    """The class or function at "package.module.Name". InputError with the nearest module or name."""
    module_name, _, name = dotted.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as fault:
        missing = fault.name or module_name
        if module_name == missing or module_name.startswith(f"{missing}."):
            # A name nested in a class ends here too: YAML names only classes and functions of modules.
            raise InputError(f"there is no module {missing}.{_nearest_module(missing)}") from None
        raise InputError(
            f"{module_name} needs {missing!r}, which is not installed. Try: pip install {missing}"
        ) from fault
    if not hasattr(module, name):
        known = [n for n, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module_name]
        known = known or [n for n, value in vars(module).items() if inspect.isclass(value)]
        raise InputError(f"{module_name} has no {name}.{suggestion(name, known)}")
    return getattr(module, name)


def _nearest_module(missing: str) -> str:
    parent, _, name = missing.rpartition(".")
    if not parent:
        return " Write the full path: package.module.Class"
    import pkgutil

    folder = getattr(importlib.import_module(parent), "__path__", None)
    known = [found.name for found in pkgutil.iter_modules(folder)] if folder else []
    return suggestion(name, known)


def parameters_of(owner: Callable[..., Any]) -> dict[str, Any] | None:
    """What a class or function takes, by name; None where there is no readable signature (built in C)."""
    try:
        return {p.name: p for p in get_signature_parameters(owner)}
    except (ValueError, TypeError):
        return None


def _check_options(node: MappingNode, path: str, owner: Callable[..., Any]) -> list[str]:
    """Every key of the mapping is a parameter of `owner`; goes down into classes and dataclasses."""
    parameters = parameters_of(owner)
    if parameters is None:
        return []  # jsonargparse decides
    findings: list[str] = []
    for key, value in node.value:
        name = f"{path}.{key.value}"
        if key.value in parameters:
            findings += _check_value(key, value, name, parameters[key.value].annotation)
        else:
            findings.append(_unknown(key, name, getattr(owner, "__name__", str(owner)), list(parameters)))
    return findings


def _check_value(key: Node, value: Node, path: str, annotation: Any) -> list[str]:
    if isinstance(value, SequenceNode):
        children = enumerate(value.value)
        return [line for i, child in children for line in _check_value(child, child, f"{path}[{i}]", None)]
    if isinstance(value, ScalarNode):
        return _check_number(value, path, annotation)
    if not isinstance(value, MappingNode):
        return []
    if entry(value, "class_path") is not None:
        return _check_class(key, value, path, None)
    settings = _dataclass_in(annotation)
    return _check_options(value, path, settings) if settings else []


def _check_number(value: ScalarNode, path: str, annotation: Any) -> list[str]:
    """Neither `.nan` nor `.inf` sets anything: each would train, and only the weights would tell.

    But for `nodata`: NaN is what rasters hold where there is no data.
    """
    text = value.value.lstrip("+-").lower()
    # A bare `nan` is a word to YAML, and a number only where a number is asked for.
    named = text in (".nan", ".inf") or (text in ("nan", "inf", "infinity") and float in members(annotation))
    if not named or value.style is not None or path.endswith(".nodata"):
        return []
    return [f"{where(value)}: {path} is {value.value}, which is no finite number. Give a number."]


def members(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if union else (annotation,)


def _dataclass_in(annotation: Any) -> type | None:
    """The dataclass of `Settings` or `Settings | None`."""
    found = (member for member in members(annotation) if isinstance(member, type) and dataclasses.is_dataclass(member))
    return next(found, None)


class Flag(typing.NamedTuple):
    """`words` as typed; `path`: the keys of the setting in full, none for what sets nothing; `leaf`: its value."""

    words: list[str]
    path: list[str]
    leaf: Node | None


def read_flags(arguments: list[str]) -> Iterator[Flag]:
    """The arguments of a command line, flags with their values; `--model.lr` stands for `--model.init_args.lr`."""
    import yaml

    words = iter(range(len(arguments)))
    for i in words:
        argument = arguments[i]
        if not argument.startswith("--") or argument == "--":
            yield Flag([argument], [], None)
            continue
        name, equals, value = argument[2:].partition("=")
        typed = [argument]
        if not equals and i + 1 < len(arguments) and not arguments[i + 1].startswith("--"):
            value = arguments[next(words)]
            typed.append(value)
        path = name.removesuffix("+").split(".")
        if path[-1] == "help" or name == "print_config":
            yield Flag(typed, [], None)
            continue
        if path[0] in ("model", "data") and len(path) > 1 and path[1] not in CLASS_KEYS:
            path.insert(1, "init_args")
        if len(path) == 1 and path[0] in ("model", "data") and "." in value and "{" not in value:
            path.append("class_path")
        try:
            leaf = yaml.compose(value, yaml.SafeLoader)
        except yaml.YAMLError:
            leaf = None
        yield Flag(typed, path, leaf)


def flags_as_config(arguments: list[str]) -> MappingNode:
    """The dotted flags of a command line as a config mapping whose places read "command line".

    Only for checking: values keep their text.
    """
    root = empty("command line")
    for flag in read_flags(arguments):
        if flag.path:
            _plant(root, flag.path, flag.leaf)
    return root


def _plant(root: MappingNode, parts: list[str], leaf: Node | None) -> None:
    mapping = root
    mark = root.start_mark
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        found = entry(mapping, part)
        if found and not last and isinstance(found[1], MappingNode):
            mapping = found[1]
            continue
        child: Node = empty(mark.name)
        if last:
            child = leaf if leaf is not None else ScalarNode("tag:yaml.org,2002:null", "", mark, mark)
            child.start_mark = mark
        mapping.value = [pair for pair in mapping.value if pair[0].value != part]
        mapping.value.append((ScalarNode("tag:yaml.org,2002:str", part, mark, mark), child))
        if isinstance(child, MappingNode):
            mapping = child
