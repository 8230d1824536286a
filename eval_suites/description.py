"""What is known of an evaluation suite without running it: each suite's `suite.py` holds one `Suite`, torch-free."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Suite:
    """One protocol. `measure` is "package.module:function", imported on use."""

    name: str  #: the folder's name
    version: str  #: changes whenever the same model could get another number
    title: str  #: what it measures, in one line
    metrics: tuple[str, ...]  #: the names of the numbers in its rows
    unit: str  #: what one bootstrap group is
    measure: str
