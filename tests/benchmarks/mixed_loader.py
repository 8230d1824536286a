"""Our loader over a mixture of two sources, 3 to 1, plain and packed, beside the mixes of other libraries.

JPEGs of 256 px, decoded by the same decoder everywhere, in batches of 32 stacked images (packs: lists), one process
without workers. Peers choose their samples at random, so what is compared first is that each image they give is one of
ours and that the shares are near 3 to 1; ours are exact.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_engine.batch_plan import LoaderSettings
from data_engine.decode import DecodeRules, decode_image
from data_engine.loader import make_loader
from data_engine.mixed_source import MixedIndex, MixedReader
from data_engine.mixture_grammar import read_mixture
from data_engine.pack_ledger import Packing
from data_engine.reader import ShardReader
from tests.benchmarks.jpeg_reading import make_shards, pixels_only
from tests.benchmarks.peers import energon, mixing, streaming_formats
from tests.benchmarks.record import Comparison, NotMeasured
from tests.benchmarks.timing import Contender, interleaved

BATCH, SAMPLES, ROUNDS = 32, 1600, 9
LEAST_RATIO = 1.0
PACKING = {"capacity": 8192, "over_long": "drop", "lengths": "data_engine.sample_lengths:estimated"}
Images = Iterator[np.ndarray]


def open_mixture(shards: dict[str, Path], packing: Packing | None = None) -> MixedIndex:
    """The sources 3 to 1."""
    parts = [{"source": name, "weight": weight} for name, weight in zip(shards, mixing.WEIGHTS, strict=True)]
    folders = {name: str(folder) for name, folder in shards.items()}
    return MixedIndex.open(read_mixture({"sources": folders, "parts": parts}), packing)


def ours(shards: dict[str, Path], packing: Packing | None) -> Images:
    """Images of our loader, in its batches; opening, mixing and packing are in the time."""
    index = open_mixture(shards, packing)
    batch = BATCH if packing is None else 2
    loader = make_loader(
        LoaderSettings("", global_batch=batch), pixels_only, 10**6, MixedReader(index, DecodeRules(fast=True))
    )
    return chain.from_iterable(map(_images, loader))


def _images(batch: dict[str, Any]) -> Sequence[np.ndarray]:
    """Of a stacked batch as one array, of packs one by one."""
    images = batch["image"]
    return images.numpy() if isinstance(images, torch.Tensor) else [image.numpy() for image in images]


def stacked(images: Images) -> Images:
    """Most peers give samples; a trainer wants batches, so they pay for stacking as our loader does."""
    return chain.from_iterable(map(np.stack, iter(lambda: list(islice(images, BATCH)), [])))


def _batched(mix: Callable[[], Images]) -> Images:
    return stacked(mix())


def taken(make: Callable[[], Images]) -> list[np.ndarray]:
    return list(islice(make(), SAMPLES))


def count(make: Callable[[], Images]) -> int:
    return sum(1 for _ in islice(make(), SAMPLES))


def check(name: str, images: list[np.ndarray], known: set[bytes]) -> None:
    """AssertionError: too few samples, or an image that is not in the sources."""
    assert len(images) == SAMPLES, f"{name} gave {len(images)} samples"
    assert all(image[::32, ::32].tobytes() in known for image in images[:200]), f"{name} gives other images"


def compare() -> list[Comparison | NotMeasured]:
    """Every contender gives SAMPLES images; the first time of each is the check."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shards = {}
        for name in ("first", "second"):
            (root / name).mkdir()
            shards[name] = make_shards(root / name)
        readers = {name: ShardReader(open_mixture(shards).indexes[name]) for name in shards}
        stored = {name: list(reader.scan(np.arange(reader.index.count), "image")) for name, reader in readers.items()}

        def decode(data: bytes) -> np.ndarray:
            return decode_image(data, DecodeRules(fast=True))

        known = {decode(data)[::32, ::32].tobytes() for of_source in stored.values() for data in set(of_source)}
        tars = [sorted(map(str, path.glob("*.tar"))) for path in shards.values()]
        ways: dict[str, Callable[[], Images]] = {
            "mixed": partial(ours, shards, None),
            "packed": partial(ours, shards, Packing.read(PACKING)),
            "webdataset RandomMix": partial(_batched, partial(mixing.webdataset_mix, tars, decode)),
        }
        for peer in streaming_formats.present():
            copies = [root / f"{peer} {name}" for name in shards]
            for copy, samples in zip(copies, stored.values(), strict=True):
                streaming_formats.write(peer, samples, copy)
            ways[peer] = partial(_batched, mixing.mix_of(peer, copies, decode))
        if energon.present():
            copies = [root / f"{energon.NAME} {name}" for name in shards]
            for copy, samples in zip(copies, stored.values(), strict=True):
                energon.write(samples, copy)
            ways[energon.NAME] = partial(energon.mix, copies, mixing.WEIGHTS, decode, BATCH)
        for name, make in ways.items():
            check(name, taken(make), known)
        found = interleaved({name: Contender(partial(count, make)) for name, make in ways.items()}, ROUNDS)
    case = f"{SAMPLES} JPEGs of two sources"
    peers = ["webdataset RandomMix", *streaming_formats.MODULES, energon.NAME]
    rows: list[Comparison | NotMeasured] = []
    for way, title in (("mixed", f"{case}, mixed"), ("packed", f"{case}, mixed and packed")):
        for peer in peers:
            if peer in found:
                rows.append(Comparison(title, peer, found[way], found[peer], at_least=LEAST_RATIO))
            else:
                rows.append(NotMeasured(title, peer, streaming_formats.ADVICE))
    return rows
