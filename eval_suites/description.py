"""What is known of an evaluation suite without running it: each suite's `suite.py` holds one `Suite`, torch-free."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mmzoo.errors import InputError


@dataclass(frozen=True)
class Option:
    """A setting of a suite that the user may choose: `--name`. `read` makes the value of the text, or InputError."""

    name: str
    help: str
    read: Callable[[str], Any]
    default: Any = None


class Kind(NamedTuple):
    """What a metric's number is: its unit, and whether more is better (None: neither)."""

    unit: str = ""
    higher_is_better: bool | None = None


@dataclass(frozen=True)
class Suite:
    """One protocol. `measure` and `evaluate` are "package.module:function", imported on use.

    measure: the bare measurement, for other code. evaluate: what `mmzoo eval run` calls, see request.py. remake, where
    every number follows from the log: (settings, rows) -> all metrics, with which a leaderboard checks a record.
    """

    name: str  #: the folder's name
    version: str  #: changes whenever the same model could get another number
    title: str  #: what it measures, in one line
    metrics: tuple[str, ...]  #: the names of its numbers, before the @ of a slice
    unit: str  #: what one bootstrap group is
    measure: str
    evaluate: str
    options: tuple[Option, ...] = ()
    subject: str = ""  #: what kind of model it scores, in words: "image tokenizers"
    needs: tuple[str, ...] = ()  #: methods that a model must have to be scored
    #: metric, before the @ -> its kind; a record of this version that says otherwise is refused. Empty: not checked
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    remake: str | None = None
    headline: tuple[str, ...] = ()  #: the metrics that a leaderboard's page shows; none named = all. Files hold all


def whole_numbers(text: str) -> list[int]:
    """ "1,2,4" -> [1, 2, 4], ascending, each once; for Option.read."""
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError as fault:
        raise InputError(f"{text!r}: give whole numbers separated by commas, e.g. 1,2,4.") from fault
