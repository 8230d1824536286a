"""What CrossEarth-SAR's demo found out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geospatial.crossearth_sar.demo_measure import Measured, Scene
from geospatial.crossearth_sar.demo_upcycling import Identity
from geospatial.crossearth_sar.segmentation_model import CrossEarthSARForSegmentation
from mmzoo.demo import Demo


@dataclass(frozen=True)
class Outcome:
    """Everything that the report is written from; models, baselines and scenes by name and sensor."""

    demo: Demo
    model: CrossEarthSARForSegmentation
    identity: Identity
    scenes: dict[str, list[Scene]]
    experts: dict[str, Measured]
    dense: dict[str, Measured]
    baselines: dict[str, dict[str, np.ndarray]]  #: sensor -> name -> matrices (N, K, K)
    reloaded_outputs: list[str]  #: outputs that a fresh process gave bit for bit
