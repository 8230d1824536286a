"""What EvoTok's demo measures: held-out photographs, and the same model in another process."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from data_engine.index import ShardIndex
from data_engine.loader import LoaderSettings, make_loader
from data_engine.reader import ShardReader
from data_engine.records import key_of
from mmzoo.demo import Demo
from mmzoo.errors import InputError
from mmzoo.hub.fresh_process import differing_outputs
from mmzoo.hub.load import from_pretrained
from tokenizers_visual.evotok.crops import TrainingCrop
from tokenizers_visual.evotok.modeling import EvoTokModel

#: Held-out crops that a validation and the final measurement look at, spread evenly over the photographs.
CROPS = 80
MEASURED_PHOTOGRAPHS = 64


@dataclass(frozen=True)
class HeldOut:
    """What was measured on photographs that no training step saw. `trivial`: the same for one colour a token."""

    crops: dict[str, Tensor]  #: first crop (3, S, S) in [-1, 1] of each photograph, by key
    measurement: Any  #: eval_suites.reconstruction.measure.Measurement
    summary: dict[int, dict[str, Any]]
    trivial: dict[str, Any]
    photographs: int


@dataclass(frozen=True)
class Outcome:
    """Everything that the report is written from."""

    demo: Demo
    model: EvoTokModel
    index: ShardIndex
    held_out: HeldOut
    regions: dict[str, tuple[Tensor, Tensor]]  #: key -> (region, the same coded tile by tile), (3, H, W) in [-1, 1]
    reloaded_outputs: list[str]  #: outputs that a fresh process gave bit for bit


class MeanColourTokens:
    """The tokenizer to beat: a token is the mean colour of its patch, three bytes; decoded by bicubic enlargement."""

    codebook_size = 256

    def __init__(self, patch: int) -> None:
        self.patch = patch

    def encode(self, images: Tensor) -> tuple[Tensor, None]:
        """(B, 3, H, W) in [-1, 1] -> codes (B, h, w, 3), one "level" a colour channel."""
        means = F.avg_pool2d(images, self.patch)
        return means.add(1).mul(127.5).round().long().permute(0, 2, 3, 1), None

    def decode_pixels(self, codes: Tensor) -> Tensor:
        """codes (B, h, w, 3) -> (B, 3, H, W)."""
        colours = codes.permute(0, 3, 1, 2).float() / 127.5 - 1
        return F.interpolate(colours, scale_factor=self.patch, mode="bicubic", align_corners=False)


def examine(demo: Demo, index: ShardIndex, checkpoint: Path) -> Outcome:
    """Measures the tokenizer on held-out photographs, and proves that its folder gives the same model elsewhere."""
    start = time.perf_counter()
    model = from_pretrained(checkpoint)
    if not isinstance(model, EvoTokModel):
        raise InputError(f"{checkpoint} holds no EvoTok. Run the demo again.")
    held_out = measure_held_out(demo, model, index)
    regions = coded_regions(model, index)
    demo.seconds["measuring"] = time.perf_counter() - start
    start = time.perf_counter()
    batch = {"pixel_values": torch.stack(list(held_out.crops.values()))}
    sys.stderr.write(f"\nreloading {checkpoint}/model in another process, elsewhere, without network\n")
    differing = differing_outputs(model, (checkpoint / "model").resolve(), batch)
    demo.seconds["reloading"] = time.perf_counter() - start
    if differing:
        raise RuntimeError(f"the reloaded model differs in {', '.join(differing)}: the folder is not the model")
    with torch.inference_mode():
        outputs = [name for name, value in model(**batch).items() if isinstance(value, Tensor)]
    sys.stderr.write(f"bit-equal on {len(held_out.crops)} held-out crops: {', '.join(outputs)}\n")
    return Outcome(demo, model, index, held_out, regions, outputs)


def held_out_batches(model: EvoTokModel, index: ShardIndex) -> Iterator[tuple[list[str], Tensor]]:
    """(keys of the photographs, crops (B, 3, S, S)) of the validation split: other positions than in training."""
    photographs = len(index.split_rows("val"))
    settings = LoaderSettings(
        index=index.folder,
        split="val",
        global_batch=CROPS // 2,
        shuffle=False,
        passes=max(1, round(CROPS / photographs)),
        cache_mb=64,
    )
    crop = TrainingCrop(size=model.config.image_size, native_crop=True, flip=0.0)
    seen: dict[str, None] = {}
    for batch in make_loader(settings, crop):
        keys = [key_of(name) for name in batch["sample_ids"]]
        seen.update(dict.fromkeys(keys))
        kept = [number for number, key in enumerate(keys) if key in list(seen)[:MEASURED_PHOTOGRAPHS]]
        if not kept:
            return
        yield [keys[number] for number in kept], batch["image"][kept]


def measure_held_out(demo: Demo, model: EvoTokModel, index: ShardIndex) -> HeldOut:
    """PSNR, SSIM and code usage on held-out crops, level by level; the same for one colour a token."""
    suite = demo.suite()
    first: dict[str, Tensor] = {}
    batches = list(held_out_batches(model, index))
    for keys, images in batches:
        for key, image in zip(keys, images, strict=True):
            first.setdefault(key, image)
    levels = level_steps(model.config.pixel_levels)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the pixel decoder was trained on")  # prefixes are the subject
        measurement = suite.measure(model, batches, levels, codebook_size=model.config.codebook_size)
    plain = MeanColourTokens(model.config.patch_size)
    trivial = suite.measure(plain, batches, [3], codebook_size=plain.codebook_size)
    summary = suite.summarise(measurement.rows)
    return HeldOut(first, measurement, summary, suite.summarise(trivial.rows)[3], len(first))


def level_steps(levels: int) -> list[int]:
    """1, 2, 4, ... and the last."""
    return sorted({min(2**power, levels) for power in range(levels.bit_length() + 1)})


@torch.inference_mode()
def coded_regions(model: EvoTokModel, index: ShardIndex, count: int = 3, side: int = 256) -> dict[str, Any]:
    """The middle of `count` held-out photographs, up to `side` px square, beside itself coded tile by tile."""
    reader = ShardReader(index)
    tile = model.config.image_size
    regions = {}
    for row in index.split_rows("val"):
        pixels = torch.from_numpy(reader.sample(int(row)).fields["image"]).permute(2, 0, 1).float() / 127.5 - 1
        height, width = (min(side, extent) // tile * tile for extent in pixels.shape[1:])
        if min(height, width) < 2 * tile:
            continue
        top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
        region = pixels[:, top : top + height, left : left + width]
        regions[reader.key(int(row))] = (region, by_tiles(model, region, tile))
        if len(regions) == count:
            break
    return regions


def by_tiles(model: EvoTokModel, image: Tensor, tile: int) -> Tensor:
    """image (3, H, W), H and W multiples of `tile` px -> the same, each tile coded and decoded alone."""
    _, height, width = image.shape
    tiles = image.unfold(1, tile, tile).unfold(2, tile, tile).permute(1, 2, 0, 3, 4).reshape(-1, 3, tile, tile)
    codes, _ = model.encode(tiles)
    decoded = model.decode_pixels(codes[..., : model.config.pixel_levels])
    grid = decoded.reshape(height // tile, width // tile, 3, tile, tile)
    return grid.permute(2, 0, 3, 1, 4).reshape(3, height, width)


def results(outcome: Outcome) -> dict[str, Any]:
    """What was measured, as plain values: `results.json` beside the report."""
    held_out = outcome.held_out

    def plain(interval: Any) -> dict[str, Any]:
        names = ("mean", "low", "high", "level", "n_values", "n_groups")
        return {name: getattr(interval, name) for name in names}

    return {
        "held_out": {
            str(level): {name: plain(interval) for name, interval in measures.items()}
            for level, measures in held_out.summary.items()
        },
        "one_colour_a_token": {name: plain(interval) for name, interval in held_out.trivial.items()},
        "usage": [
            {"level": one.level, "share": one.share, "perplexity": one.perplexity} for one in held_out.measurement.usage
        ],
        "seconds": outcome.demo.seconds,
        "reloaded_bit_equal": outcome.reloaded_outputs,
    }
