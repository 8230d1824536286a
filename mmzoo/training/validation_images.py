"""Pictures of each validation: the same few samples every time, in TensorBoard and as PNG files in the run folder.

images/val_reconstruction/step_00000100.png     one row a sample: input | reconstruction
"""

from __future__ import annotations

import sys
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch import Tensor

from mmzoo.durable_files import replacing
from mmzoo.errors import InputError
from mmzoo.training.ranks import from_all_ranks
from mmzoo.training.stepping import is_trial, updates

FOLDER = "images"
GAP = 2  #: px of white between pictures


class ShownImages:
    """Rows of pictures by name, as a module's validation steps hand them over; at most `wanted` a name and rank."""

    def __init__(self) -> None:
        self.wanted = 0
        self._rows: dict[str, list[list[np.ndarray]]] = {}  #: name -> batches -> rows

    def add(self, name: str, columns: tuple[Tensor, ...]) -> None:
        """`columns`: one or more (B, 3, H, W) in [0, 1]; sample i of each becomes one row."""
        batches = self._rows.setdefault(name, []) if self.wanted else []
        room = self.wanted - sum(map(len, batches))
        if room > 0:
            samples = range(min(len(columns[0]), room))
            batches.append([beside([_pixels(column[index]) for column in columns], axis=1) for index in samples])

    def take(self) -> dict[str, list[np.ndarray]]:
        """The first `wanted` rows in the order of the data, where each batch is spread over the ranks; a fresh start.

        Every rank must ask, and gets the same.
        """
        everyone, wanted = from_all_ranks(self._rows), self.wanted
        self._rows, self.wanted = {}, 0
        found: dict[str, list[np.ndarray]] = {}
        for name in sorted({name for rank in everyone for name in rank}):
            by_batch = zip_longest(*(rank.get(name, []) for rank in everyone), fillvalue=[])
            found[name] = [row for batch in by_batch for share in batch for row in share][:wanted]
        return {name: rows for name, rows in found.items() if rows}


class ValidationImages(Callback):
    """most: samples shown of a validation, the first in the order of the data (0: none). keep: newest files to keep."""

    def __init__(self, most: int = 8, keep: int = 20) -> None:
        if most < 0 or keep < 1:
            raise InputError(f"images.most must be 0 or more and images.keep at least 1: {most}, {keep}.")
        self.most = most
        self.keep = keep

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (shown := shown_images(pl_module)) is not None:
            shown.wanted = 0 if trainer.sanity_checking or is_trial(trainer) else self.most

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        shown = shown_images(pl_module)
        if shown is None or not shown.wanted:
            return
        pictures = shown.take()
        for name, rows in pictures.items() if trainer.is_global_zero else ():
            grid = beside(rows, axis=0)
            folder = Path(trainer.default_root_dir) / FOLDER / name.replace("/", "_")
            try:
                for logger in trainer.loggers:
                    if isinstance(logger, TensorBoardLogger):
                        logger.experiment.add_image(name, grid, updates(trainer), dataformats="HWC")
                self._write(folder, updates(trainer), grid)
            except OSError as fault:  # a full disk, mostly: no reason to lose the training as well
                sys.stderr.write(f"note: no pictures of step {updates(trainer)} in {folder} ({fault.strerror})\n")

    def _write(self, folder: Path, step: int, grid: np.ndarray) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / f"step_{step:08d}.png") as temporary:
            Image.fromarray(grid).save(temporary, "PNG")
        for old in sorted(folder.glob("step_*.png"))[: -self.keep]:
            old.unlink()


def shown_images(module: LightningModule) -> ShownImages | None:
    """Where the module collects its pictures."""
    found = getattr(module, "images", None)
    return found if isinstance(found, ShownImages) else None


def _pixels(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1], others are clamped -> (H, W, 3) uint8."""
    levels = image.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return levels.permute(1, 2, 0).cpu().numpy()


def beside(pictures: list[np.ndarray], axis: int) -> np.ndarray:
    """Pictures (H, W, 3) uint8 in a column (axis 0) or a row (axis 1), with gaps; smaller ones get white."""
    across = max(picture.shape[1 - axis] for picture in pictures)
    parts: list[np.ndarray] = []
    for picture in pictures:
        room = [(0, 0), (0, 0), (0, 0)]
        room[1 - axis] = (0, across - picture.shape[1 - axis])
        filled = np.pad(picture, room, constant_values=255)
        gap = np.full_like(np.take(filled, range(1), axis), 255).repeat(GAP, axis)
        parts += [gap, filled] if parts else [filled]
    return np.concatenate(parts, axis)
