"""Frozen dataclasses to JSON and back, strictly: a field too many, too few or of another type is named.

JSON has no infinities: a float field that is one is written as the word "inf" or "-inf". NaN is refused both ways,
because it says neither a number nor why there is none.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from mmzoo.errors import InputError, suggestion

Content = TypeVar("Content")
INFINITIES = {"inf": math.inf, "-inf": -math.inf}
DEEPEST = 100  #: lists and tables in each other; nothing we write comes near, and Python's own limit is a trace
LARGEST = 2**63 - 1  #: of whole numbers: what counts and sizes can be elsewhere


def plain_json(value: Any) -> Any:
    """A value of free form as JSON gives it back (tuples as lists). ValueError: NaN, an infinity, or no JSON at all."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except TypeError as fault:
        raise ValueError(f"{fault}: only text, numbers, lists and tables of them can be written") from fault


def to_plain(value: Any) -> Any:
    """A dataclass (and what it holds) as JSON values. ValueError: NaN."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): to_plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            raise ValueError("NaN cannot be written: it is no measurement")
        return str(value)
    return value


def parse(text: str | bytes) -> Any:
    """JSON values, strictly: no NaN, no bare infinities, no name twice, no number or nesting beyond all use, no text
    that UTF-8 cannot hold. ValueError says what is wrong.
    """
    try:
        value = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_whole,
            object_pairs_hook=_once_each,
        )
    except RecursionError as fault:
        raise _too_deep() from fault
    _refuse_depth(value)
    escaped = b"\\u" in text if isinstance(text, bytes) else "\\u" in text
    if escaped:  # only an escape can name half a character
        _refuse_half_characters(value)
    return value


def _refuse_depth(value: Any) -> None:
    """Level by level, without recursion: whoever reads the value may recurse then."""
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for one in level if isinstance(one, list | dict) for inner in _inside(one)]
        if not level:
            return
    raise _too_deep()


def _inside(value: list[Any] | dict[str, Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _too_deep() -> ValueError:
    return ValueError(f"lists and tables lie in each other more than {DEEPEST} deep")


def _refuse_half_characters(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as fault:
        raise ValueError(f"it holds half a character, {fault.object[fault.start]!a}") from fault


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {_cut(text)} is too large")
    return number


def _whole(text: str) -> int:
    if len(text) > len(str(-LARGEST)) or abs(int(text)) > LARGEST:
        raise ValueError(f"the whole number {_cut(text)} is too large")
    return int(text)


def from_plain(kind: type[Content], value: Any, where: str = "") -> Content:
    """The dataclass `kind` from JSON values. InputError names the field; `where` is the path to it."""
    if not isinstance(value, Mapping):
        raise InputError(f"{where or kind.__name__} must be a table, not {_named(value)}")
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]  # pyright: ignore[reportArgumentType]
    for name in value:
        if name not in names:
            raise InputError(f"unknown field {_place(where, str(name))!r}.{suggestion(str(name), names)}")
    for name in names:
        if name not in value:
            raise InputError(f"the field {_place(where, name)!r} is missing")
    fields = {name: _read(hints[name], value[name], _place(where, name)) for name in names}
    try:
        return kind(**fields)
    except ValueError as fault:  # what the dataclass itself refuses
        raise InputError(f"{where or kind.__name__}: {fault}") from fault


def _read(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return from_plain(kind, value, where)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Union):  # "X | None" is the only union here
        return None if value is None else _read(next(one for one in inner if one is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise InputError(f"{where!r} must be a list, not {_named(value)}")
        return tuple(_read(inner[0], entry, f"{where}[{number}]") for number, entry in enumerate(value))
    if origin is not None:  # Mapping[str, X]
        if not isinstance(value, Mapping):
            raise InputError(f"{where!r} must be a table, not {_named(value)}")
        return {name: _read(inner[1], entry, _place(where, name)) for name, entry in value.items()}
    return _SCALARS[kind](value, where)


def _float(value: Any, where: str) -> float:
    if isinstance(value, str) and value in INFINITIES:
        return INFINITIES[value]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise InputError(f"{where!r} must be a number, not {_named(value)}")
    return float(value)


def _exactly(kind: type, words: str) -> Callable[[Any, str], Any]:
    def read(value: Any, where: str) -> Any:
        if type(value) is not kind:
            raise InputError(f"{where!r} must be {words}, not {_named(value)}")
        return value

    return read


_SCALARS: dict[Any, Callable[[Any, str], Any]] = {
    float: _float,
    int: _exactly(int, "a whole number"),
    str: _exactly(str, "text"),
    bool: _exactly(bool, "true or false"),
}


def _place(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _named(value: Any) -> str:
    return _cut(json.dumps(value, default=repr))


def _cut(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        twice = next(name for number, (name, _) in enumerate(pairs) if name in dict(pairs[:number]))
        raise ValueError(f"the name {twice!r} stands there twice")
    return table
