"""Trains a small teacher on labels that stand in the images' paths: one folder a class, or part of the file's name."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from data_engine.index import ShardIndex, key_hash
from data_engine.reader import ShardReader
from data_engine.records import key_of
from mmzoo.errors import InputError
from mmzoo.training.optimizers import OptimizerSettings
from tokenizers_visual.evotok.tower_training import TowerTraining

#: The first folder of the path: how most labelled image sets are laid out.
FOLDER = r"^([^/]+)/"


class LabelTeacherTraining(TowerTraining):
    """Classification by label. `label_pattern`: regular expression over an image's path (relative to the folder that
    was built) whose first group is the label. Validation logs `val/accuracy`; an image whose label no training image
    has cannot be found and counts as a miss.
    """

    best_metric: ClassVar[tuple[str, Literal["min", "max"]] | None] = ("val/accuracy", "max")

    def __init__(
        self,
        variant: str = "evotok/tiny",
        overrides: dict[str, Any] | None = None,
        label_pattern: str = FOLDER,
        optimizer: OptimizerSettings | None = None,
    ) -> None:
        super().__init__(variant, overrides, optimizer)
        self.label_pattern = _checked_pattern(label_pattern)
        self._labels: dict[int, str] = {}
        self._classes: dict[str, int] = {}

    def configure_model(self) -> None:
        """The classifier: one class a label of the training split."""
        if self.classifier is not None:
            return
        index = self.shard_index()
        self._labels = labels_by_key(index, self.label_pattern)
        hashes = index.column("key_hash")[index.split_rows("train")].tolist()
        names = sorted({self._labels[value] for value in hashes})
        if len(names) < 2:
            raise InputError(
                f"model.label_pattern {self.label_pattern.pattern!r} finds only the label {names[0]!r} in "
                f"{index.folder}. Give one whose first group tells classes apart."
            )
        self._classes = {name: number for number, name in enumerate(names)}
        self.classifier = nn.Linear(self.model.config.hidden_size, len(names))

    def classes_of(self, batch: dict[str, Any]) -> Tensor:
        """int64 (B,): the number of each image's label; -1 for a label that no training image has."""
        names = [self._labels[key_hash(key_of(name))] for name in batch["sample_ids"]]
        return torch.tensor([self._classes.get(name, -1) for name in names], dtype=torch.int64, device=self.device)

    def validation_step(self, batch: dict[str, Any], _index: int) -> None:
        """Counts the images whose label is found."""
        if len(batch["image"]):
            hits = self.logits(batch["image"]).argmax(1) == self.classes_of(batch)
            self.log_ratio("val/accuracy", hits.sum(), len(hits))


def labels_by_key(index: ShardIndex, pattern: re.Pattern[str]) -> dict[int, str]:
    """{key hash: label} of every sample, from the path in its json (about 50,000 a second).

    InputError: a path that the pattern does not match.
    """
    reader = ShardReader(index)
    hashes = index.column("key_hash").tolist()
    return {hashes[row]: _label_of(str(reader.meta(row)["path"]), pattern) for row in range(index.count)}


def _label_of(path: str, pattern: re.Pattern[str]) -> str:
    match = pattern.search(path)
    if match is None or not match.group(1):
        raise InputError(
            f"model.label_pattern {pattern.pattern!r} finds no label in the path {path!r}. "
            f"Give a regular expression whose first group is the label, e.g. '^([^/]+)/' for one folder a class."
        )
    return match.group(1)


def _checked_pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as fault:
        raise InputError(f"model.label_pattern {text!r} is not a regular expression: {fault}. Correct it.") from None
    if pattern.groups < 1:
        raise InputError(f"model.label_pattern {text!r} has no group. Put brackets around the label: '^([^/]+)/'.")
    return pattern
