"""A made-up landscape: fields, woods, a river, roads and a town, in metres, so that sensors differ in detail."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_engine.generators.backscatter import BARE, BUILDING, CROP, FOREST, ROAD, WATER
from data_engine.generators.gaussian_fields import smooth_noise

Random = np.random.Generator
Labels = NDArray[np.uint8]

FIELD_METRES, WOOD_METRES, RIVER_METRES, ROAD_METRES = 350.0, 600.0, 120.0, 20.0
HOUSE_METRES, STREET_METRES = (25.0, 90.0), 20.0
#: Share of the fields that lie bare, share of the land that is wooded, of its width and height that is town.
BARE_SHARE, WOOD_SHARE, TOWN_SHARE = 0.3, 0.25, 0.35
#: Share of the buildings with a corner that reflects everything.
POINT_SHARE = 0.1


@dataclass(frozen=True)
class Regions:
    """`labels` (H, W) uint8 in CLASSES; `fields` (H, W) int, which field a pixel lies in; `walls` (H, W) bool, the side
    of buildings that faces the radar (near range is on the left); `points` (N, 2) rows and columns of corners.
    """

    labels: Labels
    fields: NDArray[np.int64]
    walls: NDArray[np.bool_]
    points: NDArray[np.int64]


def make_regions(random: Random, shape: tuple[int, int], spacing: float) -> Regions:
    """A map of `shape` pixels, `spacing` metres apart. Later things lie over earlier ones: fields, woods, river, roads,
    town.
    """
    fields, kinds = _fields(random, shape, FIELD_METRES / spacing)
    labels = kinds[fields]
    wooded = smooth_noise(random, shape, min(WOOD_METRES / spacing, min(shape)) / 4)
    labels[wooded > np.quantile(wooded, 1 - WOOD_SHARE)] = FOREST
    labels[_river(random, shape, RIVER_METRES / spacing)] = WATER
    for _ in range(2):
        labels[_straight(random, shape, max(1.0, ROAD_METRES / spacing))] = ROAD
    walls, points = _town(random, labels, spacing)
    return Regions(labels, fields, walls, points)


def _fields(random: Random, shape: tuple[int, int], side: float) -> tuple[NDArray[np.int64], Labels]:
    """Nearest of scattered centres by the city-block distance of turned axes: fields with straight, slanted sides."""
    count = max(4, round(shape[0] * shape[1] / side**2))
    centres = random.uniform(0, 1, (count, 2)) * shape
    turn = random.uniform(0, math.pi / 2)
    axes = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    turned = centres @ axes
    pixels = np.moveaxis(np.indices(shape), 0, -1) @ axes
    nearest = np.zeros(shape, np.int64)
    least = np.full(shape, np.inf)
    for number, centre in enumerate(turned):  # one field at a time: memory stays that of a few images
        distance = np.abs(pixels - centre).sum(-1)
        closer = distance < least
        nearest[closer] = number
        least[closer] = distance[closer]
    return nearest, np.where(random.random(count) < BARE_SHARE, BARE, CROP).astype(np.uint8)


def _river(random: Random, shape: tuple[int, int], width: float) -> NDArray[np.bool_]:
    """A band from top to bottom that winds, as wide as `width` on average, at least 3 pixels."""
    rows, columns = np.arange(shape[0]), np.arange(shape[1])
    swing = shape[1] * random.uniform(0.05, 0.12)
    phase, waves = random.uniform(0, 2 * math.pi), random.uniform(0.7, 1.6)
    middle = shape[1] * random.uniform(0.15, 0.4) + swing * np.sin(2 * math.pi * waves * rows / shape[0] + phase)
    half = max(width, 3) / 2 * (1 + 0.3 * np.sin(rows / max(width, 3) + phase))
    return np.abs(columns - middle[:, None]) < half[:, None]


def _straight(random: Random, shape: tuple[int, int], width: float) -> NDArray[np.bool_]:
    """A line across the map, `width` pixels wide."""
    angle = random.uniform(0, math.pi)
    row, column = random.uniform(0.2, 0.8, 2) * shape
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.abs((rows - row) * math.cos(angle) - (columns - column) * math.sin(angle)) <= width / 2


def _town(random: Random, labels: Labels, spacing: float) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Puts rows of buildings between streets into `labels`; returns their walls and corners."""
    shape = labels.shape
    extent = [max(8, round(TOWN_SHARE * side)) for side in shape]
    top, left = (int(random.integers(0, max(1, side - part))) for side, part in zip(shape, extent, strict=True))
    bottom, right = min(shape[0], top + extent[0]), min(shape[1], left + extent[1])
    street = max(1, round(STREET_METRES / spacing))
    walls, points = np.zeros(shape, bool), []
    labels[top:bottom, left:right] = ROAD
    row = top + street
    while row < bottom:
        depth = _house(random, spacing)
        column = left + street
        while column < right:
            end = min(column + _house(random, spacing), right)
            labels[row : min(row + depth, bottom), column:end] = BUILDING
            walls[row : min(row + depth, bottom), column] = True
            if random.random() < POINT_SHARE:
                points.append((row, column))
            column = end + street
        row += depth + street
    return walls, np.array(points, np.int64).reshape(-1, 2)


def _house(random: Random, spacing: float) -> int:
    return max(2, round(random.uniform(*HOUSE_METRES) / spacing))
