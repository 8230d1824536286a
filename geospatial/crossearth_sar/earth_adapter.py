"""Earth-Adapter: small trained corrections between the blocks of a frozen backbone (spec section 1.7).

After block i the patch tokens F become F + a_i * dF. In the frequency blocks dF mixes three bottleneck MLPs, of the
tokens, of their low and of their high spatial frequencies, by a softmax for each token; elsewhere it is the first one.
Written from the formulas, for any grid, width and number of blocks.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from mmzoo.errors import InputError, suggestion


@dataclass(frozen=True)
class EarthAdapterSettings:
    """width: of the bottlenecks (d). frequency_blocks: how many of the first blocks split frequencies. low_share: side
    of the low-pass square relative to the shorter side of the grid (rho). scale: what each a_i starts from.
    start_at_zero: the last layers start at 0, so that the backbone's features are unchanged at first; the published
    adapter does not.
    """

    width: int = 64
    frequency_blocks: int = 6
    low_share: float = 0.3
    scale: float = 0.1
    start_at_zero: bool = False

    def __post_init__(self) -> None:
        if self.width < 1 or self.frequency_blocks < 0:
            raise InputError(
                f"earth_adapter: width {self.width} and frequency_blocks {self.frequency_blocks} are wrong"
            )
        if not 0 < self.low_share <= 1:
            raise InputError(f"earth_adapter: low_share is {self.low_share}; it must lie in (0, 1]")

    @classmethod
    def of(cls, given: dict[str, Any]) -> EarthAdapterSettings:
        """From a config's dict. InputError: unknown names."""
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise InputError(f"earth_adapter has no setting {name!r}.{suggestion(name, known)}")
        return cls(**given)

    def as_dict(self) -> dict[str, Any]:
        """For a config."""
        return asdict(self)


def low_pass_mask(height: int, width: int, low_share: float) -> Tensor:
    """Which of the (H, W // 2 + 1) frequencies of `rfft2` are low, float32.

    The published mask is a centred square, [-r, r) on both axes, r = floor(min(H, W) * rho / 2). -r has no partner at
    +r, so a map filtered with it would be complex; its real part is what a mask gives that holds half of each of the
    two, and that is this one. r is at least 1 here: on a tiny grid the mean alone is low.
    """
    radius = max(1, math.floor(min(height, width) * low_share / 2))

    def within(count: int) -> Tensor:
        place = torch.arange(count)
        frequency = torch.where(place < (count + 1) // 2, place, place - count)  # fftfreq; -count / 2 for even counts
        return (frequency >= -radius) & (frequency < radius)

    square = within(height)[:, None] & within(width)[None, :]  # (H, W), unshifted
    mirrored = square.flip(0, 1).roll((1, 1), (0, 1))  # at (-u, -v)
    return ((square.float() + mirrored.float()) / 2)[:, : width // 2 + 1]


def split_frequencies(features: Tensor, low_share: float) -> tuple[Tensor, Tensor]:
    """Low and high spatial frequencies of maps (B, C, H, W), float32; their sum is the input."""
    height, width = features.shape[-2:]
    whole = features.float()
    mask = low_pass_mask(height, width, low_share).to(whole.device)
    low = torch.fft.irfft2(torch.fft.rfft2(whole) * mask, s=(height, width))
    return low, whole - low


def split_frequencies_reference(features: Tensor, low_share: float) -> tuple[Tensor, Tensor]:
    """The published way: a shifted complex spectrum, cut in two by the square, both parts transformed back."""
    height, width = features.shape[-2:]
    radius = max(1, math.floor(min(height, width) * low_share / 2))
    mask = torch.zeros(height, width)
    rows, columns = height // 2, width // 2
    mask[max(0, rows - radius) : rows + radius, max(0, columns - radius) : columns + radius] = 1
    spectrum = torch.fft.fftshift(torch.fft.fft2(features.float()), dim=(-2, -1))
    parts = (torch.fft.ifftshift(spectrum * part, dim=(-2, -1)) for part in (mask, 1 - mask))
    low, high = (torch.fft.ifft2(part).real for part in parts)
    return low, high


class Bottleneck(nn.Sequential):
    """C -> d -> C with a ReLU between."""

    def __init__(self, channels: int, settings: EarthAdapterSettings) -> None:
        super().__init__(nn.Linear(channels, settings.width), nn.ReLU(), nn.Linear(settings.width, channels))


class BlockAdapter(nn.Module):
    """The correction after one block. `frequency`: whether it splits frequencies."""

    def __init__(self, channels: int, settings: EarthAdapterSettings, frequency: bool) -> None:
        super().__init__()
        self.low_share = settings.low_share
        self.scale = nn.Parameter(torch.tensor(settings.scale))
        self.spatial = Bottleneck(channels, settings)
        self.low = Bottleneck(channels, settings) if frequency else None
        self.high = Bottleneck(channels, settings) if frequency else None
        self.router = nn.Linear(channels, 3) if frequency else None

    def correction(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """dF of patch tokens (B, H * W, C), same shape."""
        spatial = self.spatial(tokens)
        if self.low is None or self.high is None or self.router is None:
            return spatial
        batch, _, channels = tokens.shape
        maps = tokens.transpose(1, 2).reshape(batch, channels, *grid)
        low, high = (
            part.flatten(2).transpose(1, 2).to(tokens.dtype) for part in split_frequencies(maps, self.low_share)
        )
        share = self.router(tokens).softmax(-1)
        return share[..., 0:1] * spatial + share[..., 1:2] * self.low(low) + share[..., 2:3] * self.high(high)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens (B, P + H * W, C) with the last H * W corrected; the first P (the class token) stay as they are."""
        patches = grid[0] * grid[1]
        first, rest = tokens[:, :-patches], tokens[:, -patches:]
        return torch.cat([first, rest + self.scale * self.correction(rest, grid)], dim=1)


class EarthAdapter(nn.Module):
    """One `BlockAdapter` a block of a backbone with `depth` blocks of `channels` channels."""

    def __init__(self, channels: int, depth: int, settings: EarthAdapterSettings) -> None:
        super().__init__()
        self.settings = settings
        self.blocks = nn.ModuleList(
            BlockAdapter(channels, settings, frequency=block < settings.frequency_blocks) for block in range(depth)
        )

    def reset_parameters(self) -> None:
        """Starting values as in the published adapter (those of the layers), or zeros behind the bottlenecks."""
        for part in self.modules():
            if isinstance(part, nn.Linear):
                part.reset_parameters()
            if isinstance(part, BlockAdapter):
                nn.init.constant_(part.scale, self.settings.scale)
        for part in self.modules():
            if isinstance(part, Bottleneck) and self.settings.start_at_zero:
                last = part[-1]
                assert isinstance(last, nn.Linear)
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)

    def forward(self, tokens: Tensor, block: int, grid: tuple[int, int]) -> Tensor:
        """The tokens (B, P + H * W, C) that leave block number `block`, corrected."""
        return self.blocks[block](tokens, grid)
