"""Mixing two sources 3 to 1, as each peer documents it: webdataset RandomMix, litdata Combined..., MosaicML Stream.

A generator of decoded images, endless or one epoch long; the caller takes as many as it wants. One process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from tests.benchmarks.peers import streaming_formats

Decode = Callable[[bytes], np.ndarray]
WEIGHTS = (0.75, 0.25)


def webdataset_mix(tars: Sequence[Sequence[str]], decode: Decode) -> Iterator[np.ndarray]:
    """RandomMix over two shuffled, repeating datasets."""
    import webdataset

    sources = [
        webdataset.WebDataset(list(of_source), shardshuffle=False, empty_check=False).shuffle(1000).repeat()
        for of_source in tars
    ]
    mixed = webdataset.RandomMix(sources, list(WEIGHTS))
    return (decode(sample["jpg"]) for sample in mixed)


def litdata_mix(folders: Sequence[Path], decode: Decode) -> Iterator[np.ndarray]:
    """CombinedStreamingDataset of two shuffled StreamingDatasets."""
    from litdata import CombinedStreamingDataset, StreamingDataset

    sources = [StreamingDataset(str(folder), shuffle=True) for folder in folders]
    mixed = CombinedStreamingDataset(sources, weights=list(WEIGHTS), iterate_over_all=False)
    return (decode(sample[streaming_formats.FIELD]) for sample in mixed)


def mosaic_mix(folders: Sequence[Path], decode: Decode) -> Iterator[np.ndarray]:
    """StreamingDataset over two Streams with proportions, shuffled."""
    from streaming import Stream, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    streams = [Stream(local=str(folder), proportion=share) for folder, share in zip(folders, WEIGHTS, strict=True)]
    mixed = StreamingDataset(streams=streams, shuffle=True, batch_size=32)
    return (decode(sample[streaming_formats.FIELD]) for sample in mixed)


#: Name in streaming_formats -> its mix over folders.
MIXES = {"litdata": litdata_mix, "MosaicML streaming": mosaic_mix}


def mix_of(name: str, folders: Sequence[Path], decode: Decode) -> Callable[[], Iterator[np.ndarray]]:
    """The mix of an installed peer."""
    return partial(MIXES[name], folders, decode)
