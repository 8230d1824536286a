"""Shards as Lightning sees them: an endless stream of training batches cut into epochs, and a fixed validation pass.

The position in the data is one integer, ours to save (`data_state.json`): Lightning keeps the loader state of rank 0
only and forgets it in some paths, so its own slot stays empty.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch import LightningDataModule

from data_engine.quarantine import QUARANTINE_FILE, ErrorBudget
from data_engine.remote import DEFAULT_CACHE_GB, RemoteSettings, is_remote
from data_engine.skips import Skips, advance, merged
from data_engine.steps import Stretch, as_json, continued, from_json, skip_range
from mmzoo.errors import InputError
from mmzoo.training.ranks import check_equal_ranks
from mmzoo.training.stepping import is_trial
from mmzoo.training.window import Window, accumulation

if TYPE_CHECKING:
    import torch

    from data_engine.decode import DecodeRules
    from data_engine.ledger import Ledger
    from data_engine.loader import LoaderSettings
    from data_engine.sample_source import SampleIndex, SampleReader

SCHEMA = 2
#: What may differ from a checkpoint only with the user's consent (--allow_changes), because it changes the data order.
CONSENT = ("global_batch", "seed", "shards", "mixture", "packing")
#: Changes that begin a new epoch: the old position would mean other samples.
NEW_ORDER = {"seed", "shards", "mixture", "packing"}
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

    index: the shard folder, as written by `mmzoo data build`, or the URL of one (http, https, s3, hf, file): its shards
    are then kept in cache_dir (default: in the user's cache folder), at most cache_gb GB of them, and the processes of
    a machine share them. transform, val_transform: class or function that makes
    one sample (default of val_transform: transform). global_batch: samples a batch over all ranks. val_batch: the same
    in validation (default: global_batch). steps_per_epoch: batches between validations (default: one pass over the
    rows, at least 1). val_passes: how often each validation image is looked at (random crops differ). cache_mb: MiB of
    decoded images kept in memory. background: colour under transparent images (default: alpha is dropped).
    max_broken, max_broken_share: how many different broken samples, and which share (0 to 1) of all samples in the
    index, are left out before the run ends; each limit that is given holds, without any the first one ends it. They are
    listed in `quarantine.jsonl` in the run folder.
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
        max_broken: int | None = None,
        max_broken_share: float | None = None,
        cache_dir: str | None = None,
        cache_gb: float = DEFAULT_CACHE_GB,
    ) -> None:
        super().__init__()
        for name, value in (("global_batch", global_batch), ("val_batch", val_batch), ("val_passes", val_passes)):
            if value is not None and value < 1:
                raise InputError(f"data.init_args.{name} must be at least 1, not {value}")
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise InputError(f"data.init_args.steps_per_epoch must be at least 1, not {steps_per_epoch}")
        self.index_folder: Path | str = index if is_remote(index) else Path(index)
        self.remote = RemoteSettings(Path(cache_dir) if cache_dir else None, cache_gb)
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
        self.budget = ErrorBudget(max_broken, max_broken_share)
        self.position = 0  #: samples consumed by optimiser steps so far, over all ranks
        self.skips: Skips = ()  #: positions that training leaves out
        self.history: list[Stretch] = []  #: which positions each step so far consumed
        self.stream: TrainStream | None = None
        self._evaluation_streams: list[EvaluationStream] = []
        self._order: dict[str, str] = {}

    def open_index(self) -> SampleIndex:
        """The index; InputError when the folder is missing or no shard folder. Other sources override it."""
        from data_engine.remote import open_index

        return open_index(self.index_folder, self.remote)

    def open_reader(self, settings: LoaderSettings) -> SampleReader:
        """The reader of the index. Other sources override it."""
        from data_engine.loader import open_shards

        return open_shards(settings)

    def _loader(self, split: str, transform: Transform) -> Any:
        from data_engine.loader import make_loader

        settings = self.loader_settings(split)
        return make_loader(settings, transform, None, self.open_reader(settings))

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
            skips=self.skips if training else (),
            cache_mb=self.cache_mb,
            background=self.background,
            budget=self.budget,
            quarantine=self._quarantine_file(),
            remote=self.remote,
        )

    def decode_rules(self) -> DecodeRules:
        """How images of this data are decoded."""
        from data_engine.decode import DecodeRules

        return DecodeRules(background=self.background, fast=True)

    def _quarantine_file(self) -> Path | None:
        """Where broken samples are listed; nowhere without a run, or in one that leaves no files."""
        if self.trainer is None or is_trial(self.trainer):
            return None
        return Path(self.trainer.default_root_dir) / QUARANTINE_FILE

    def train_dataloader(self) -> TrainStream:
        """Built after the data state was restored, so it starts at `position`."""
        from data_engine.batch_plan import ledger_of

        index = self.open_index()
        self._note_order(index)
        ledger = ledger_of(self.loader_settings("train"), index)  # a mistake is reported here, before the first step
        check_equal_ranks(self._note_order())
        length = self.steps_per_epoch or max(1, len(ledger) // self.global_batch)
        if self.trainer is None or self.trainer.is_global_zero:
            self.announce(ledger)
        accumulate = accumulation(self.trainer)
        self.stream = TrainStream(
            lambda: self._loader("train", self.transform),
            max(1, length // accumulate),
            accumulate,
        )
        return self.stream

    def order(self) -> str:
        """What finds the order of samples again, beside index and seed; "" for one shard folder."""
        return ""

    def announce(self, ledger: Ledger) -> None:
        """Says before step 1 what an epoch holds, where that is worth a table."""

    def report_consumed(self) -> None:
        """Says after the last step what was consumed, where that is worth a table."""

    def val_dataloader(self) -> Any:
        """The validation split; empty list when there is none."""
        if not len(self.open_index().split_rows("val")):
            return []
        self.loader_settings("val")  # a mistake in them is reported here
        stream = EvaluationStream(lambda: self._loader("val", self.val_transform))
        self._evaluation_streams.append(stream)
        return stream

    def test_dataloader(self) -> Any:
        """The validation split: the shards have no third one."""
        return self.val_dataloader()

    def predict_dataloader(self) -> Any:
        """The validation split."""
        return self.val_dataloader()

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """As Lightning's; on a CPU the batch is there already."""
        return batch if device.type == "cpu" else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def teardown(self, stage: str) -> None:  # noqa: ARG002
        """Ends the workers; the position stays."""
        for stream in (self.stream, *self._evaluation_streams):
            if stream is not None:
                stream.close()

    def consume(self, batches: int) -> None:
        """Moves the position behind so many training batches."""
        self.position = advance(self.position, batches * self.global_batch, self.skips)

    def begin_stretch(self, step: int, batch_in_epoch: int, accumulate: int, ranks: int) -> None:
        """Notes how the steps after `step` updates will consume data; see data_engine/steps.py."""
        new = Stretch(
            step=step,
            position=self.position,
            batch_in_epoch=batch_in_epoch,
            global_batch=self.global_batch,
            accumulate=accumulate,
            epoch_batches=len(self.stream) * self.stream.accumulate if self.stream else accumulate,
            ranks=ranks,
            seed=self.seed,
            split="train",
            index=str(self.index_folder.absolute() if isinstance(self.index_folder, Path) else self.index_folder),
            identity=self._note_order()["identity"],
            skips=self.skips,
            order=self.order(),
        )
        self.history = continued(self.history, new)

    def skip_steps(self, ranges: Collection[tuple[int, int]]) -> None:
        """Leaves out the data of steps first..last (both included), as the run so far would have consumed it.

        Called after `load_data_state`. InputError: a step that the checkpoint is already behind.
        """
        now = self.seed, self._note_order()["identity"], self.order()
        latest = self.history[-1] if self.history else None
        if ranges and latest and (latest.seed, latest.identity, latest.order) != now:
            raise InputError(
                "--skip_steps speaks of the old data order, which a change of seed, shards, mixture or packing "
                "has ended."
            )
        found = [skip_range(self.history, first, last) for first, last in ranges]
        for (first, last), (start, _) in zip(ranges, found, strict=True):
            if start < self.position:
                raise InputError(
                    f"--skip_steps {first}..{last}: the checkpoint has already trained on step {first}. "
                    f"Resume from one before it."
                )
        self.skips = merged([*self.skips, *found])

    def data_state(self) -> dict[str, Any]:
        """What `data_state.json` holds."""
        return {
            "schema": SCHEMA,
            "position": self.position,
            "seed": self.seed,
            "global_batch": self.global_batch,
            **self._note_order(),
            "skips": self.skips,
            "history": as_json(self.history),
        }

    def _note_order(self, index: SampleIndex | None = None) -> dict[str, str]:
        """What the order of training samples follows from, as hashes: of the index, and of the ledger over it.

        Read once, when training starts: a checkpoint must not fail because a shard vanished since.
        """
        from data_engine.batch_plan import ledger_of

        if not self._order:
            index = index or self.open_index()
            ledger = ledger_of(self.loader_settings("train"), index)
            self._order = {"identity": index.identity, "ledger": ledger.identity("train")}
        return self._order

    def load_data_state(self, state: dict[str, Any], allowed: Collection[str] = ()) -> None:
        """Continues at a saved position.

        InputError when the data or its order would not be the saved one, unless the name of the change (CONSENT) is in
        `allowed`. With another seed or other shards a new epoch begins: the old position would mean other samples.
        """
        if state.get("schema") != SCHEMA:
            raise InputError(
                f"the data state has schema {state.get('schema')}; this mmzoo reads schema {SCHEMA}. "
                f"Resume with the mmzoo that wrote it, or start anew with --init_from."
            )
        changed = self._changes(state)
        for name, problem in changed.items():
            if name not in allowed:
                raise InputError(
                    f"{problem} Set it back, start anew with --init_from, or consent with --allow_changes {name}."
                )
        if not changed.keys() & NEW_ORDER and state["ledger"] != self._note_order()["ledger"]:
            raise InputError(
                "the checkpoint's samples stood in another order than this mmzoo gives them, so its position means "
                "nothing. Resume with the mmzoo that wrote it, or start anew with --init_from."
            )
        self.position = int(state["position"])
        self.skips = merged(state.get("skips", ()))
        self.history = from_json(state.get("history", ()))
        if changed.keys() & NEW_ORDER:
            from data_engine.batch_plan import ledger_of

            ledger = ledger_of(self.loader_settings("train"), self.open_index())
            self.position = ledger.next_epoch(self.position)
            self.skips = ()

    def _changes(self, state: dict[str, Any]) -> dict[str, str]:
        found = {}
        if state["identity"] != self._note_order()["identity"]:
            found["shards"] = (
                f"the shards in {self.index_folder} are not those of the checkpoint, so its position means nothing."
            )
        if state["seed"] != self.seed:
            found["seed"] = (
                f"data.init_args.seed is {self.seed}, the checkpoint was trained with {state['seed']}: another order."
            )
        if (before := state.get("global_batch", self.global_batch)) != self.global_batch:
            found["global_batch"] = (
                f"data.init_args.global_batch is {self.global_batch}, the checkpoint was trained with {before}."
            )
        return found
