"""The typed field `codes`: the codes of one image, stored as the member `<key>.codes.npy` of a shard.

It is numpy's own format, read and written without pickle. `codes` in index.json says what every one must be; anything
else is a broken sample. int16 holds codebooks of up to 32,768 codes, int32 the larger ones.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mmzoo.errors import InputError

CODES = "codes"  #: the field's name in an index and in a Sample
CODES_EXTENSION = "codes.npy"
SHORT_CODES = 2**15


@dataclass(frozen=True, slots=True)
class CodesField:
    """What each sample's codes are: numpy's name of the dtype, the shape (h, w, L), codes below codebook_size."""

    dtype: str
    shape: tuple[int, ...]
    codebook_size: int

    @classmethod
    def of(cls, shape: tuple[int, ...], codebook_size: int) -> CodesField:
        """The field in the smallest dtype that holds the codebook."""
        return cls("int16" if codebook_size <= SHORT_CODES else "int32", tuple(shape), codebook_size)

    @classmethod
    def in_index(cls, content: Mapping[str, Any]) -> CodesField:
        """The field as index.json describes it. InputError: an index that lists codes and does not describe them."""
        try:
            entry = content[CODES]
            return cls(str(entry["dtype"]), tuple(int(side) for side in entry["shape"]), int(entry["codebook_size"]))
        except (LookupError, TypeError, ValueError) as fault:
            raise InputError(f"the index does not describe its codes ({fault}). Encode again: mmzoo encode") from None

    def as_json(self) -> dict[str, Any]:
        """The entry `codes` of index.json."""
        return asdict(self)

    def pack(self, codes: np.ndarray) -> bytes:
        """The bytes of a member. ValueError (ours): another shape, or codes that are none."""
        self._check(codes.shape, int(codes.min(initial=0)), int(codes.max(initial=0)))
        stream = io.BytesIO()
        np.lib.format.write_array(stream, np.ascontiguousarray(codes, np.dtype(self.dtype)), allow_pickle=False)
        return stream.getvalue()

    def unpack(self, data: bytes) -> np.ndarray:
        """The codes of a member, shape and dtype as described. InputError, one line without the place: damaged."""
        stream = io.BytesIO(data)
        try:
            codes = np.lib.format.read_array(stream, allow_pickle=False)
            if codes.dtype != np.dtype(self.dtype):
                raise ValueError(f"{codes.dtype} where the index says {self.dtype}")
            self._check(codes.shape, int(codes.min(initial=0)), int(codes.max(initial=0)))
            if stream.read(1):
                raise ValueError("bytes behind the array")
        except (ValueError, OSError, EOFError, SyntaxError, TypeError, MemoryError) as fault:
            raise InputError(f"damaged codes: {' '.join(str(fault).split()) or type(fault).__name__}") from None
        return codes

    def _check(self, shape: tuple[int, ...], low: int, high: int) -> None:
        if tuple(shape) != self.shape:
            raise ValueError(f"shape {tuple(shape)} where {self.shape} is due")
        if low < 0 or high >= self.codebook_size:
            raise ValueError(f"codes {low}..{high} of a codebook of {self.codebook_size}")
