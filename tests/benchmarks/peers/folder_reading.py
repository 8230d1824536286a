"""A plain DataLoader over a folder of JPEG files, as tutorials have it; not edited to suit a figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset


def with_pillow(file: Path) -> np.ndarray:
    """uint8 (H, W, 3)."""
    with Image.open(file) as image:
        return np.array(image.convert("RGB"))


class FolderDataset(Dataset[np.ndarray]):
    """The pictures of a folder, in the order of their names."""

    def __init__(self, folder: Path, decode: Callable[[Path], np.ndarray]) -> None:
        self.files = sorted(folder.glob("*.jpg"))
        self.decode = decode

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> np.ndarray:
        return self.decode(self.files[number])


def folder_batches(folder: Path, decode: Callable[[Path], np.ndarray], batch: int) -> Iterator[np.ndarray]:
    """uint8 (B, H, W, 3), stacked by the DataLoader."""
    return map(_as_array, DataLoader(FolderDataset(folder, decode), batch_size=batch))


def _as_array(images: torch.Tensor) -> np.ndarray:
    return images.numpy()
