"""A context in which float32 matrix products really are float32: no autocast, no TF32, no bfloat16 passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_EXACT = ("ieee", "none")  # "none": nothing was ever asked for, and the default is exact


@contextmanager
def exact_float32(device_type: str) -> Iterator[None]:
    """Switch autocast off on `device_type` ("cpu", "cuda", ...) and reduced-precision float32 products everywhere.

    The precision setting is global to the process; it is put back on leaving, and left untouched where it was exact.
    """
    changed = []
    try:
        cpu = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
        for backend in (torch.backends.cuda.matmul, cpu):
            if backend.fp32_precision not in _EXACT:
                changed.append((backend, backend.fp32_precision))
                backend.fp32_precision = "ieee"
        if torch.amp.is_autocast_available(device_type):
            with torch.autocast(device_type=device_type, enabled=False):
                yield
        else:
            yield
    finally:
        for backend, precision in changed:
            backend.fp32_precision = precision
