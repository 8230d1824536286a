"""Reading JPEG shards: our loader beside plain webdataset, on the same tar files, decoded and as bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from PIL import Image

from data_engine.image_shards import BuildSettings, build_image_shards
from data_engine.index import ShardIndex
from data_engine.loader import LoaderSettings, make_loader
from data_engine.reader import ShardReader
from data_engine.records import Sample
from tests.benchmarks.record import Comparison
from tests.benchmarks.timing import Contender, interleaved

IMAGES, SIDE, BATCH, ROUNDS = 400, 256, 32, 5
LEAST_RATIO_DECODED, LEAST_RATIO_BYTES = 1.5, 20.0


def make_shards(folder: Path) -> Path:
    """A shard folder of generated photographs: smooth colours with fine grain, SIDE px, JPEG at quality 90."""
    photos = folder / "photos"
    photos.mkdir()
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        coarse = random.integers(0, 256, (9, 9, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.int16)
        grain = random.normal(0, 12, smooth.shape)
        pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(photos / f"{number:05}.jpg", quality=90)
    build_image_shards(BuildSettings(photos, folder / "shards", val_fraction=0, shard_bytes=4_000_000))
    return folder / "shards"


def pixels_only(sample: Sample, random: np.random.Generator) -> dict[str, Any]:
    """The transform of the loader: nothing but the picture."""
    del random
    return {"image": sample.fields["image"]}


def our_batches(shards: Path) -> Iterator[np.ndarray]:
    """uint8 (B, SIDE, SIDE, 3), in the order of the shards."""
    settings = LoaderSettings(shards, global_batch=BATCH, shuffle=False, passes=1)
    for batch in make_loader(settings, pixels_only):
        yield batch["image"].numpy()


def their_batches(shards: Path) -> Iterator[np.ndarray]:
    """The same from webdataset, with its own decoder and batching."""
    dataset = webdataset.WebDataset(_tars(shards), shardshuffle=False, empty_check=False)
    for (images,) in dataset.decode("rgb8").to_tuple("jpg").batched(BATCH):
        yield images


def our_bytes(shards: Path) -> list[bytes]:
    """Every stored JPEG, undecoded."""
    reader = ShardReader(ShardIndex.open(shards))
    return [reader.raw(row, "image") for row in range(reader.index.count)]


def their_bytes(shards: Path) -> list[bytes]:
    """The same from webdataset."""
    dataset = webdataset.WebDataset(_tars(shards), shardshuffle=False, empty_check=False)
    return [sample["jpg"] for sample in dataset]


def _tars(shards: Path) -> list[str]:
    return [str(path) for path in sorted(shards.glob("*.tar"))]


def check(shards: Path) -> None:
    """Every picture is there and equal, pixel by pixel, before any timing."""
    ours, theirs = (np.concatenate(list(batches(shards))) for batches in (our_batches, their_batches))
    assert ours.shape == (IMAGES, SIDE, SIDE, 3)
    assert np.array_equal(ours, theirs), "the two readers see different pixels"
    assert our_bytes(shards) == their_bytes(shards)


def compare() -> list[Comparison]:
    """One process each, no workers: what a worker does, without the transport that both share."""
    with tempfile.TemporaryDirectory() as folder:
        shards = make_shards(Path(folder))
        check(shards)
        decoded = interleaved(
            {
                "ours": Contender(lambda: sum(map(len, our_batches(shards)))),
                "webdataset": Contender(lambda: sum(map(len, their_batches(shards)))),
            },
            ROUNDS,
        )
        stored = interleaved(
            {"ours": Contender(lambda: our_bytes(shards)), "webdataset": Contender(lambda: their_bytes(shards))}, ROUNDS
        )
    size = f"{IMAGES} JPEGs of {SIDE} px"
    return [
        Comparison(
            f"{size}, decoded", "webdataset", decoded["ours"], decoded["webdataset"], at_least=LEAST_RATIO_DECODED
        ),
        Comparison(f"{size}, as bytes", "webdataset", stored["ours"], stored["webdataset"], at_least=LEAST_RATIO_BYTES),
    ]
