"""The samples of a step as one PNG: each as the run's transform makes it, not as it lies in the shard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from PIL import Image, ImageDraw

from data_engine.ledger import sample_generator
from data_engine.mixed_source import MixedReader
from data_engine.reader import ShardReader
from data_engine.sample_source import SampleReader
from mmzoo.durable_files import refused_writes_named, replacing
from mmzoo.errors import InputError

if TYPE_CHECKING:
    from mmzoo.training.data_module import ShardData
    from mmzoo.training.data_why import ConsumedSample

TILE, CAPTION, COLUMNS = 128, 14, 8  # px, px, tiles
STRETCH = (2, 98)  #: percentiles that become black and white


def data_of_config(config: Path) -> ShardData:
    """The data module that a run's config.yaml describes. InputError when the file is gone."""
    from jsonargparse import ArgumentParser

    from mmzoo.training.data_module import ShardData

    if not config.is_file():
        raise InputError(f"{config} is missing, so nobody knows the transform. Leave out --png")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ShardData, "data")
    whole = yaml.safe_load(config.read_text(encoding="utf-8"))
    return parser.instantiate(parser.parse_object({"data": whole["data"]})).data


def to_picture(values: dict[str, Any]) -> np.ndarray | None:
    """The first image among a transform's results as uint8 (H, W, 3); None when there is none.

    (3, H, W) and (H, W, 3), grey as 1 channel; [-1, 1] and [0, 1] are scaled to bytes, other ranges are stretched.
    """
    for value in values.values():
        shape = tuple(np.shape(value))
        if len(shape) != 3 or (shape[0] not in (1, 3) and shape[2] not in (1, 3)):
            continue
        pixels = np.asarray(value)
        pixels = pixels.transpose(1, 2, 0) if shape[0] in (1, 3) else pixels
        return np.repeat(_as_bytes(pixels), 3, axis=2) if pixels.shape[2] == 1 else _as_bytes(pixels)
    return None


def _as_bytes(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    pixels = pixels.astype(np.float64)
    low, high = float(pixels.min()), float(pixels.max())
    if low >= -1 and high <= 1:
        low, high = (0.0, 1.0) if low >= 0 else (-1.0, 1.0)
    return ((pixels - low) / max(high - low, 1e-12) * 255).round().clip(0, 255).astype(np.uint8)


def stretched(bands: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Bands of any unit, (C, H, W), as uint8 (H, W, 3): the first three, or the first as grey.

    Each from its 2nd to its 98th percentile over the `valid` pixels (H, W), as maps are drawn; the others are black.
    """
    shown = bands[: 3 if len(bands) >= 3 else 1].astype(np.float64)
    picture = np.zeros((*valid.shape, 3), np.uint8)
    if valid.any():
        low, high = np.percentile(shown[:, valid], STRETCH, axis=1)[:, :, None, None]
        picture[:] = ((shown - low) / np.maximum(high - low, 1e-12) * 255).round().clip(0, 255).transpose(1, 2, 0)
    picture[~valid] = 0
    return picture


def _picture_of(values: dict[str, Any]) -> np.ndarray | None:
    if "valid" in values:
        return stretched(np.asarray(values["image"]), np.asarray(values["valid"]))
    return to_picture(values)


def write_step_picture(
    file: Path, config: Path, reader: SampleReader, seed: int, samples: Sequence[ConsumedSample]
) -> None:
    """Writes the sheet. A transform that makes no image gives the decoded one. InputError: it cannot be written."""
    data = data_of_config(config)
    if isinstance(reader, MixedReader):
        reader = MixedReader(reader.index, data.decode_rules())
    elif isinstance(reader, ShardReader):
        reader = ShardReader(reader.index, data.decode_rules())
    tiles = []
    for sample in samples:
        decoded = reader.sample(sample.row)
        values = data.transform(decoded, sample_generator(seed, sample.epoch, sample.position, sample.member))
        picture = _picture_of(values)
        tiles.append(decoded.fields["image"] if picture is None else picture)
    sheet = _sheet(tiles, [f"{sample.position} {sample.key}" for sample in samples])
    with refused_writes_named(file), replacing(file) as temporary:
        sheet.save(temporary, "PNG")


def _sheet(tiles: Sequence[np.ndarray], captions: Sequence[str]) -> Image.Image:
    rows = -(-len(tiles) // COLUMNS)
    sheet = Image.new("RGB", (min(COLUMNS, len(tiles)) * TILE, rows * (TILE + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        left, top = number % COLUMNS * TILE, number // COLUMNS * (TILE + CAPTION)
        picture = Image.fromarray(tile)
        scale = (TILE - 2) / max(picture.size)
        # Hard pixels when enlarged: a smoothed one would hide what the model saw.
        how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        sheet.paste(picture.resize(size, how), (left, top))
        draw.text((left, top + TILE), caption[: TILE // 6], fill="black")
    return sheet
