"""Training on codes that `mmzoo encode` wrote: the loader transform."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_engine.code_fields import CODES
from mmzoo.errors import InputError
from tokenizers_visual.evotok.crops import ImageSample


@dataclass(frozen=True)
class StoredCodes:
    """Loader transform for code shards: {"codes": int64 (h, w, levels)}, the first `levels` (None: all) kept."""

    levels: int | None = None

    def __call__(self, sample: ImageSample, random: np.random.Generator) -> dict[str, Tensor]:
        del random
        if CODES not in sample.fields:
            raise InputError("StoredCodes: these shards hold no codes. Make them with: mmzoo encode")
        codes = sample.fields[CODES]
        levels = codes.shape[-1] if self.levels is None else self.levels
        if not 1 <= levels <= codes.shape[-1]:
            raise InputError(f"StoredCodes: levels is {levels}; the shards hold {codes.shape[-1]}")
        return {CODES: torch.from_numpy(codes[..., :levels].astype(np.int64))}
