"""Confusion counts of class maps against torchmetrics, both on one batch of masks at a time.

Theirs is MulticlassJaccardIndex as torchmetrics recommends for speed (validate_args=False), whose update is timed; ours
takes the bytes that masks are stored as, theirs the int64 that it asks for.
"""

from __future__ import annotations

import numpy as np
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from eval_suites.sar_segmentation.scores import miou
from geospatial.confusion import confusion_matrix
from tests.benchmarks.record import Comparison
from tests.benchmarks.timing import Contender, interleaved

SIDE, MAPS, ROUNDS = 512, 8, 7
LEAST_RATIO = 4.0


def compare() -> list[Comparison]:
    """Equal mIoU over all maps first; then accumulation timed, for few and for many classes."""
    return [_of_classes(classes) for classes in (2, 7, 19)]


def _of_classes(classes: int) -> Comparison:
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, (MAPS, SIDE, SIDE)).astype(np.uint8)
    wrong = random.random(labels.shape) < 0.3
    found = np.where(wrong, random.integers(0, classes, labels.shape), labels).astype(np.uint8)
    labels[:, :40] = 255
    theirs = MulticlassJaccardIndex(classes, ignore_index=255, validate_args=False)
    truth, guess = torch.from_numpy(labels).long(), torch.from_numpy(found).long()
    theirs.update(guess, truth)
    ours = miou(confusion_matrix(labels, found, classes))
    assert abs(float(theirs.compute()) - float(ours)) < 1e-6, (float(theirs.compute()), float(ours))
    contenders = {
        "ours": Contender(lambda: confusion_matrix(labels, found, classes)),
        "theirs": Contender(lambda: theirs.update(guess, truth)),
    }
    seconds = interleaved(contenders, ROUNDS)
    case = f"{MAPS} maps of {SIDE} x {SIDE}, {classes} classes"
    return Comparison(case, "torchmetrics", seconds["ours"], seconds["theirs"], at_least=LEAST_RATIO)
