"""Axes of a chart: the range of values they cover, where a value lies in pixels, and round numbers as ticks.

Values past 1e300 are placed at 1e300, and logarithms of values below 1e-300 at 1e-300, so that no sum overflows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mmzoo.report.record import exponent_of, number, short_number

HUGE, TINY = 1e300, 1e-300
#: A range below this share of its largest value is drawn as one flat line: more would show rounding as an event.
FLAT = 1e-5
#: Room above and below the values, as a share of their range.
ROOM = 0.04
#: A first step within this share of the last one is the start of the run: the axis begins at 0.
NEAR_START = 0.05
#: Intervals between ticks, at most.
INTERVALS = 5


@dataclass(frozen=True)
class Tick:
    """position: px along the axis; label: its number as text."""

    position: float
    label: str


@dataclass(frozen=True)
class Axis:
    """Maps low..high (logarithms to base 10 where `logarithmic`) to start..end in px (upright: start > end)."""

    low: float
    high: float
    start: int
    end: int
    ticks: tuple[Tick, ...] = ()
    logarithmic: bool = False

    def place(self, values: np.ndarray) -> np.ndarray:
        """Pixels of `values`, any shape, float64, rounded to a tenth; nan stays nan."""
        coordinates = _log10(values) if self.logarithmic else np.clip(values, -HUGE, HUGE)
        share = (coordinates - self.low) / (self.high - self.low)
        return np.round(self.start + share * (self.end - self.start), 1)


def value_axis(values: np.ndarray, start: int, end: int, logarithmic: bool = False) -> Axis:
    """The axis of `values` (N,), finite, above zero where `logarithmic`; no ticks when there are none."""
    if values.size == 0:
        return Axis(0.0, 1.0, start, end)
    if logarithmic:
        coordinates = _log10(values)
        low, high = _widen(float(coordinates.min()), float(coordinates.max()), flat=FLAT, room_when_flat=0.5)
        return _with_ticks(Axis(low, high, start, end, logarithmic=True), *_log_ticks(low, high))
    values = np.clip(values, -HUGE, HUGE)
    low, high = _value_range(float(values.min()), float(values.max()))
    return _with_ticks(Axis(low, high, start, end), *nice_ticks(low, high))


def step_axis(steps: np.ndarray, start: int, end: int) -> Axis:
    """The axis of training steps (N,), whole numbers: from the first, or 0 where that is near, to the last."""
    if steps.size == 0:
        return Axis(0.0, 1.0, start, end)
    low, high = float(steps.min()), float(steps.max())
    if low == high:
        low, high = low - 1, high + 1
    elif 0 < low <= NEAR_START * high:
        low = 0.0
    return _with_ticks(Axis(low, high, start, end), *nice_ticks(low, high, at_least=1.0))


def nice_ticks(low: float, high: float, at_least: float = 0.0) -> tuple[list[float], list[str]]:
    """Multiples of 1, 2 or 5 times a power of ten within low..high (the finest with at most five intervals).

    at_least: the smallest step. Returns the values and their labels.
    """
    step = _nice_step((high - low) / INTERVALS)
    step = max(step, at_least)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = [float(f"{index * step:.12g}") for index in range(first, last + 1)]
    return ticks, _labels(ticks, step)


def _nice_step(at_least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `at_least`."""
    exponent = exponent_of(at_least)
    candidates = (float(f"{digit}e{exponent + shift}") for shift in (0, 1) for digit in (1, 2, 5))
    return next(step for step in candidates if step >= at_least * (1 - 1e-9))


def _labels(ticks: list[float], step: float) -> list[str]:
    """Labels with just the digits that the step needs, all alike."""
    top = max((abs(tick) for tick in ticks), default=0.0)
    if 1e-3 <= top < 1e3:
        return [number(tick, max(0, -exponent_of(step))) for tick in ticks]
    digits = max(1, exponent_of(top) - exponent_of(step) + 1)
    return [short_number(tick, digits) for tick in ticks]


def _log_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Ticks of a logarithmic axis, as logarithms: decades, or finer where few decades lie in low..high."""
    stride = max(1, math.ceil((high - low) / (INTERVALS + 1)))
    decades = [power for power in range(math.ceil(low), math.floor(high) + 1) if power % stride == 0]
    for digits in ((1,), (1, 3), (1, 2, 5)):
        marks = [(digit, power) for power in range(math.floor(low), math.ceil(high) + 1) for digit in digits]
        inside = [(digit, power) for digit, power in marks if low <= math.log10(digit) + power <= high]
        if 3 <= len(inside) <= INTERVALS + 1:
            return _log_labels(inside)
    if len(decades) >= 3:
        return _log_labels([(1, power) for power in decades])
    ticks, labels = nice_ticks(10.0**low, 10.0**high)
    kept = [(tick, label) for tick, label in zip(ticks, labels, strict=True) if tick > 0]
    return [math.log10(tick) for tick, _ in kept], [label for _, label in kept]


def _log_labels(marks: list[tuple[int, int]]) -> tuple[list[float], list[str]]:
    return (
        [math.log10(digit) + power for digit, power in marks],
        [short_number(float(f"{digit}e{power}")) for digit, power in marks],
    )


def _value_range(low: float, high: float) -> tuple[float, float]:
    """Range with some room; down to zero where zero is near, and never across it for values of one sign."""
    top = max(abs(low), abs(high))
    wide_low, wide_high = _widen(low, high, FLAT * max(top, TINY), room_when_flat=top / 10 if top > TINY else 1.0)
    if low >= 0 and low < 0.3 * high:
        wide_low = 0.0
    if high <= 0 and high > 0.3 * low:
        wide_high = 0.0
    return wide_low, wide_high


def _widen(low: float, high: float, flat: float, room_when_flat: float) -> tuple[float, float]:
    room = ROOM * (high - low) if high - low > flat else room_when_flat
    return low - room, high + room


def _log10(values: np.ndarray) -> np.ndarray:
    return np.log10(np.clip(values, TINY, HUGE))


def _with_ticks(axis: Axis, values: list[float], labels: list[str]) -> Axis:
    """`axis` with ticks at `values`, given in the axis' own coordinates."""
    share = [(value - axis.low) / (axis.high - axis.low) for value in values]
    positions = [round(axis.start + part * (axis.end - axis.start), 1) for part in share]
    ticks = tuple(Tick(position, label) for position, label in zip(positions, labels, strict=True))
    return Axis(axis.low, axis.high, axis.start, axis.end, ticks, axis.logarithmic)
