"""What a packer or a plan must know of samples without decoding them: characters of text, sizes of images, bytes.

The index keeps these as columns, written when the shards are: `text_chars` int64 (N,), `image_count` int32 (N,), and of
all M images in row order `image_width`, `image_height` int32 (M,). Shards of before have one image a row, or codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class SampleFacts(NamedTuple):
    """Of one sample: characters of text (Unicode code points), (width, height) of each image in px as decoded, bytes.

    `bytes` is by field of the index; a field that the sample lacks is left out.
    """

    text_characters: int
    image_sizes: list[tuple[int, int]]
    bytes: dict[str, int]


class FactColumns(NamedTuple):
    """The same of all N rows, for arithmetic on arrays.

    `text_characters` int64 (N,); of all M images, in row order: `image_row` int64 (M,) the row it belongs to,
    `image_width` and `image_height` int32 (M,) in px. Visual tokens a row, say, are
    `np.bincount(image_row, tokens(image_width, image_height), minlength=N)`.
    """

    text_characters: np.ndarray
    image_row: np.ndarray
    image_width: np.ndarray
    image_height: np.ndarray


def fact_arrays(texts: Sequence[int], sizes: Sequence[Sequence[tuple[int, int]]]) -> dict[str, np.ndarray]:
    """The index columns for rows of `texts` characters with images of these sizes; width, height: of the first."""
    flat = np.array([size for row in sizes for size in row], np.int32).reshape(-1, 2)
    first = np.array([row[0] if row else (0, 0) for row in sizes], np.int32).reshape(-1, 2)
    return {
        "text_chars": np.array(texts, np.int64),
        "image_count": np.array([len(row) for row in sizes], np.int32),
        "image_width": flat[:, 0].copy(),
        "image_height": flat[:, 1].copy(),
        "width": first[:, 0].copy(),
        "height": first[:, 1].copy(),
    }
