"""The `data` section of a run that trains on several shard folders, packed or not."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Literal

from data_engine.remote import DEFAULT_CACHE_GB
from mmzoo.training.data_module import ShardData, Transform

if TYPE_CHECKING:
    from data_engine.ledger import Ledger
    from data_engine.loader import LoaderSettings
    from data_engine.mixed_source import MixedIndex, MixedReader


class MixtureData(ShardData):
    """Training batches from a mixture of shard folders; validation is every validation row of each, once.

    mixture: {sources: {NAME: FOLDER or URL}, parts: [...]}, or a YAML file of that, see docs/mixtures.md. packing:
    null, or {capacity, over_long, lengths, window, balance}: a batch then holds packs, and global_batch and val_batch
    count these.
    The rest as in ShardData; steps_per_epoch is by default one epoch of the mixture.
    """

    def __init__(  # noqa: PLR0913 - the keys of the YAML section `data`
        self,
        mixture: dict[str, Any] | str,
        transform: Transform,
        global_batch: int,
        packing: dict[str, Any] | None = None,
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
        from data_engine.mixture_grammar import read_mixture
        from data_engine.pack_ledger import Packing

        self.mixture = read_mixture(mixture)
        self.packing = None if packing is None else Packing.read(packing)
        super().__init__(
            index=str(next(iter(self.mixture.sources.values()))),
            transform=transform,
            global_batch=global_batch,
            val_transform=val_transform,
            val_batch=val_batch,
            steps_per_epoch=steps_per_epoch,
            val_passes=val_passes,
            workers=workers,
            seed=seed,
            cache_mb=cache_mb,
            background=background,
            max_broken=max_broken,
            max_broken_share=max_broken_share,
            cache_dir=cache_dir,
            cache_gb=cache_gb,
        )
        self._index: MixedIndex | None = None

    def open_index(self) -> MixedIndex:
        """All sources as one index, opened once. InputError: a source that is missing, empty or misspelt."""
        from data_engine.mixed_source import MixedIndex

        if self._index is None:
            self._index = MixedIndex.open(self.mixture, self.packing, self.remote)
        return self._index

    def open_reader(self, settings: LoaderSettings) -> MixedReader:
        """A reader of all sources."""
        from data_engine.mixed_source import MixedReader

        each = self.cache_mb * 2**20 // max(1, settings.workers)
        return MixedReader(self.open_index(), self.decode_rules(), each)

    def order(self) -> str:
        """What `mmzoo data why` needs to find the order again: sources, parts and packing, as JSON."""
        from data_engine.data_order import order_text

        return order_text(self.mixture, self.packing)

    def announce(self, ledger: Ledger) -> None:
        """The table of an epoch, on stderr, before step 1."""
        from data_engine.mixture_table import planned_table

        sys.stderr.write(planned_table(self.open_index(), ledger))

    def report_consumed(self) -> None:
        """The table of what all steps so far consumed, on stderr; with an older order, of those since it changed."""
        from data_engine.batch_plan import ledger_of
        from data_engine.mixture_table import consumed_counts, consumed_table

        index = self.open_index()
        ledger = ledger_of(self.loader_settings("train"), index)
        now = (self.seed, self._note_order()["identity"], self.order())
        same = [part for part in self.history if (part.seed, part.identity, part.order) == now]
        start = same[0].position if same else self.position
        sys.stderr.write(consumed_table(consumed_counts(index, ledger, start, self.position, self.skips)))

    def data_state(self) -> dict[str, Any]:
        """As in ShardData, with the mixture and the packing."""
        return {**super().data_state(), **self._described()}

    def _described(self) -> dict[str, Any]:
        order = json.loads(self.order())
        return {
            "mixture": {"sources": sorted(order["sources"]), "parts": order["mixture"]},
            "packing": order["packing"],
        }

    def _changes(self, state: dict[str, Any]) -> dict[str, str]:
        found = super()._changes(state)
        for name, value in self._described().items():
            if state.get(name) != value:
                found[name] = f"data.init_args.{name} is not that of the checkpoint: another order."
        return found
