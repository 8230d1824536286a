"""Metrics as text, written the way the reports write numbers: with as many digits as the interval supports."""

from __future__ import annotations

from eval_suites.record import Metric
from mmzoo.report.record import Measure


def measure_of(metric: Metric) -> Measure:
    """The metric as a report shows it."""
    return Measure(metric.name, metric.value, metric.unit, metric.low, metric.high, metric.level)


def value_text(metric: Metric) -> str:
    """ "21.5", or "not measured"."""
    return measure_of(metric).value_text


def basis_text(metric: Metric) -> str:
    """What the value rests on: "20.9 to 22.1, n 40 in 5 groups, 1 exact left out"; empty for what is not measured."""
    parts = [measure_of(metric).interval_text]
    if metric.n_values:
        parts.append(f"n {metric.n_values:,}" + (f" in {metric.n_groups:,}" if metric.n_groups else ""))
    if metric.n_infinite:
        parts.append(f"{metric.n_infinite:,} exact left out")
    return ", ".join(part for part in parts if part)


def metric_text(metric: Metric) -> str:
    """The value of a measured metric and what it rests on, on one line."""
    basis = basis_text(metric)
    return f"{value_text(metric)} {metric.unit}".rstrip() + (f"  ({basis})" if basis else "")
