"""What a bench found: one line on stdout a comparison, and `runs/bench/NAME.json` with all repeats and the machine."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mmzoo.training.run_record import git_commit, hardware, versions
from tests.benchmarks.timing import Figures

SCHEMA = 1
PEER_PACKAGES = (
    "webdataset",
    "vector-quantize-pytorch",
    "pillow",
    "scipy",
    "accelerate",
    "litdata",
    "mosaicml-streaming",
    "rasterio",
    "torchgeo",
    "terratorch",
    "megatron-energon",
)
CPU_LIST = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Comparison:
    """Ours against one peer. `at_least`: the bar for the ratio peer / ours; `at_most`: the bar for ours, in `unit`."""

    case: str
    peer_name: str
    ours: Figures
    peer: Figures
    unit: str = "s"
    at_least: float | None = None
    at_most: float | None = None

    @property
    def ratio(self) -> float:
        """Peer / ours, of the least figures: how many times better ours is."""
        return self.peer.least / self.ours.least

    @property
    def median_ratio(self) -> float:
        return self.peer.middle / self.ours.middle

    @property
    def met(self) -> bool | None:
        """Whether the bars hold for the least figures; None without a bar."""
        if self.at_least is None and self.at_most is None:
            return None
        enough = self.at_least is None or self.ratio >= self.at_least
        return enough and (self.at_most is None or self.ours.least <= self.at_most)

    def line(self) -> str:
        """One line for a reader."""
        figures = f"{_short(self.ours.least)} {self.unit}, {self.peer_name} {_short(self.peer.least)} {self.unit}"
        ratios = f"{self.ratio:.1f}x (medians {self.median_ratio:.1f}x)"
        bars = [] if self.at_least is None else [f">= {self.at_least:g}x"]
        bars += [] if self.at_most is None else [f"<= {self.at_most:g} {self.unit}"]
        verdict = f"; bar {' and '.join(bars)}: {'met' if self.met else 'MISSED'}" if bars else ""
        return f"{self.case}: {figures}: {ratios}{verdict}"

    def as_json(self) -> dict[str, Any]:
        """Plain values, every repeat included."""
        return {
            "case": self.case,
            "peer": self.peer_name,
            "unit": self.unit,
            "ratio": self.ratio,
            "median_ratio": self.median_ratio,
            "bar": {"at_least": self.at_least, "at_most": self.at_most, "met": self.met},
            **{
                side: {"least": figures.least, "median": figures.middle, "all": list(figures.values)}
                for side, figures in (("ours", self.ours), ("theirs", self.peer))
            },
        }


@dataclass(frozen=True)
class NotMeasured:
    """A comparison whose peer is not installed."""

    case: str
    peer_name: str
    reason: str

    def line(self) -> str:
        return f"{self.case}: {self.peer_name}: {self.reason}"

    def as_json(self) -> dict[str, Any]:
        return {"case": self.case, "peer": self.peer_name, "not_measured": self.reason}


def write(name: str, comparisons: Sequence[Comparison | NotMeasured], folder: Path) -> Path:
    """Writes `folder`/NAME.json and returns its path."""
    record = {
        "schema": SCHEMA,
        "bench": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**hardware(), "processor": _processor(), "load_average": os.getloadavg()},
        "versions": {**versions(), **_peer_versions()},
        "git_commit": git_commit(),
        "comparisons": [comparison.as_json() for comparison in comparisons],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def _peer_versions() -> dict[str, str]:
    """Of the peers that are installed."""
    found = {}
    for package in PEER_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    """The processor's own name where Linux tells it; the platform knows the architecture only."""
    lines = CPU_LIST.read_text().splitlines() if CPU_LIST.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
