"""Mixtures as tables for a reader: what an epoch will hold, and what a run consumed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_engine.ledger import Ledger
from data_engine.mixed_source import MixedIndex
from data_engine.over_long import table as over_long_table
from data_engine.pack_ledger import PackLedger
from data_engine.packing import fill
from data_engine.skips import Skips, kept


def planned_table(index: MixedIndex, ledger: Ledger) -> str:
    """An epoch before it begins: rows, samples and share of each source; over-long samples; the fill of the packs."""
    shares = index.shares()
    total = sum(share.count for share in shares)
    rows = [("source", "rows", "samples", "times", "share")]
    for share in shares:
        drawn = f"{share.laps:.4g}"
        rows.append((share.name, str(share.rows), str(share.count), drawn, f"{share.count / total:.2%}"))
    rows.append(("all", str(sum(share.rows for share in shares)), str(total), "", "100.00%"))
    text = _aligned(rows)
    if isinstance(ledger, PackLedger):
        packing = ledger.packing
        packs = [ledger.rows_at(position)[1] for position in range(len(ledger))]
        full = fill(ledger.plan.total[ledger.inner.epoch_rows(0)], packs, packing.capacity)
        text += over_long_table(ledger.plan, index.all_rows("train"), index.starts, index.names, packing.capacity)
        text += f"{len(packs)} packs of {packing.capacity} tokens in epoch 0, {full:.2%} filled\n"
    return text


def consumed_counts(index: MixedIndex, ledger: Ledger, start: int, stop: int, skips: Skips = ()) -> dict[str, int]:
    """Samples of each source at the positions start, ..., stop - 1 that are not skipped."""
    counts = dict.fromkeys(index.names, 0)
    for first, last in kept(start, stop, skips):
        rows = [row for position in range(first, last) for row in ledger.rows_at(position)[1]]
        for name, count in index.consumed(np.asarray(rows, np.int64)).items():
            counts[name] += count
    return counts


def consumed_table(counts: dict[str, int]) -> str:
    """What was consumed, one line a source."""
    total = sum(counts.values())
    rows = [("source", "consumed", "share")]
    rows += [(name, str(count), f"{count / max(1, total):.2%}") for name, count in counts.items()]
    return _aligned([*rows, ("all", str(total), "100.00%")])


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)
