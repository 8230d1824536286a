"""A tokenizer whose every error is known: a patch of 4 x 4 px is one byte, in 8 levels of one bit."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn


class Bits(nn.Module):
    """Codes the red byte of each patch's first pixel: a prefix of the levels is a coarser byte. Grey images only."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Dropout()
        self.config = SimpleNamespace(codebook_size=2, pixel_levels=8, image_size=16)
        self.encoded = 0  # images
        self.stop_before: int | None = None  #: raises KeyboardInterrupt instead of encoding the image of that number

    def encode(self, images: Tensor):
        assert not self.inner.training
        assert torch.is_inference_mode_enabled()
        if self.stop_before is not None and self.encoded + len(images) > self.stop_before:
            raise KeyboardInterrupt
        self.encoded += len(images)
        levels = images[:, 0, ::4, ::4].add(1).mul(127.5).round().long()
        return torch.stack([levels >> shift & 1 for shift in range(7, -1, -1)], -1), None

    def decode_pixels(self, codes: Tensor) -> Tensor:
        levels = sum(codes[..., i] << (7 - i) for i in range(codes.shape[-1]))
        images = levels.float().div(127.5).sub(1)
        return images[:, None].repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1)
