"""Proves a record against its sample log: what the rows say is the truth, and a record that says otherwise is refused.

Recomputed from the rows: value, interval, counts and level of every metric that has a column. Compared: what was
measured (suite, settings, model, data), the number of samples, and, where the suite of this version is here, each
metric's unit and direction. A number of the whole set (rFID, pooled scores) has no column; a suite whose rows hold all
that it follows from makes it again (`Suite.remake`), of any other only the number of groups is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval_suites.description import Suite
from eval_suites.evaluation import identity_stamp
from eval_suites.finding import find_suites
from eval_suites.record import EvalRecord, Metric
from eval_suites.sample_log import SampleRow
from eval_suites.statistics import RESAMPLES, Interval, bootstrap_mean, normal_mean
from mmzoo.errors import InputError
from mmzoo.families import load_object

#: A mean may be summed in another order; more than this is another number.
TOLERANCE = 1e-6
#: Draws of the bootstrap that one record may cost, about two seconds; the intervals after that are judged roughly.
EXACT_DRAWS = 100_000_000
#: How far an end may then lie off the normal interval, in its half widths: of one sample that differs among thousands
#: the bootstrap's lower end is half a half width off.
ROUGH = 0.6
LEVEL = 0.95


def prove(path: Path, record: EvalRecord, stated: Mapping[str, Any], rows: Sequence[SampleRow]) -> None:
    """InputError names the file, the metric and both numbers. stated: what the log says that it measures."""
    fault = (
        _wrong_stamp(record, stated, rows)
        or _wrong_kind(record)
        or _wrong_number(record, rows)
        or _not_remade(record, rows)
    )
    if fault is not None:
        raise InputError(f"{path}: {fault}. Measure again: mmzoo eval run")


def _wrong_stamp(record: EvalRecord, stated: Mapping[str, Any], rows: Sequence[SampleRow]) -> str | None:
    claimed = identity_stamp(record.suite, record.model, record.data)
    for name, claim in claimed.items():
        if stated.get(name) != claim:
            return f"its {name} is not what {record.samples.file} says that was measured"
    if record.data.n != len(rows):
        return f"data.n is {record.data.n:,}, and {record.samples.file} holds {len(rows):,} samples"
    return None


def _suite_of(record: EvalRecord) -> Suite | None:
    """The suite that made the record; None where this version of it is not here."""
    suite = find_suites().get(record.suite.name)
    return suite if suite is not None and suite.version == record.suite.version else None


def _wrong_kind(record: EvalRecord) -> str | None:
    suite = _suite_of(record)
    if suite is None:
        return None
    for metric in record.metrics:
        kind = suite.kinds.get(metric.name.partition("@")[0])
        if kind is not None and (metric.unit, metric.higher_is_better) != tuple(kind):
            return (
                f"{metric.name} has the unit {metric.unit!r} and higher_is_better {metric.higher_is_better}; the suite "
                f"says {kind.unit!r} and {kind.higher_is_better}"
            )
    return None


def _wrong_number(record: EvalRecord, rows: Sequence[SampleRow]) -> str | None:
    groups = len({row.group for row in rows})
    draws = 0
    for metric in record.metrics:
        own = [row for row in rows if metric.name in row.values]
        if not own:
            fault = _wrong_count(metric, groups)
        elif metric.value is None:
            fault = f"{metric.name} is said not to be measured, and {record.samples.file} holds {len(own):,} values"
        else:
            draws += RESAMPLES * len({row.group for row in own})
            fault = _contradiction(metric, own, draws <= EXACT_DRAWS, record.samples.file)
        if fault is not None:
            return fault
    return None


def _not_remade(record: EvalRecord, rows: Sequence[SampleRow]) -> str | None:
    suite = _suite_of(record)
    if suite is None or suite.remake is None:
        return None
    try:
        made: Sequence[Metric] = load_object(suite.remake)(record.suite.settings, rows)
    except (
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
    ) as fault:  # the log has its hash; what is in it was never the suite's
        return f"{record.samples.file} holds rows that {suite.name} did not write ({fault!r})"
    names = [metric.name for metric in made]
    if names != [metric.name for metric in record.metrics]:
        odd = sorted({*names} ^ {metric.name for metric in record.metrics}) or names
        return f"it does not list the metrics that {record.samples.file} gives, for example {odd[0]}"
    for claimed, found in zip(record.metrics, made, strict=True):
        for name in ("value", "low", "high", "level", "n_values", "n_groups", "n_infinite", "not_measured"):
            if not _same(getattr(claimed, name), getattr(found, name)):
                return (
                    f"{claimed.name} has {name} {getattr(claimed, name)}, and the rows in {record.samples.file} give "
                    f"{getattr(found, name)}"
                )
    return None


def _same(claimed: float | str | None, found: float | str | None) -> bool:
    if isinstance(claimed, float | int) and isinstance(found, float | int):
        return math.isclose(claimed, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return claimed == found


def _wrong_count(metric: Metric, groups: int) -> str | None:
    if metric.n_groups > groups:
        return f"{metric.name} counts {metric.n_groups:,} groups, and there are {groups:,}"
    return None


def _contradiction(metric: Metric, own: Sequence[SampleRow], exact: bool, log: str) -> str | None:
    values = np.array([row.values[metric.name] for row in own])
    names = np.array([row.group for row in own])
    mean = bootstrap_mean if exact else normal_mean
    found = mean(values, names, level=LEVEL)
    if not math.isclose(found.mean, metric.value or 0.0, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
        return f"{metric.name} is {metric.value:.6g}, but the mean of its rows in {log} is {found.mean:.6g}"
    for name, what in (("n_values", "values"), ("n_groups", "groups"), ("n_infinite", "infinite values")):
        if getattr(metric, name) != getattr(found, name):
            return (
                f"{metric.name} counts {getattr(metric, name):,} {what}, and {log} holds {getattr(found, name):,} "
                f"({name})"
            )
    return _wrong_interval(metric, found, exact, log)


def _wrong_interval(metric: Metric, found: Interval, exact: bool, log: str) -> str | None:
    claimed = (metric.low, metric.high, metric.level)
    wanted = (found.low, found.high, None if found.low is None else found.level)
    if found.low is None or found.high is None:
        matches = claimed == wanted
    else:
        most = 0.0 if exact else ROUGH * (found.high - found.low) / 2
        matches = metric.level == found.level and all(
            one is not None and (abs(one - other) <= most or math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-6))
            for one, other in ((metric.low, found.low), (metric.high, found.high))
        )
    if matches:
        return None
    return f"the interval of {metric.name} is {_interval(*claimed)}, but its rows in {log} give {_interval(*wanted)}"


def _interval(low: float | None, high: float | None, level: float | None) -> str:
    return "none" if low is None or high is None or level is None else f"{low:.6g} to {high:.6g} at {level:g}"
