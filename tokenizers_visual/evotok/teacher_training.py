"""Trains a small teacher without labels: which photograph of the training split does this crop come from?"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from data_engine.index import key_hash
from data_engine.records import key_of
from mmzoo.errors import InputError
from mmzoo.training.optimizers import OptimizerSettings
from tokenizers_visual.evotok.tower_training import TowerTraining


class TeacherTraining(TowerTraining):
    """Instance discrimination on crops; validation asks the same of photographs that were never trained on."""

    best_metric: ClassVar[tuple[str, Literal["min", "max"]] | None] = ("val/same_photograph", "max")

    def __init__(
        self,
        variant: str = "evotok/tiny",
        overrides: dict[str, Any] | None = None,
        optimizer: OptimizerSettings | None = None,
    ) -> None:
        super().__init__(variant, overrides, optimizer)
        self._classes: dict[int, int] = {}
        self._seen: list[tuple[Tensor, ...]] = []

    def configure_model(self) -> None:
        """The classifier: one class a photograph of the training split, known once the data are."""
        if self.classifier is not None:
            return
        index = self.shard_index()
        hashes = index.column("key_hash")[index.split_rows("train")].tolist()
        if len(hashes) < 2:
            raise InputError(f"{index.folder} has {len(hashes)} training photographs; telling them apart needs 2.")
        self._classes = {value: number for number, value in enumerate(sorted(hashes))}
        self.classifier = nn.Linear(self.model.config.hidden_size, len(hashes))

    def classes_of(self, batch: dict[str, Any]) -> Tensor:
        """int64 (B,): the number of each crop's photograph."""
        numbers = [self._classes[key_hash(key_of(name))] for name in batch["sample_ids"]]
        return torch.tensor(numbers, dtype=torch.int64, device=self.device)

    def validation_step(self, batch: dict[str, Any], _index: int) -> None:
        """Keeps the features; the crops of an epoch are compared with each other at its end."""
        if len(batch["image"]):
            images = batch["image"]
            photographs = torch.tensor(
                [_signed(key_hash(key_of(name))) for name in batch["sample_ids"]], device=self.device
            )
            self._seen.append((self.features(images).float(), images.float().mean((2, 3)), photographs))

    def on_validation_epoch_end(self) -> None:
        """Logs `val/same_photograph`: how often the crop most alike to a crop is of the same photograph.

        Beside it, the same by mean colour alone (by distance, without a network) and by chance.
        """
        seen, self._seen = self._seen, []
        if seen := _from_all_ranks(seen):
            features, colours, photographs = (torch.cat(parts) for parts in zip(*seen, strict=True))
            hits, count, chance = same_photograph(F.normalize(features, dim=1), photographs)
            by_colour, _, _ = same_photograph(colours, photographs)
            # Every rank has the whole answer; the sums over ranks cancel in the ratio.
            self.log_ratio("val/same_photograph", hits, count)
            self.log_ratio("val/same_photograph_by_colour", by_colour, count)
            self.log_ratio("val/same_photograph_by_chance", chance, count)
        super().on_validation_epoch_end()


def same_photograph(vectors: Tensor, photographs: Tensor) -> tuple[int, int, float]:
    """Vectors (N, C) and photograph numbers (N,) -> (crops whose nearest other crop shares the number, crops that have
    such a crop at all, the hits that a random choice among the others would have).
    """
    same = photographs[:, None] == photographs[None]
    same.fill_diagonal_(False)
    possible = same.any(1)
    if not bool(possible.any()):
        return 0, 0, 0.0
    nearest = (
        torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf).argmin(1)
    )
    hits = same.gather(1, nearest[:, None])[:, 0] & possible
    chance = same.sum(1)[possible].double() / (len(vectors) - 1)
    return int(hits.sum()), int(possible.sum()), float(chance.sum())


def _signed(value: int) -> int:
    """64 bits as torch's int64 holds them."""
    return value - 2**64 if value >= 2**63 else value


def _from_all_ranks(seen: list[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
    """What every rank kept, in the order of the ranks; on the CPU where there are several."""
    if not (dist.is_available() and dist.is_initialized()):
        return seen
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, [tuple(part.cpu() for part in batch) for batch in seen])
    return [batch for rank in everyone for batch in rank]
