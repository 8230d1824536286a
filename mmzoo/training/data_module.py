"""Shards as Lightning sees them: an endless stream of training batches cut into epochs, and a fixed validation pass.

The position in the data is one integer, ours to save (`data_state.json`): Lightning keeps the loader state of rank 0
only and forgets it in some paths, so its own slot stays empty.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch import LightningDataModule

from mmzoo.errors import InputError
from mmzoo.training.window import Window, accumulation

if TYPE_CHECKING:
    from data_engine.index import ShardIndex
    from data_engine.loader import LoaderSettings

SCHEMA = 1
#: (Sample, numpy.random.Generator) -> dict of arrays, tensors, numbers, strings; see data_engine.loader.make_loader.
Transform = Callable[..., Any]


class TrainStream:
    """`length` updates an epoch from one endless loader; the next epoch goes on where this one stopped.

    An update gets one batch, or with `accumulate` > 1 a Window of that many.
    No DataLoader to Lightning: it is neither rebuilt, nor restarted (workers stay warm), nor saved by it. `make` builds
    the loader at the current position when the first batch is asked for.
    """

    def __init__(self, make: Callable[[], Iterable[Any]], length: int, accumulate: int = 1) -> None:
        self.make = make
        self.length = length
        self.accumulate = accumulate
        self.wait_seconds = 0.0  #: time the training loop has stood waiting for batches
        self._batches: Iterator[Any] | None = None

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.length):
            start = time.perf_counter()
            if self._batches is None:
                self._batches = iter(self.make())
            batches = self._batches
            several = self.accumulate > 1
            batch = Window(next(batches) for _ in range(self.accumulate)) if several else next(batches)
            self.wait_seconds += time.perf_counter() - start
            yield batch

    def close(self) -> None:
        """Ends the workers now. Left to the garbage collector, each would be waited for five seconds."""
        self._batches = None


class EvaluationStream:
    """Every pass the same batches from the start."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make
        self._loader: Any = None

    @property
    def loader(self) -> Any:
        if self._loader is None:
            self._loader = self.make()
        return self._loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)

    def close(self) -> None:
        """Ends the workers now, as in TrainStream."""
        self._loader = None


class ShardData(LightningDataModule):
    """Training and validation batches from one shard folder.

    index: the shard folder, as written by `mmzoo data build`. transform, val_transform: class or function that makes
    one sample (default of val_transform: transform). global_batch: samples a batch over all ranks. val_batch: the same
    in validation (default: global_batch). steps_per_epoch: batches between validations (default: one pass over the
    rows, at least 1). val_passes: how often each validation image is looked at (random crops differ). cache_mb: MiB of
    decoded images kept in memory. background: colour under transparent images (default: alpha is dropped).
    """

    def __init__(  # noqa: PLR0913 - the keys of the YAML section `data`
        self,
        index: str,
        transform: Transform,
        global_batch: int,
        val_transform: Transform | None = None,
        val_batch: int | None = None,
        steps_per_epoch: int | None = None,
        val_passes: int = 1,
        workers: int = 0,
        seed: int = 0,
        cache_mb: int = 256,
        background: Literal["white"] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("global_batch", global_batch), ("val_batch", val_batch), ("val_passes", val_passes)):
            if value is not None and value < 1:
                raise InputError(f"data.init_args.{name} must be at least 1, not {value}")
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise InputError(f"data.init_args.steps_per_epoch must be at least 1, not {steps_per_epoch}")
        self.index_folder = Path(index)
        self.transform = transform
        self.val_transform = val_transform or transform
        self.global_batch = global_batch
        self.val_batch = val_batch or global_batch
        self.steps_per_epoch = steps_per_epoch
        self.val_passes = val_passes
        self.workers = workers
        self.seed = seed
        self.cache_mb = cache_mb
        self.background: Literal["white"] | None = background
        self.position = 0  #: samples consumed by optimiser steps so far, over all ranks
        self.stream: TrainStream | None = None
        self._evaluation_streams: list[EvaluationStream] = []

    def open_index(self) -> ShardIndex:
        """The index; InputError when the folder is missing or no shard folder."""
        from data_engine.index import ShardIndex

        return ShardIndex.open(self.index_folder)

    def identity(self) -> str:
        """sha256 of the index content: what the run record calls this data."""
        return self.open_index().identity

    def loader_settings(self, split: str) -> LoaderSettings:
        """The settings of this rank's loader of a split."""
        from data_engine.loader import LoaderSettings

        training = split == "train"
        global_batch = self.global_batch if training else self.val_batch
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if global_batch % ranks:
            name = "global_batch" if training else "val_batch"
            raise InputError(
                f"data.init_args.{name} is {global_batch}, which does not divide by {ranks} ranks. "
                f"Try {-(-global_batch // ranks) * ranks}."
            )
        return LoaderSettings(
            index=self.index_folder,
            split=split,
            global_batch=global_batch,
            seed=self.seed,
            shuffle=training,
            passes=None if training else self.val_passes,
            workers=self.workers,
            rank=rank,
            ranks=ranks,
            start_position=self.position if training else 0,
            cache_mb=self.cache_mb,
            background=self.background,
        )

    def train_dataloader(self) -> TrainStream:
        """Built after the data state was restored, so it starts at `position`."""
        from data_engine.loader import make_loader

        rows = len(self.open_index().split_rows("train"))
        length = self.steps_per_epoch or max(1, rows // self.global_batch)
        self.loader_settings("train")  # a mistake in them is reported here, before the first step
        accumulate = accumulation(self.trainer)
        self.stream = TrainStream(
            lambda: make_loader(self.loader_settings("train"), self.transform, None),
            max(1, length // accumulate),
            accumulate,
        )
        return self.stream

    def val_dataloader(self) -> Any:
        """The validation split; empty list when there is none."""
        from data_engine.loader import make_loader

        if not len(self.open_index().split_rows("val")):
            return []
        settings = self.loader_settings("val")
        stream = EvaluationStream(lambda: make_loader(settings, self.val_transform, None))
        self._evaluation_streams.append(stream)
        return stream

    def test_dataloader(self) -> Any:
        """The validation split: the shards have no third one."""
        return self.val_dataloader()

    def predict_dataloader(self) -> Any:
        """The validation split."""
        return self.val_dataloader()

    def teardown(self, stage: str) -> None:  # noqa: ARG002
        """Ends the workers; the position stays."""
        for stream in (self.stream, *self._evaluation_streams):
            if stream is not None:
                stream.close()

    def data_state(self) -> dict[str, Any]:
        """What `data_state.json` holds."""
        return {"schema": SCHEMA, "position": self.position, "seed": self.seed, "identity": self.identity()}

    def load_data_state(self, state: dict[str, Any]) -> None:
        """Continues at a saved position; InputError when the data or its order would not be the saved one."""
        if state.get("schema") != SCHEMA:
            raise InputError(f"the data state has schema {state.get('schema')}; this mmzoo reads schema {SCHEMA}.")
        if state["identity"] != self.identity():
            raise InputError(
                f"the shards in {self.index_folder} are not those of the checkpoint, so its position means nothing. "
                f"Point data.init_args.index at the old shards, or start anew with --init_from."
            )
        if state["seed"] != self.seed:
            raise InputError(
                f"data.init_args.seed is {self.seed}, the checkpoint was trained with {state['seed']}: another order. "
                f"Set it back, or start anew with --init_from."
            )
        self.position = int(state["position"])
