"""Training data straight from rasters: the `data` section of a segmentation run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geospatial.class_masks import IGNORE, ClassTable
from geospatial.raster_index import RasterIndex, RasterReader
from geospatial.raster_sources import RasterSource, find_pairs
from geospatial.window_transform import Augmentation, TrainingWindow, ValidationTile
from mmzoo.errors import InputError
from mmzoo.training.data_module import ShardData

if TYPE_CHECKING:
    from data_engine.loader import LoaderSettings


class RasterData(ShardData):
    """Random windows of rasters with class masks, from large scenes as well as from chips.

    sources: the sets of rasters. classes: {id in the masks: name}, or a JSON or YAML file of that; their order is that
    of the model's outputs. window: side in px of what the model sees. global_batch: windows a batch over all ranks.
    ignore: ids that mean "not labelled". val_fraction: share of each source's rasters that is for validation, where
    neither the source nor its list says. augmentation: default: the family's. steps_per_epoch: batches between
    validations (default: as many windows as the training area holds). workers, seed, val_batch, max_broken,
    max_broken_share: as in ShardData.

    Which window stands at which position follows from (seed, epoch, position) alone, for any ranks and workers.
    """

    def __init__(  # noqa: PLR0913 - the keys of the YAML section `data`
        self,
        sources: list[RasterSource],
        classes: dict[int, str] | str,
        window: int,
        global_batch: int,
        ignore: int | list[int] = IGNORE,
        val_fraction: float = 0.2,
        augmentation: Augmentation | None = None,
        val_batch: int | None = None,
        steps_per_epoch: int | None = None,
        workers: int = 0,
        seed: int = 0,
        max_broken: int | None = None,
        max_broken_share: float | None = None,
    ) -> None:
        if not sources:
            raise InputError("data.init_args.sources is empty. Name at least one set of rasters")
        if window < 1:
            raise InputError(f"data.init_args.window must be at least 1 px, not {window}")
        if not 0 <= val_fraction < 1:
            raise InputError(f"data.init_args.val_fraction must be in 0 to 1 (excluded), not {val_fraction}")
        names = [source.name for source in sources]
        if len(set(names)) < len(names):
            raise InputError(f"data.init_args.sources: each needs a name of its own, not {names}")
        super().__init__(
            index=sources[0].images,
            transform=TrainingWindow(window, augmentation or Augmentation()),
            global_batch=global_batch,
            val_transform=ValidationTile(window),
            val_batch=val_batch,
            steps_per_epoch=steps_per_epoch,
            workers=workers,
            seed=seed,
            max_broken=max_broken,
            max_broken_share=max_broken_share,
        )
        self.sources = sources
        self.table = ClassTable.of(classes, ignore if isinstance(ignore, int) else tuple(ignore))
        self.window = window
        self.val_fraction = val_fraction
        self._index: RasterIndex | None = None

    def open_index(self) -> RasterIndex:
        """The index of all rasters, made once. InputError: a raster or mask that does not fit."""
        if self._index is None:
            pairs = [find_pairs(source, self.val_fraction) for source in self.sources]
            self._index = RasterIndex(self.sources, pairs, self.table, self.window)
        return self._index

    def open_reader(self, settings: LoaderSettings) -> RasterReader:  # noqa: ARG002 - shards need them
        """A reader of the index."""
        return RasterReader(self.open_index())
