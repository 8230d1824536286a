"""Reading JPEG shards: our loader beside plain webdataset on the same tar files, and beside a DataLoader over a folder.

Decoded, and as stored bytes. Everything in one process without workers: what a worker does, without the transport that
all of them share. No way of reading holds a batch while it makes the next one. As bytes: every one is copied into an
object of its own; views of a mapping would be faster still, and would not have read anything.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from PIL import Image

from data_engine.decode import DecodeRules, decode_image
from data_engine.image_shards import BuildSettings, build_image_shards
from data_engine.index import ShardIndex
from data_engine.loader import LoaderSettings, make_loader
from data_engine.reader import ShardReader
from data_engine.records import Sample
from tests.benchmarks.peers import streaming_formats
from tests.benchmarks.peers.folder_reading import folder_batches, with_pillow
from tests.benchmarks.record import Comparison, NotMeasured
from tests.benchmarks.timing import Contender, Figures, interleaved

IMAGES, DISTINCT, SIDE, BATCH, ROUNDS = 4000, 400, 256, 32, 5
#: Against webdataset; against the folder with our own decoder, where only the reading differs.
LEAST_RATIO_DECODED, LEAST_RATIO_BYTES, LEAST_RATIO_SAME_DECODER = 1.5, 20.0, 0.95


def make_shards(folder: Path) -> Path:
    """A shard folder of generated photographs: smooth colours with fine grain, SIDE px, JPEG at quality 90.

    DISTINCT different ones, each under several names: enough samples that opening the shards does not count.
    """
    photos = folder / "photos"
    photos.mkdir()
    random = np.random.default_rng(0)
    for number in range(DISTINCT):
        coarse = random.integers(0, 256, (9, 9, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.int16)
        grain = random.normal(0, 12, smooth.shape)
        pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(photos / f"{number:05}.jpg", quality=90)
    for number in range(DISTINCT, IMAGES):
        shutil.copyfile(photos / f"{number % DISTINCT:05}.jpg", photos / f"{number:05}.jpg")
    build_image_shards(BuildSettings(photos, folder / "shards", val_fraction=0, shard_bytes=32_000_000))
    return folder / "shards"


def pixels_only(sample: Sample, random: np.random.Generator) -> dict[str, Any]:
    """The transform of the loader: nothing but the picture."""
    del random
    return {"image": sample.fields["image"]}


def our_batches(shards: Path) -> Iterator[np.ndarray]:
    """uint8 (B, SIDE, SIDE, 3), in the order of the shards."""
    settings = LoaderSettings(shards, global_batch=BATCH, shuffle=False, passes=1)
    return map(_pixels, make_loader(settings, pixels_only))


def _pixels(batch: dict[str, Any]) -> np.ndarray:
    return batch["image"].numpy()


def their_batches(shards: Path) -> Iterator[np.ndarray]:
    """The same from webdataset, with its own decoder and batching."""
    dataset = webdataset.WebDataset(_tars(shards), shardshuffle=False, empty_check=False)
    return map(itemgetter(0), dataset.decode("rgb8").to_tuple("jpg").batched(BATCH))


def folder_with_pillow(shards: Path) -> Iterator[np.ndarray]:
    """The same pictures from the folder they came from."""
    return folder_batches(shards.parent / "photos", with_pillow, BATCH)


def folder_with_our_decoder(shards: Path) -> Iterator[np.ndarray]:
    """The same, decoded as we do."""
    rules = DecodeRules(fast=True)
    return folder_batches(shards.parent / "photos", lambda file: decode_image(file.read_bytes(), rules), BATCH)


def our_bytes(shards: Path) -> Iterator[bytes]:
    """Every stored JPEG, undecoded, in stored order as webdataset has it."""
    reader = ShardReader(ShardIndex.open(shards))
    return reader.scan(np.arange(reader.index.count), "image")


def our_bytes_shuffled(shards: Path) -> Iterator[bytes]:
    """The same in random order, one read each: what webdataset cannot do."""
    reader = ShardReader(ShardIndex.open(shards))
    order = np.random.default_rng(0).permutation(reader.index.count).tolist()
    return (reader.raw(row, "image") for row in order)


def their_bytes(shards: Path) -> Iterator[bytes]:
    """The same from webdataset, in stored order."""
    dataset = webdataset.WebDataset(_tars(shards), shardshuffle=False, empty_check=False)
    return (sample["jpg"] for sample in dataset)


def _tars(shards: Path) -> list[str]:
    return [str(path) for path in sorted(shards.glob("*.tar"))]


DECODED = {
    "ours": our_batches,
    "webdataset": their_batches,
    "DataLoader over the folder": folder_with_pillow,
    "DataLoader over the folder, our decoder": folder_with_our_decoder,
}
STORED = {"ours": our_bytes, "ours, random order": our_bytes_shuffled, "webdataset": their_bytes}
BARS_DECODED = {
    "webdataset": LEAST_RATIO_DECODED,
    "DataLoader over the folder": None,
    "DataLoader over the folder, our decoder": LEAST_RATIO_SAME_DECODER,
}


def add_streaming(shards: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """DECODED and STORED, with the peers that have formats of their own: each gets a copy, and our decoder."""
    decoded, stored = dict(DECODED), dict(STORED)
    rules = DecodeRules(fast=True)
    for peer in streaming_formats.present():
        copy = shards.parent / peer
        streaming_formats.write(peer, list(our_bytes(shards)), copy)
        stored[peer] = lambda _, peer=peer, copy=copy: streaming_formats.read(peer, copy)
        decoded[peer] = lambda _, peer=peer, copy=copy: streaming_formats.batches(
            peer, copy, lambda data: decode_image(bytes(data), rules), BATCH
        )
    return decoded, stored


def check(shards: Path, decoded: Mapping[str, Any], ways_stored: Mapping[str, Any]) -> None:
    """Every picture is there and equal, pixel by pixel, before any timing."""
    for batches in zip(*(read(shards) for read in decoded.values()), strict=True):
        for name, pixels in zip(decoded, batches, strict=True):
            assert pixels.shape == (BATCH, SIDE, SIDE, 3)
            assert np.array_equal(batches[0], pixels), f"{name} sees different pixels"
    stored = {name: list(read(shards)) for name, read in ways_stored.items()}
    for name in stored.keys() - {"ours", "ours, random order"}:
        assert stored["ours"] == stored[name], f"{name} reads other samples"
    assert sorted(stored["ours, random order"]) == sorted(stored["webdataset"])


def compare() -> list[Comparison | NotMeasured]:
    """What is read is counted and dropped, as a consumer would."""
    with tempfile.TemporaryDirectory() as folder:
        shards = make_shards(Path(folder))
        ways_decoded, ways_stored = add_streaming(shards)
        check(shards, ways_decoded, ways_stored)
        decoded, stored = (
            interleaved(
                {name: Contender(lambda read=read: sum(map(len, read(shards)))) for name, read in way.items()}, n
            )
            for way, n in ((ways_decoded, ROUNDS), (ways_stored, 3 * ROUNDS))
        )
    size = f"{IMAGES} JPEGs of {SIDE} px"
    return [
        *(
            Comparison(f"{size}, decoded", peer, decoded["ours"], decoded[peer], at_least=bar)
            for peer, bar in BARS_DECODED.items()
        ),
        Comparison(f"{size}, as bytes", "webdataset", stored["ours"], stored["webdataset"], at_least=LEAST_RATIO_BYTES),
        Comparison(
            f"{size}, as bytes in random order",
            "webdataset in stored order",
            stored["ours, random order"],
            stored["webdataset"],
        ),
        *(
            _against(case, peer, found, bar)
            for peer in streaming_formats.MODULES
            for case, found, bar in (
                (f"{size}, decoded by our decoder", decoded, LEAST_RATIO_SAME_DECODER),
                (f"{size}, as bytes", stored, None),
            )
        ),
    ]


def _against(case: str, peer: str, found: Mapping[str, Figures], bar: float | None) -> Comparison | NotMeasured:
    if peer not in found:
        return NotMeasured(case, peer, streaming_formats.ADVICE)
    return Comparison(case, peer, found["ours"], found[peer], at_least=bar)
