"""How long each sample is in tokens, read from the index: the callables that `packing.lengths` may name.

Such a callable gets an opened ShardIndex and returns int (N, 2): text and visual tokens of each row. A family brings
its own; `estimated` needs nothing but what every index of images has.
"""

from __future__ import annotations

from importlib import import_module

import numpy as np

from data_engine.index import ShardIndex
from mmzoo.errors import InputError

BYTES_A_TOKEN = 4  # of stored text, roughly
PIXELS_A_TOKEN = 28 * 28  # one visual token of the Qwen2-VL line


def estimated(index: ShardIndex) -> np.ndarray:
    """Text: bytes of the json / 4. Visual: 28 px squares of the image, at least one. Both rounded up."""
    text = -(-index.column("size")[:, index.fields.index("json")].astype(np.int64) // BYTES_A_TOKEN)
    visual = np.zeros(index.count, np.int64)
    if "width" in index.content["columns"]:
        pixels = index.column("width").astype(np.int64) * index.column("height")
        visual = -(-pixels // PIXELS_A_TOKEN)
    return np.stack([text, visual], axis=1)


def measured(index: ShardIndex, function: str) -> np.ndarray:
    """int64 (N, 2) from the callable "module:name". InputError: there is none, or it returns something else."""
    module, _, name = function.partition(":")
    try:
        found = getattr(import_module(module), name)(index)
    except (ImportError, ValueError) as fault:
        raise InputError(f"packing.lengths {function!r} cannot be used: {fault}. Write MODULE:FUNCTION") from None
    except AttributeError as fault:
        if name and hasattr(import_module(module), name):
            raise
        raise InputError(f"packing.lengths: no {name!r} in {module} ({fault}). Write MODULE:FUNCTION") from None
    lengths = np.asarray(found)
    if lengths.shape != (index.count, 2) or lengths.dtype.kind not in "iu" or (lengths.size and lengths.min() < 0):
        raise InputError(
            f"packing.lengths {function!r} returned {lengths.dtype} {lengths.shape} for {index.folder}; "
            f"wanted are counts of tokens, integers ({index.count}, 2): text, visual"
        )
    return lengths.astype(np.int64)
