"""Level dropout: in training some images are decoded from fewer levels, so that every prefix of codes decodes well.

Source: Zeghidour et al., SoundStream (arXiv 2107.03312), section III-C, there called quantizer dropout.
"""

from __future__ import annotations

import torch
from torch import Tensor


def read_out_depths(
    images: int, levels: int, share: float, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """How many levels are summed for each image, (images,) int64 in 1 .. levels.

    A `share` of the images, drawn one by one, gets a depth drawn evenly from 1 .. levels; the others get all.
    """
    drops = torch.rand(images, generator=generator) < share
    depths = torch.randint(1, levels + 1, (images,), generator=generator)
    return torch.where(drops, depths, levels).to(device)
