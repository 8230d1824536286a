"""The samples of a step as one PNG: each as the run's transform makes it, not as it lies in the shard.

A sample without a picture is shown as its text. The samples of a pack stand side by side, and each pack begins a row.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from PIL import Image, ImageDraw, ImageFont

from data_engine.ledger import sample_generator
from data_engine.mixed_source import MixedReader
from data_engine.reader import ShardReader
from data_engine.records import Sample
from data_engine.sample_source import SampleReader
from mmzoo.durable_files import refused_writes_named, replacing
from mmzoo.errors import InputError

if TYPE_CHECKING:
    from mmzoo.training.data_module import ShardData
    from mmzoo.training.data_why import ConsumedSample

TILE, CAPTION, COLUMNS = 128, 14, 8  # px, px, tiles
LINE, LETTER = 11, 4.6  # px: of the text in a tile
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
        if sample.planned is not None:
            decoded = replace(decoded, meta={**decoded.meta, "planned": sample.planned})
        values = data.transform(decoded, sample_generator(seed, sample.epoch, sample.position, sample.member))
        picture = _picture_of(values)
        picture = decoded.fields.get("image") if picture is None else picture
        tiles.append(text_tile(decoded) if picture is None else picture)
    sheet = _sheet(tiles, [_caption(sample) for sample in samples], _places(samples))
    with refused_writes_named(file), replacing(file) as temporary:
        sheet.save(temporary, "PNG")


def text_tile(sample: Sample) -> np.ndarray:
    """What a sample without a picture says, from its start, black on light grey: uint8 (TILE - 2, TILE - 2, 3)."""
    turns = [f"{turn.role}: {turn.text}" for turn in sample.fields.get("conversation", ())]
    said = [*turns, *([text] if (text := sample.fields.get("text")) else [])]
    said = said or [f"{name}: {np.shape(value)}" for name, value in sample.fields.items()]
    lines = [line for text in said for line in textwrap.wrap(text, int(TILE / LETTER)) or [""]]
    tile = Image.new("RGB", (TILE - 2, TILE - 2), "#eeeeee")
    font = ImageFont.load_default(LINE - 2)
    draw = ImageDraw.Draw(tile)
    for number, line in enumerate(lines[: TILE // LINE]):
        draw.text((1, number * LINE), line, fill="black", font=font)
    return np.asarray(tile)


def _caption(sample: ConsumedSample) -> str:
    member = "" if sample.tokens is None else f".{sample.member}"
    return f"{sample.position}{member} {sample.key}"


def _places(samples: Sequence[ConsumedSample]) -> list[tuple[int, int]]:
    """(row, column) of each tile."""
    places: list[tuple[int, int]] = []
    for sample in samples:
        row, column = places[-1] if places else (0, -1)
        begins = column + 1 == COLUMNS or (sample.tokens is not None and sample.member == 0 and places)
        places.append((row + 1, 0) if begins else (row, column + 1))
    return places


def _sheet(tiles: Sequence[np.ndarray], captions: Sequence[str], places: Sequence[tuple[int, int]]) -> Image.Image:
    rows, columns = (max(numbers) + 1 for numbers in zip(*places, strict=True))
    sheet = Image.new("RGB", (columns * TILE, rows * (TILE + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for tile, caption, (row, column) in zip(tiles, captions, places, strict=True):
        left, top = column * TILE, row * (TILE + CAPTION)
        picture = Image.fromarray(tile)
        scale = (TILE - 2) / max(picture.size)
        # Hard pixels when enlarged: a smoothed one would hide what the model saw.
        how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        sheet.paste(picture.resize(size, how), (left, top))
        draw.text((left, top + TILE), caption[: TILE // 6], fill="black")
    return sheet
