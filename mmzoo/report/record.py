"""What a run report shows, as plain data that any family can fill, and how its numbers are written.

Text is text, never HTML: the page escapes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral

import numpy as np

from mmzoo.report.plot_record import PointPanel, ShareBars

NOT_MEASURED = "not measured"
#: A panel is read by colour, and the page has this many that can be told apart.
MAX_CURVES = 5
#: Significant digits of a value that has no interval to say how far it can be trusted.
DIGITS = 3
#: More decimals than this are harder to read than an exponent.
MAX_DECIMALS = 6
MINUS = "\N{MINUS SIGN}"
SUFFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def number(value: float, decimals: int | None = None) -> str:
    """`value` to be read: thousands apart and `decimals` digits after the point.

    decimals None: three significant digits, integers whole, an exponent where that is shorter: 1,234 0.0312 1.20e-8.
    """
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else _typeset(f"{value:+}".replace("inf", "∞").removeprefix("+"))
    places = _decimals_of(value) if decimals is None else decimals
    if abs(value) >= 1e15 or (decimals is None and places > MAX_DECIMALS):
        mantissa, _, exponent = f"{value:.{DIGITS - 1}e}".partition("e")
        return _typeset(f"{mantissa}e{int(exponent)}")
    return _typeset(f"{value:,.{places}f}")


def short_number(value: float, digits: int = DIGITS) -> str:
    """`value` in little room, up to `digits` significant digits, no trailing zeros: 950 1.5k 20M 0.25 5e-4."""
    if value == 0 or not math.isfinite(value):
        return number(value, 0)
    text = f"{value:.{digits - 1}e}"
    mantissa, _, exponent = text.partition("e")
    if not -3 <= int(exponent) < 15:
        return _typeset(f"{_trim(mantissa)}e{int(exponent)}")
    rounded = float(text)
    scale, suffix = next(((scale, suffix) for scale, suffix in SUFFIXES if abs(rounded) >= scale), (1.0, ""))
    places = max(0, digits - 1 - exponent_of(rounded / scale))
    return _typeset(_trim(f"{rounded / scale:.{places}f}") + suffix)


def exponent_of(value: float, digits: int = 13) -> int:
    """The power of ten of the first digit of `value` (of 0: 0), once rounded to `digits` significant digits.

    Thirteen digits round away the noise of binary fractions and nothing else.
    """
    return int(f"{value:.{digits - 1}e}".partition("e")[2])


def _decimals_of(value: float) -> int:
    """Decimals that leave three significant digits."""
    if value == 0 or isinstance(value, Integral):
        return 0
    return max(0, DIGITS - 1 - exponent_of(value, DIGITS))


def _trim(text: str) -> str:
    """1.50 -> 1.5, 2.00 -> 2, 200 stays."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def _typeset(text: str) -> str:
    """A true minus for the sign, and no sign on a zero."""
    if not text.startswith("-"):
        return text
    return MINUS + text[1:] if any(digit in text.partition("e")[0] for digit in "123456789∞") else text[1:]


@dataclass(frozen=True)
class Measure:
    """One measured number, or the statement that it was not measured (`value` None).

    low, high: the ends of its interval at `level` (0.95), both or none. n: how many independent units the interval is
    over, `counted`: what they are, in the words that follow n ("images, 40 crops"). note: one line of small print.
    ValueError for half an interval, ends in the wrong order or a level that is no share.
    """

    name: str
    value: float | None
    unit: str = ""
    low: float | None = None
    high: float | None = None
    level: float | None = None
    n: int | None = None
    counted: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"the interval of {self.name!r} has one end: give low and high, or neither")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"the interval of {self.name!r} runs from {self.low} down to {self.high}")
        if self.level is not None and not 0 < self.level < 1:
            raise ValueError(f"the level of {self.name!r} is {self.level}: it must lie between 0 and 1, as 0.95 does")

    @property
    def value_text(self) -> str:
        """The value with as many digits as its interval supports, or "not measured"."""
        return NOT_MEASURED if self.value is None else number(self.value, self._decimals)

    @property
    def interval_text(self) -> str:
        """ "17.9 to 19.6", with the decimals of the value; empty without an interval."""
        if self.value is None or self.low is None or self.high is None:
            return ""
        return f"{number(self.low, self._decimals)} to {number(self.high, self._decimals)}"

    @property
    def level_text(self) -> str:
        """ "95 %"; empty without an interval."""
        return f"{100 * self.level:g} %" if self.level is not None and self.interval_text else ""

    @property
    def basis(self) -> str:
        """What it was measured on: "5 images, 40 crops"; empty when n is not known."""
        return "" if self.n is None else f"{self.n:,} {self.counted}".rstrip()

    @property
    def _decimals(self) -> int | None:
        """Decimals that show the width of the interval with two digits; None leaves the choice to `number`."""
        if self.low is None or self.high is None:
            return None
        width = self.high - self.low
        if not math.isfinite(width) or width <= 0:
            return None
        decimals = max(0, 1 - exponent_of(width, digits=2))
        return decimals if decimals <= MAX_DECIMALS else None


@dataclass(frozen=True)
class MeasureTable:
    """Measures that belong together; note: a line between the title and the table."""

    title: str
    rows: Sequence[Measure]
    note: str = ""


@dataclass(frozen=True, eq=False)
class Picture:
    """image: uint8, (H, W, 3) RGB or (H, W) grey; caption: a few words below it."""

    image: np.ndarray
    caption: str = ""


@dataclass(frozen=True)
class PictureRow:
    """label: what the row shows, over it and in the text for those who cannot see it; one picture a column."""

    label: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class PictureGrid:
    """Rows of pictures under the names of the columns; every row has one picture a column."""

    title: str
    columns: Sequence[str]
    rows: Sequence[PictureRow]
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """Values over training steps. steps never fall; a value that is not finite is a gap.

    ValueError when the lengths differ or the steps fall.
    """

    name: str
    steps: Sequence[int]
    values: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.values):
            raise ValueError(f"curve {self.name!r} has {len(self.steps)} steps but {len(self.values)} values")
        if len(self.steps) > 1 and bool(np.any(np.diff(np.asarray(self.steps)) < 0)):
            raise ValueError(f"the steps of curve {self.name!r} fall: sort them")


@dataclass(frozen=True)
class CurvePanel:
    """One chart. unit is that of all its curves; logarithmic: of the values, which leaves out those not above zero.

    ValueError for more than five curves.
    """

    title: str
    curves: Sequence[Curve]
    unit: str = ""
    logarithmic: bool = False

    def __post_init__(self) -> None:
        if len(self.curves) > MAX_CURVES:
            raise ValueError(
                f"panel {self.title!r} has {len(self.curves)} curves, but there are {MAX_CURVES} colours: split it"
            )


@dataclass(frozen=True)
class CodebookUsage:
    """How much of a codebook was used, level by level, coarse to fine.

    size: codes a level. used: share of them seen at least once, 0 to 1. perplexity: exp of the entropy of their
    frequencies, in codes, at most `size`. positions: how many codes were counted a level. ValueError outside of that.
    """

    title: str
    size: int
    used: Sequence[float]
    perplexity: Sequence[float]
    positions: int
    note: str = ""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"{self.title!r} has {self.size} codes a level")
        if not all(0 <= share <= 1 for share in self.used):
            raise ValueError(f"{self.title!r} has a share outside of 0 to 1: {list(self.used)}")
        # float32 entropies of an even use end a hair above the size
        if not all(0 <= codes <= self.size * (1 + 1e-4) for codes in self.perplexity):
            raise ValueError(f"{self.title!r} has a perplexity outside of 0 to {self.size}: {list(self.perplexity)}")


@dataclass(frozen=True)
class RunReport:
    """All that the page shows, in the order of the page; what is empty is not shown.

    command: the line that makes the run again. headline: the few numbers that matter, warnings: what a reader must know
    before believing them. facts: what was run, environment: on what. not_measured, notes: what the page does not say.
    """

    title: str
    summary: str
    command: str
    headline: Sequence[Measure] = ()
    warnings: Sequence[str] = ()
    grids: Sequence[PictureGrid] = ()
    tables: Sequence[MeasureTable] = ()
    curves: Sequence[CurvePanel] = ()
    codebooks: Sequence[CodebookUsage] = ()
    bars: Sequence[ShareBars] = ()
    points: Sequence[PointPanel] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    not_measured: Sequence[str] = ()
    notes: Sequence[str] = ()
