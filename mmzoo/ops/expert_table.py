"""Which way experts are run where: a static table, so that the same machine always computes the same bits.

CPU: the loop, whose worst figure against `grouped_mm` in `make bench BENCH=experts` is a draw (6 and 64 experts, 64 to
384 channels, float32) and which knows every dtype and size. CUDA: only bfloat16 from compute capability 9.0 on has a
fused kernel; elsewhere torch runs a loop of its own, which waits for the device once a product, ours once a layer
(torch's documentation and pytorch issue 161407; not measured here).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Method = Literal["auto", "loop", "grouped"]
METHODS: tuple[str, ...] = get_args(Method)
#: CUDA compute capability from which torch has a grouped kernel.
FUSED_FROM = (9, 0)
#: What the grouped product takes: these dtypes, and rows whose bytes are a multiple of this.
GROUPED_DTYPES, GROUPED_ALIGNMENT = (torch.bfloat16, torch.float16, torch.float32), 16


def choose_method(rows: Tensor, up: Tensor, wanted: Method = "auto") -> Literal["loop", "grouped"]:
    """How to run `rows` (R, C) through experts of `up` (n, H, C); `wanted` other than "auto" overrides the table.

    No rows are always looped over: there is nothing to launch. ValueError: an unknown method, or "grouped" for a dtype
    or sizes that torch has no grouped product of.
    """
    if wanted not in METHODS:
        raise ValueError(f"method is {wanted!r}; it must be one of {', '.join(METHODS)}")
    if wanted == "loop" or len(rows) == 0:
        return "loop"
    aligned = all(size * rows.dtype.itemsize % GROUPED_ALIGNMENT == 0 for size in up.shape[1:])
    possible = aligned and rows.dtype in GROUPED_DTYPES
    if wanted == "grouped":
        if not possible:
            raise ValueError(
                f"method 'grouped' needs float32, float16 or bfloat16 and sizes of whole {GROUPED_ALIGNMENT} bytes; "
                f"got {rows.dtype} and experts of {tuple(up.shape)}. Take 'auto' or 'loop'"
            )
        return "grouped"
    fused = rows.device.type == "cuda" and torch.cuda.get_device_capability(rows.device) >= FUSED_FROM
    return "grouped" if possible and fused and rows.dtype == torch.bfloat16 else "loop"
