"""Line charts as plain geometry in pixels; the template draws it as SVG inside the page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmzoo.report.axes import Axis, Tick, step_axis, value_axis
from mmzoo.report.record import Curve, CurvePanel, short_number

#: px of the drawing; the page scales it as a whole.
WIDTH, HEIGHT = 340, 196
TOP, RIGHT, BOTTOM = 10, 328, 170
#: px a character of a label takes, at most, and the least room left of the frame.
CHARACTER, LEAST_LEFT = 6.6, 40
#: A curve of so few values shows each as a dot.
FEW = 12
#: A curve is smoothed when it has this many values and they lie, on average, so many px off their neighbours' mean.
LONG, NOISY = 40, 1.5
#: The window of the moving mean: this share of the values, at least LEAST_WINDOW.
WINDOW_SHARE, LEAST_WINDOW = 0.06, 7


@dataclass(frozen=True)
class Line:
    """One curve. strokes, faint_strokes: SVG point lists "x,y x,y", broken at gaps; dots: (x, y); last: its text."""

    name: str
    colour: int
    last: str
    strokes: tuple[str, ...]
    faint_strokes: tuple[str, ...]
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Chart:
    """A chart in px of a width x height drawing; the frame is left..right by top..bottom.

    left_out: how many values are not shown, being not finite or, on a logarithmic axis, not above zero.
    """

    title: str
    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    logarithmic: bool
    smoothed: bool
    left_out: int


def left_of(y_axis: Axis) -> int:
    """Where the frame begins, px: right of the axis' longest label."""
    return max(LEAST_LEFT, round(12 + CHARACTER * max((len(tick.label) for tick in y_axis.ticks), default=0)))


def line_chart(panel: CurvePanel) -> Chart:
    """The geometry of `panel`; all its numbers are rounded to a tenth of a px, so equal panels give equal bytes."""
    values = [_shown(curve, panel.logarithmic) for curve in panel.curves]
    steps = [np.asarray(curve.steps, dtype=np.float64) for curve in panel.curves]
    every_value = np.concatenate([shown[~np.isnan(shown)] for shown in values] or [np.empty(0)])
    y_axis = value_axis(every_value, BOTTOM, TOP, panel.logarithmic)
    left = left_of(y_axis)
    # The values left out count here: a curve that ends in nan is seen to end before the run did.
    x_axis = step_axis(np.concatenate([*steps, np.empty(0)]), left, RIGHT)
    lines = tuple(
        _line(curve, colour, x_axis.place(at), shown, y_axis, panel.unit)
        for colour, (curve, at, shown) in enumerate(zip(panel.curves, steps, values, strict=True))
    )
    return Chart(
        title=panel.title,
        width=WIDTH,
        height=HEIGHT,
        left=left,
        right=RIGHT,
        top=TOP,
        bottom=BOTTOM,
        x_ticks=x_axis.ticks,
        y_ticks=y_axis.ticks,
        lines=lines,
        logarithmic=panel.logarithmic,
        smoothed=any(line.faint_strokes for line in lines),
        left_out=sum(int(np.isnan(shown).sum()) for shown in values),
    )


def _shown(curve: Curve, logarithmic: bool) -> np.ndarray:
    """The values of `curve` (N,) float64, nan where they cannot be drawn."""
    values = np.asarray(curve.values, dtype=np.float64)
    drawable = np.isfinite(values) & (values > 0) if logarithmic else np.isfinite(values)
    return np.where(drawable, values, np.nan)


def _line(curve: Curve, colour: int, x: np.ndarray, values: np.ndarray, y_axis: Axis, unit: str) -> Line:
    """x: (N,) px; values: (N,), nan at gaps."""
    runs = _runs(values)
    raw = [(x[run], y_axis.place(values[run])) for run in runs]
    smoothed = _is_noisy([y for _, y in raw])
    strong = [(x[run], y_axis.place(_moving_mean(values[run], _window(values)))) for run in runs] if smoothed else raw
    few = sum(len(at) for at, _ in raw) <= FEW
    return Line(
        name=curve.name,
        colour=colour,
        last=_last(curve, unit),
        strokes=tuple(_points(*_thin(at, y)) for at, y in strong if len(at) > 1),
        faint_strokes=tuple(_points(*_thin(at, y)) for at, y in raw if len(at) > 1) if smoothed else (),
        dots=tuple(dot for at, y in raw if few or len(at) == 1 for dot in zip(at.tolist(), y.tolist(), strict=True)),
    )


def _runs(values: np.ndarray) -> list[slice]:
    """The stretches of `values` (N,) between gaps."""
    solid = np.concatenate([[False], ~np.isnan(values), [False]])
    edges = np.flatnonzero(solid[1:] != solid[:-1])
    return [slice(int(first), int(last)) for first, last in zip(edges[::2], edges[1::2], strict=True)]


def _is_noisy(runs: list[np.ndarray]) -> bool:
    """Whether a curve, given as px by run, is long and its values lie off the line between their neighbours."""
    if sum(len(y) for y in runs) < LONG:
        return False
    off = np.concatenate([np.abs(y[1:-1] - (y[:-2] + y[2:]) / 2) for y in runs])
    return off.size > 0 and float(off.mean()) > NOISY


def _window(values: np.ndarray) -> int:
    return max(LEAST_WINDOW, round(WINDOW_SHARE * int((~np.isnan(values)).sum())))


def _moving_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of the `window` values around each of (N,).

    Near the start the window shrinks on both sides, since curves are steep there and half a window would be far below
    them; near the end it loses its right half only, so that the last strong value is a mean as well.
    """
    index = np.arange(len(values))
    half = np.minimum(window // 2, index)
    first, last = index - half, np.minimum(index + half + 1, len(values))
    scale = float(np.abs(values).max()) or 1.0  # sums of huge values would overflow
    sums = np.concatenate([[0.0], np.cumsum(values / scale)])
    means = (sums[last] - sums[first]) / (last - first)
    return np.clip(means, values.min() / scale, values.max() / scale) * scale


def _thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drops the points of (N,) that cannot be seen: of each px column the first, lowest, highest and last stay."""
    column = np.floor(x).astype(np.int64)
    starts = np.flatnonzero(np.concatenate([[True], column[1:] != column[:-1]]))
    stops = np.append(starts[1:], len(x))
    kept = [
        index
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
        for index in (start, start + int(y[start:stop].argmin()), start + int(y[start:stop].argmax()), stop - 1)
    ]
    order = np.unique(kept)
    return x[order], y[order]


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return " ".join(f"{at:g},{value:g}" for at, value in zip(x.tolist(), y.tolist(), strict=True))


def _last(curve: Curve, unit: str) -> str:
    """The last value as logged, shown or not: a curve that ends in nan says so."""
    if len(curve.values) == 0:
        return "no value"
    return " ".join(filter(None, (short_number(float(curve.values[-1]), 4), unit)))
