"""`python -m tests.benchmarks [NAME ...]`: ours against its peers, interleaved, in one run. No figure fails a run.

What fails a run is a sanity check: contenders that disagree are not worth timing.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

#: Name of a bench = its module here, which has `compare() -> list[Comparison]`.
BENCHES = (
    "startup",
    "quantizer",
    "jpeg_reading",
    "code_reading",
    "evotok_step",
    "sar_descriptors",
    "experts",
    "crossearth_encoder",
    "confusion",
    "trainer",
    "packing",
    "scene_inference",
    "mixed_loader",
)
FOLDER = Path(__file__).parents[2] / "runs" / "bench"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measure ours against its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which (default: all): {', '.join(BENCHES)}")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="of torch, for all contenders (default 1, which other work on the machine disturbs least)",
    )
    arguments = parser.parse_args()
    names = arguments.names or BENCHES
    unknown = sorted(set(names) - set(BENCHES))
    if unknown:
        parser.error(f"unknown bench {unknown[0]!r}. Known: {', '.join(BENCHES)}")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler talks on stderr otherwise
    import torch

    from tests.benchmarks import record

    torch.set_num_threads(arguments.threads)
    for name in names:
        sys.stderr.write(f"measuring {name} ...\n")
        comparisons = import_module(f"tests.benchmarks.{name}").compare()
        for comparison in comparisons:
            print(f"{name}  {comparison.line()}", flush=True)
        sys.stderr.write(f"wrote {record.write(name, comparisons, FOLDER)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
