"""Rate and distortion at 128 px of the study: prefixes of the levels beside JPEG and WebP, over all held-out images.

Every method has the bits of the codes to spend on each image; a file that cannot be as small is counted with what it
takes (column `over`). The samples are those of `mmzoo eval run reconstruction`, one run a fold.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval_suites.studies.evotok_small_results import Figure, figure

SIDE = 128
LEVELS = (1, 2, 4)
#: The pure pictures of the codecs come last: without headers, which a code does not have either.
CODECS = ("jpeg", "webp", "jpeg_bare", "webp_bare")


def rate_rows(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """One row an image, method and number of levels: path, fold, method, levels, bpp, psnr, ssim, over (0 or 1)."""
    return [row for fold, folder in enumerate(folders) for row in _of_fold(folder / "samples.jsonl", fold)]


def _of_fold(file: Path, fold: int) -> Iterator[dict[str, Any]]:
    for line in file.read_text(encoding="utf-8").splitlines()[1:]:  # behind the stamp
        sample = json.loads(line)
        for levels in LEVELS:
            for method in ("codes", *CODECS):
                prefix = "" if method == "codes" else f"{method}_"
                values = {name: sample["values"].get(f"{prefix}{name}@{levels}") for name in ("bpp", "psnr", "ssim")}
                over = sample["values"].get(f"{prefix}over_budget@{levels}", 0.0)
                yield {"path": sample["key"], "fold": fold, "method": method, "levels": levels, **values, "over": over}


def rate_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: means over all images with 95 % intervals by image."""
    lines = [
        f"| bits of | method, {SIDE} px | bits/px | PSNR, dB | SSIM | files over the budget |",
        "|---|---|---|---|---|---|",
    ]
    for levels in LEVELS:
        for method in ("codes", *CODECS):
            own = [row for row in rows if (row["levels"], row["method"]) == (levels, method)]
            bpp, psnr, ssim, over = (figure(own, name) for name in ("bpp", "psnr", "ssim", "over"))
            cells = (f"{bpp.interval.mean:.3f}", _range(psnr, 2), _range(ssim, 3), f"{over.interval.mean:.0%}")
            lines.append(f"| {levels} | {method.replace('_bare', ', headers not counted')} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _range(found: Figure, digits: int) -> str:
    interval = found.interval
    return f"{interval.mean:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
