"""The numbers of a finished log: means over images with intervals, and what only the whole set has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from eval_suites.description import Kind
from eval_suites.metrics.code_rate import code_entropy
from eval_suites.metrics.frechet import frechet_distance
from eval_suites.metrics.image_codecs import CODECS
from eval_suites.reconstruction.kinds import ENTROPY, PER_IMAGE, PERPLEXITY, RFID, USAGE, codec_kinds
from eval_suites.reconstruction.networks import Networks
from eval_suites.reconstruction.settings import Settings
from eval_suites.reconstruction.side_files import SideFiles
from eval_suites.record import Metric
from eval_suites.sample_log import SampleRow
from eval_suites.statistics import bootstrap_mean
from mmzoo.ops.residual_vq import code_counts, usage_of_counts


def make_metrics(rows: Sequence[SampleRow], sides: SideFiles, settings: Settings, networks: Networks) -> list[Metric]:
    """Every metric of the suite, measured or with the reason why not."""
    kinds = per_image_kinds(settings)
    metrics = [
        _per_image(rows, name, level, kind, networks.absent.get(name))
        for name, kind in kinds.items()
        for level in settings.levels
    ]
    counts = level_counts(sides, settings.codebook_size)
    groups = len({row.group for row in rows})
    return metrics + _rfid(rows, sides, settings, networks) + _codebooks(rows, counts, settings, groups)


def per_image_kinds(settings: Settings) -> dict[str, Kind]:
    """The means over images, by name without their level, in the order of the record."""
    chosen = tuple(name for name in CODECS if name in settings.codecs)
    return PER_IMAGE | codec_kinds(chosen)


def level_counts(sides: SideFiles, codebook_size: int) -> torch.Tensor:
    """How often each code of each level was used (L, K), over all images. ValueError: no image."""
    total: torch.Tensor | None = None
    for codes in sides.codes():
        found = code_counts(torch.from_numpy(codes.astype(np.int64)), codebook_size)
        total = found if total is None else total + found
    if total is None:
        raise ValueError("there are no codes to count")
    return total


def _per_image(rows: Sequence[SampleRow], name: str, level: int, kind: Kind, absent: str | None) -> Metric:
    full = f"{name}@{level}"
    if absent is not None:
        return Metric.absent(full, absent, unit=kind.unit, higher_is_better=kind.higher_is_better)
    mean = bootstrap_mean([row.values[full] for row in rows], [row.group for row in rows])
    return Metric.of(full, mean, unit=kind.unit, higher_is_better=kind.higher_is_better)


def _rfid(rows: Sequence[SampleRow], sides: SideFiles, settings: Settings, networks: Networks) -> list[Metric]:
    absent = networks.absent.get("rfid")
    if absent is None and len(rows) < 2:
        absent = "it needs two images"
    if absent is not None:
        return [Metric.absent(f"rfid@{level}", absent, higher_is_better=False) for level in settings.levels]
    images, groups = sides.feature_sums(0), len({row.group for row in rows})
    return [
        _whole(f"rfid@{level}", frechet_distance(images, sides.feature_sums(level)), RFID, len(rows), groups)
        for level in settings.levels
    ]


def _codebooks(rows: Sequence[SampleRow], counts: torch.Tensor, settings: Settings, groups: int) -> list[Metric]:
    positions = int(counts[0].sum())
    pixels = sum(row.more["px"][0] * row.more["px"][1] for row in rows)
    bits = np.cumsum(code_entropy(counts.numpy())) * positions / pixels
    entropy = [
        _whole(f"entropy_bpp@{level}", float(bits[level - 1]), ENTROPY, positions, groups) for level in settings.levels
    ]
    share, perplexity = usage_of_counts(counts)
    named = (("codebook_usage", share, USAGE), ("codebook_perplexity", perplexity, PERPLEXITY))
    return entropy + [
        _whole(f"{name}@{level}", float(value), kind, positions, groups)
        for name, values, kind in named
        for level, value in enumerate(values, start=1)
    ]


def _whole(name: str, value: float, kind: Kind, n_values: int, n_groups: int) -> Metric:
    """A number of the whole set, which has no interval."""
    return Metric(name, value, kind.unit, kind.higher_is_better, n_values=n_values, n_groups=n_groups)
