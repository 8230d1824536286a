"""Whether the rows of a log that is gone on with hold all that the figures will need, before hours are measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval_suites.reconstruction.figures import per_image_kinds
from eval_suites.reconstruction.networks import Networks
from eval_suites.reconstruction.settings import Settings
from eval_suites.sample_log import SampleRow
from mmzoo.errors import InputError


def check_rows(path: Path, rows: Sequence[SampleRow], settings: Settings, networks: Networks) -> None:
    """InputError names the log at `path`, the row and what it lacks."""
    kinds = [name for name in per_image_kinds(settings) if name not in networks.absent]
    names = {f"{name}@{level}" for name in kinds for level in settings.levels}
    seen = {str(level) for level in (0, *settings.levels)} if networks.inception else set[str]()
    for row in rows:
        if lacking := sorted(names - row.values.keys()):
            raise _damaged(path, row, f"has no {lacking[0]}")
        if strange := sorted(row.values.keys() - names):
            raise _damaged(path, row, f"has {strange[0]}, which these settings do not measure")
        if fault := _fault(row.more, settings.levels[-1], seen):
            raise _damaged(path, row, fault)


def _fault(more: Any, levels: int, seen: set[str]) -> str | None:
    """What is wrong with the sizes and check sums of a row, in words."""
    codes, sums = more.get("codes"), more.get("features_crc32")
    if not isinstance(codes, dict) or not _sizes(codes.get("shape"), 3) or type(codes.get("crc32")) is not int:
        return "has no codes of a shape (h, w, L) with their crc32"
    if codes["shape"][2] < levels:
        return f"has codes of {codes['shape'][2]} levels, {levels} are needed"
    if not _sizes(more.get("px"), 2):
        return "has no size px (H, W)"
    if not isinstance(sums, dict) or not all(type(sums.get(level)) is int for level in seen):
        return "has no features_crc32 for each output"
    return None


def _sizes(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(type(one) is int and one > 0 for one in value)


def _damaged(path: Path, row: SampleRow, fault: str) -> InputError:
    return InputError(f"{path}: the row {row.key!r} {fault}. Remove the folder and measure again.")
