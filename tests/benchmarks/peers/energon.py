"""Megatron-Energon over tars of its own, prepared by its own `prepare_dataset`, mixed by a blending metadataset.

Crude samples are cooked by a task encoder, as its documentation has it for data that the user decodes. Shuffle buffer
and samples per sequence are those of its examples; the batches are its own. Two of its habits are switched off, which
makes it faster: padding images that have one size, and a full garbage collection every ten batches. One process; from
`make bench-env`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import yaml

NAME = "megatron-energon"
SHARD_SAMPLES = 1000
WRITE_BYTES = 2**20
SHUFFLE_BUFFER = SEQUENCE = 100
MODULE = "megatron.energon"


def present() -> bool:
    """Whether it is installed."""
    return bool(find_spec("megatron")) and bool(find_spec(MODULE))


def write(samples: Sequence[bytes], folder: Path) -> None:
    """Tars of `<number>.jpg`, and what Energon wants beside them."""
    import webdataset
    from megatron.energon.flavors import BaseWebdatasetFactory

    folder.mkdir()
    for shard, start in enumerate(range(0, len(samples), SHARD_SAMPLES)):
        with (
            (folder / f"shard-{shard:03}.tar").open("wb", buffering=WRITE_BYTES) as file,
            webdataset.TarWriter(file) as tar,
        ):
            for number, data in enumerate(samples[start : start + SHARD_SAMPLES], start):
                tar.write({"__key__": f"{number:06}", "jpg": data})
    names = sorted(path.name for path in folder.glob("*.tar"))
    with redirect_stdout(sys.stderr):
        BaseWebdatasetFactory.prepare_dataset(folder, names, split_parts_ratio=[("train", 1.0)], workers=1)
    crude = {"__module__": MODULE, "__class__": "CrudeWebdataset"}
    (folder / ".nv-meta" / "dataset.yaml").write_text(yaml.safe_dump(crude))


def mix(
    folders: Sequence[Path], weights: Sequence[float], decode: Callable[[bytes], np.ndarray], batch: int
) -> Iterator[np.ndarray]:
    """Decoded images without end, of a blend of the folders, out of stacked batches."""
    import torch
    from megatron import energon

    @energon.stateless
    def cook(sample: dict[str, Any]) -> energon.ImageSample:
        return energon.ImageSample(**energon.basic_sample_keys(sample), image=torch.from_numpy(decode(sample["jpg"])))

    class Decoding(energon.DefaultTaskEncoder):
        decoder = None
        cookers = [energon.Cooker(cook)]  # noqa: RUF012 - its own way of declaring them

        def batch(self, samples: list[Any]) -> Any:
            """Images of one size, so no padding, which its own batching would do."""
            return torch.stack([sample.image for sample in samples])

    blend = folders[0].parent / "blend.yaml"
    parts = [{"weight": weight, "path": str(path)} for path, weight in zip(folders, weights, strict=True)]
    kind = {"__module__": MODULE, "__class__": "MetadatasetV2"}
    blend.write_text(yaml.safe_dump({**kind, "splits": {"train": {"blend": parts}}}))
    data = energon.get_train_dataset(
        blend,
        worker_config=energon.WorkerConfig(rank=0, world_size=1, num_workers=0),
        batch_size=batch,
        shuffle_buffer_size=SHUFFLE_BUFFER,
        max_samples_per_sequence=SEQUENCE,
        task_encoder=Decoding(),
    )
    batches = energon.get_savable_loader(data, gc_collect_every_n_steps=0)
    return chain.from_iterable(map(torch.Tensor.numpy, batches))
