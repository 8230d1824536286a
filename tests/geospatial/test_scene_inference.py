"""Scenes in row bands: against the plain definition, in closed form, and whatever the batch and the order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geospatial.raster import Pixels, Raster, RasterSettings, Window
from geospatial.scene_accumulator import RowAccumulator
from geospatial.scene_inference import Band, reference, stream, tile_batch
from geospatial.scene_reader import BandReader
from geospatial.scene_tiles import Blend, plan_axis, plan_scene
from mmzoo.errors import InputError

CROP = 8


class Model:
    """A tile model of a function on (B, C, h, w)."""

    device = torch.device("cpu")

    def __init__(self, function, channels: int) -> None:
        self.function, self.channels, self.sizes = function, channels, []

    def predict(self, values, valid):
        self.sizes.append(len(values))
        return self.function(values)


class Memory:
    """An array that is read like a raster, and notes which rows were."""

    def __init__(self, values, valid=None, block_rows: int = 1) -> None:
        self.values, self.block_rows = values.astype(np.float32), block_rows
        self.valid = np.ones(values.shape[1:], bool) if valid is None else valid
        self.bands, self.read_rows = tuple(range(len(values))), []

    def read_into(self, window, into):
        rows = slice(window.top, window.top + window.height)
        columns = slice(window.left, window.left + window.width)
        self.read_rows.append((rows.start, rows.stop))
        into.valid[:] = self.valid[rows, columns]
        into.values[:] = self.values[:, rows, columns] * into.valid

    def whole(self):
        return Pixels(self.values * self.valid, self.valid)

    def refuse_impossible(self, pixels):
        pass


def streamed(memory, blend, model, batch=3, done=0):
    height, width = memory.valid.shape
    with BandReader(memory, Window(0, 0, height, width), blend.crop) as reader:
        found = stream(plan_scene(height, width, blend), reader, model, batch, done)
        bands = [Band(band.top, band.values.clone(), band.valid.copy()) for band in found]
    assert [band.top for band in bands] == list(np.cumsum([done, *(len(band.valid) for band in bands[:-1])]))
    return np.concatenate([band.values.numpy() for band in bands], 1)


BLENDS = [Blend(CROP, 0, 0), Blend(CROP, 2, 1), Blend(CROP, 4, 1), Blend(CROP, 5, 2, "constant"), Blend(CROP, 7, 0)]


@pytest.mark.parametrize("blend", BLENDS, ids=str)
def test_shares_of_tiles_add_up_to_one_everywhere(blend):
    for length in range(1, 4 * CROP):
        axis = plan_axis(length, blend)
        total = np.zeros(max(length, CROP))
        for start, weights in zip(axis.starts, axis.weights, strict=True):
            total[start : start + CROP] += weights
        np.testing.assert_allclose(total, 1, atol=1e-6)
        assert axis.starts[-1] == max(0, length - CROP)


@pytest.mark.parametrize("blend", BLENDS, ids=str)
def test_an_identity_model_gives_back_every_size(blend):
    """Also sizes at which other tilings lose pixels: one more or less than a tile and its borders."""
    random = np.random.default_rng(0)
    for height in range(1, 2 * CROP + 4):
        for width in (1, 3, CROP - 1, CROP, CROP + 1, 2 * CROP - 3, 2 * CROP, 2 * CROP + 3):
            scene = np.eye(2)[random.integers(0, 2, (height, width))].transpose(2, 0, 1)
            found = streamed(Memory(scene), blend, Model(lambda tiles: tiles, 2))
            np.testing.assert_array_equal(found.argmax(0), scene.argmax(0))
            np.testing.assert_allclose(found, scene, atol=1e-6)


def neighbours(tiles):
    """Answers that depend on where the tile lies: what makes seams."""
    mean = tiles.mean((1, 2, 3), keepdim=True)
    return torch.cat([tiles.roll(1, -1), tiles * mean, mean.expand_as(tiles)], 1)


@pytest.mark.parametrize("blend", BLENDS, ids=str)
@pytest.mark.parametrize("size", [(5, 6), (8, 8), (9, 30), (37, 21)])
def test_bands_agree_with_the_whole_scene_in_memory(blend, size):
    random = np.random.default_rng(1)
    scene, valid = random.normal(size=(2, *size)), random.random(size) > 0.2
    model = Model(neighbours, 6)
    memory = Memory(scene, valid, block_rows=3)
    expected = reference(memory.whole(), blend, model)
    found = streamed(memory, blend, model)
    np.testing.assert_allclose(found[:, valid], expected[:, valid], atol=1e-5)


def test_neither_batch_nor_order_matters():
    scene = np.random.default_rng(2).normal(size=(1, 30, 41))
    blend = Blend(CROP, 4, 1)
    one = streamed(Memory(scene), blend, Model(neighbours, 3), batch=1)
    many = Model(neighbours, 3)
    np.testing.assert_allclose(streamed(Memory(scene), blend, many, batch=4), one, atol=1e-5)
    assert max(many.sizes) == 4
    plan = plan_scene(CROP, 41, blend)
    forwards, backwards = (RowAccumulator(plan, 3, torch.device("cpu")) for _ in range(2))
    pixels = Pixels(scene[:, :CROP].astype(np.float32), np.ones((CROP, 41), bool))
    answers = neighbours(tile_batch(pixels, plan.columns.starts, CROP)[0])
    for column in range(len(answers)):
        forwards.add(0, column, answers[column])
        backwards.add(0, len(answers) - 1 - column, answers[len(answers) - 1 - column])
    torch.testing.assert_close(forwards.take(0), backwards.take(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("overlap", [2, 5, 7])
def test_a_start_in_the_middle_gives_the_same_bits(overlap):
    scene = np.random.default_rng(3).normal(size=(1, 53, 19))
    blend = Blend(CROP, overlap, 1)
    whole = streamed(Memory(scene), blend, Model(neighbours, 3))
    for done in (0, 1, 7, 20, 45, 52):
        np.testing.assert_array_equal(streamed(Memory(scene), blend, Model(neighbours, 3), done=done), whole[:, done:])


@pytest.mark.parametrize("block_rows", [1, 4, 16, 1000])
def test_each_row_is_read_once_and_blocks_are_not_split(block_rows):
    memory = Memory(np.zeros((1, 100, 10)), block_rows=block_rows)
    streamed(memory, Blend(CROP, 4, 1), Model(lambda tiles: tiles, 1))
    assert [start for start, _ in memory.read_rows] == [0, *(stop for _, stop in memory.read_rows[:-1])]
    assert memory.read_rows[-1][1] == 100
    if block_rows <= 2 * CROP:
        assert all(stop % block_rows == 0 or stop == 100 for _, stop in memory.read_rows)


def test_tiles_without_data_are_not_looked_at():
    valid = np.zeros((40, 40), bool)
    valid[3, 4] = True
    model = Model(neighbours, 3)
    streamed(Memory(np.ones((1, 40, 40)), valid), Blend(CROP, 0, 0), model)
    assert model.sizes == [1]


def test_numbers_that_are_not_finite_are_named():
    def broken(tiles):
        return tiles.masked_fill(tiles == 77, torch.nan)

    scene = np.zeros((1, 20, 20))
    scene[0, 13, 5] = 77
    with pytest.raises(InputError, match="row 13, column 5"):
        streamed(Memory(scene), Blend(CROP, 2, 1), Model(broken, 1))


@pytest.mark.parametrize(("crop", "overlap", "halo"), [(0, 0, 0), (8, 8, 0), (8, -1, 0), (8, 4, 3)])
def test_impossible_blends_are_refused(crop, overlap, halo):
    with pytest.raises(InputError, match="must be"):
        Blend(crop, overlap, halo)


def test_values_of_another_domain_stop_a_scene(tmp_path, raster_at):
    path = raster_at(tmp_path / "a.tif", np.full((1, 20, 20), -12, np.float32))
    with Raster(path, RasterSettings()) as raster, BandReader(raster, raster.whole, CROP) as reader:  # noqa: SIM117
        with pytest.raises(InputError, match="negative"):
            reader.rows(0, CROP)
