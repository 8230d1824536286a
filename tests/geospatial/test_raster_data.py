"""Windows from rasters: which ones, in which order, and the same for any ranks, workers and resumes."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geospatial.class_masks import IGNORE
from geospatial.raster import Pixels
from geospatial.raster_data import RasterData
from geospatial.raster_index import own_tiles
from geospatial.raster_sources import RasterSource, find_pairs, least_percent
from geospatial.window_transform import Augmentation, fitted, largest_share
from mmzoo.errors import InputError

CLASSES = {0: "land", 1: "water"}
SIZES = {"a": (70, 90), "b": (32, 32), "c": (20, 50), "d": (64, 64), "e": (33, 40)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, raster_at):
    """Five amplitude rasters of several sizes with masks: water where the value is low."""
    root = tmp_path_factory.mktemp("rasters")
    random = np.random.default_rng(0)
    for name, (height, width) in SIZES.items():
        values = random.random((1, height, width), dtype=np.float32) + 0.5
        values[0, : height // 3] *= 0.2
        values[0, -2:, -3:] = np.nan
        mask = np.zeros((1, height, width), np.uint8)
        mask[0, : height // 3] = 1
        mask[0, 0] = 255
        raster_at(root / "images" / f"{name}.tif", values)
        raster_at(root / "masks" / f"{name}.tif", mask, None)
    return root


def source(folder, **options) -> RasterSource:
    return RasterSource(**{"images": str(folder / "images"), "masks": str(folder / "masks"), **options})


def data(folder, sources=None, **options) -> RasterData:
    given_ = {"classes": CLASSES, "window": 32, "global_batch": 6, "val_fraction": 0.3, "seed": 3, **options}
    return RasterData(sources or [source(folder)], **given_)


def batches(module: RasterData, count: int) -> list[dict]:
    stream = iter(module.train_dataloader().make())
    return [next(stream) for _ in range(count)]


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[key], other[key]) if isinstance(one[key], torch.Tensor) else one[key] == other[key]
        for key in one
    )


def test_the_batch_and_its_units(folder):
    batch = batches(data(folder), 1)[0]
    assert batch["image"].shape == (6, 1, 32, 32)
    assert batch["image"].dtype == torch.float32
    assert batch["labels"].dtype == torch.int64
    assert batch["valid"].dtype == torch.bool
    assert set(batch["labels"].unique().tolist()) <= {0, 1, IGNORE}
    assert batch["domain"] == ["amplitude"] * 6
    assert not batch["labels"][~batch["valid"]].ne(IGNORE).any()
    assert not batch["image"][:, 0][~batch["valid"]].any()


def test_rows_follow_the_area_and_the_splits_do_not_meet(folder):
    index = data(folder).open_index()
    train, val = (index.split_rows(split) for split in ("train", "val"))
    assert len(train) + len(val) == index.count
    rasters = [{index.entries[place.raster].pair.key for place in index.places(rows)} for rows in (train, val)]
    assert rasters[0] | rasters[1] == set(SIZES)
    assert not rasters[0] & rasters[1]
    for key in rasters[0]:
        rows = [row for row in train if index.entries[index.places([row])[0].raster].pair.key == key]
        assert len(rows) == max(1, round(SIZES[key][0] * SIZES[key][1] / 32**2))


def test_batches_are_the_same_for_any_workers_ranks_and_resume(folder):
    straight = batches(data(folder), 4)
    assert all(same(one, other) for one, other in zip(straight, batches(data(folder, workers=1), 4), strict=True))
    resumed = data(folder)
    resumed.load_data_state({**data(folder).data_state(), "position": 12})
    assert all(same(one, other) for one, other in zip(straight[2:], batches(resumed, 2), strict=True))

    from dataclasses import replace

    from data_engine.loader import make_loader

    halves = []
    for rank in range(2):
        module = data(folder)
        options = replace(module.loader_settings("train"), rank=rank, ranks=2)
        loader = iter(make_loader(options, module.transform, None, module.open_reader(options)))
        halves.append([next(loader) for _ in range(2)])
    for whole, left, right in zip(straight[:2], *halves, strict=True):
        assert torch.equal(whole["image"], torch.cat([left["image"], right["image"]]))
        assert torch.equal(whole["labels"], torch.cat([left["labels"], right["labels"]]))
        assert whole["sample_ids"] == left["sample_ids"] + right["sample_ids"]
    other_seed = batches(data(folder, seed=4), 1)[0]
    assert not same(straight[0], other_seed)


def test_a_changed_mask_is_another_data_set(folder, raster_at, tmp_path):
    raster_at(tmp_path / "images" / "x.tif", np.ones((1, 40, 40), np.float32))
    raster_at(tmp_path / "masks" / "x.tif", np.zeros((1, 40, 40), np.uint8), None)
    both = [source(folder), source(tmp_path, name="more", split="train")]
    before = data(folder, both)
    state = before.data_state()
    data(folder, both).load_data_state(state)
    raster_at(tmp_path / "masks" / "x.tif", np.ones((1, 40, 40), np.uint8), None)
    with pytest.raises(InputError, match="are not those of the checkpoint"):
        data(folder, both).load_data_state(state)


def test_validation_sees_each_pixel_once(folder):
    module = data(folder, val_batch=2)
    index = module.open_index()
    seen = labelled = 0
    for batch in module.val_dataloader():
        assert batch["gain"].eq(1).all()
        seen += int(batch["labels"].ne(IGNORE).sum())
    for entry in index.entries:
        if entry.pair.split == "val":
            labelled += (entry.height - 1) * entry.width - 2 * 3  # the unlabelled row, the hole in the corner
    assert seen == labelled > 0


@given(height=st.integers(1, 90), width=st.integers(1, 90), size=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_own_parts_of_tiles_partition_the_raster(height, width, size):
    seen = np.zeros((height, width), int)
    for tile in own_tiles(height, width, size):
        top, left, rows, columns = tile.window
        seen[top : top + rows, left : left + columns][tile.own_top :, tile.own_left :] += 1
    assert (seen == 1).all()


def test_what_has_no_data_spreads_nowhere():
    """A constant with holes of any value stays that constant, at every enlargement."""
    random = np.random.default_rng(0)
    valid = random.random((24, 24)) > 0.3
    values = np.where(valid, np.float32(7), np.float32(-1000))[None]
    for side in (24, 12, 48, 17):
        image, known, labels = fitted(Pixels(values, valid), np.ones((24, 24), np.uint8), side, 24)
        assert image.shape == (1, 24, 24)
        torch.testing.assert_close(image[0][known], torch.full_like(image[0][known], 7))
        assert not image[0][~known].any()
        assert labels[~known].eq(IGNORE).all()


def test_a_raster_smaller_than_the_window_is_padded_with_nothing():
    image, valid, labels = fitted(
        Pixels(np.ones((2, 5, 9), np.float32), np.ones((5, 9), bool)), np.zeros((5, 9), np.uint8), 16, 16
    )
    assert valid[:5, :9].all()
    assert valid.sum() == 45
    assert (labels != IGNORE).sum() == 45
    assert image[:, 5:].eq(0).all()


def test_windows_of_one_class_are_drawn_again(folder):
    """Water fills the upper third: alone it would cover most of some windows."""
    quick = {"scale_min": 1.0, "scale_max": 1.0}
    shares = []
    for limit in (1.0, 0.75):
        found = batches(data(folder, augmentation=Augmentation(**quick, max_class_share=limit, tries=20)), 4)
        shares.append(np.mean([largest_share(one.numpy().astype(np.uint8)) for b in found for one in b["labels"]]))
    assert shares[1] < shares[0]
    assert largest_share(np.full((2, 2), IGNORE, np.uint8)) == 1


def test_the_list_in_a_csv_file_says_pairs_and_splits(folder, tmp_path):
    rows = [("image", "mask", "split")]
    rows += [
        (str(folder / f"images/{n}.tif"), str(folder / f"masks/{n}.tif"), "val" if n == "a" else "train") for n in "abd"
    ]
    with (tmp_path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    pairs = find_pairs(RasterSource(str(tmp_path / "list.csv")), 0.2)
    assert [(pair.image.stem, pair.split) for pair in pairs] == [("a", "val"), ("b", "train"), ("d", "train")]
    target = find_pairs(RasterSource(str(tmp_path / "list.csv"), role="target"), 0.2)
    assert {pair.split for pair in target} == {"val"}


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("image,masks\na.tif,b.tif\n", "column 'masks'.* Did you mean 'mask'"),
        ("image\na.tif\n", "needs the columns image and mask"),
        ("image,mask,split\na.tif,b.tif,test\n", "line 2: split 'test'"),
        ("image,mask\na.tif\n", "line 2: image or mask is empty"),
        ("\ufeffimage,mask\n,b.tif\n", "line 2: image or mask is empty"),
        ("image,mask\na.tif,b.tif\na.tif,c.tif\n", "line 3: a.tif is listed twice"),
        ("image,mask\na,b\na,c\n", "line 3: a is listed twice"),
        ("image,mask\ne/a.tif,b.tif\n../e/a.tif,c.tif\n", r"line 3: ../e/a.tif and e/a.tif are two files of one name"),
        ("image,mask\n.,b.tif\n", "line 2: '.' is no file"),
        ("image,mask\n", "no raster in"),
    ],
)
def test_lists_that_are_none(tmp_path, lines, reason):
    (tmp_path / "list.csv").write_text(lines)
    with pytest.raises(InputError, match=reason):
        find_pairs(RasterSource(str(tmp_path / "list.csv")), 0.2)


def test_files_without_a_partner_are_named(folder, raster_at, tmp_path):
    raster_at(tmp_path / "images" / "a.tif", np.ones((1, 4, 4), np.float32))
    (tmp_path / "masks").mkdir()
    with pytest.raises(InputError, match="1 files have no mask"):
        find_pairs(source(tmp_path), 0.2)
    raster_at(tmp_path / "masks" / "a.tif", np.ones((1, 4, 4), np.uint8), None)
    raster_at(tmp_path / "masks" / "b.tif", np.ones((1, 4, 4), np.uint8), None)
    with pytest.raises(InputError, match="1 files have no raster"):
        find_pairs(source(tmp_path), 0.2)
    with pytest.raises(InputError, match="neither a folder nor a"):
        find_pairs(RasterSource(str(tmp_path / "none")), 0.2)
    with pytest.raises(InputError, match=r"source 'rasters': https://host/images is a URL, .* Download them"):
        data(tmp_path, [RasterSource("https://host/images", str(tmp_path / "masks"))]).open_index()


def test_ids_out_of_the_table_end_the_run_with_their_file(folder, raster_at, tmp_path):
    raster_at(tmp_path / "images" / "x.tif", np.ones((1, 40, 40), np.float32))
    raster_at(tmp_path / "masks" / "x.tif", np.full((1, 40, 40), 9, np.uint8), None)
    with pytest.raises(InputError, match=r"x\.tif: 1024 pixels have the ids 9.*Mend the raster or its mask"):
        batches(data(folder, [source(tmp_path, split="train")], global_batch=1, augmentation=Augmentation(1, 1)), 1)
    module = data(folder, [source(tmp_path, split="train", remap={9: 1})], global_batch=1)
    assert batches(module, 1)[0]["labels"].unique().tolist()[0] == 1


def test_a_source_for_training_may_be_filtered_by_confidence(raster_at, tmp_path):
    percent = np.arange(100, dtype=np.uint8).reshape(1, 10, 10)
    raster_at(tmp_path / "images" / "x.tif", np.ones((1, 10, 10), np.float32))
    raster_at(tmp_path / "masks" / "x.tif", np.ones((1, 10, 10), np.uint8), None)
    raster_at(tmp_path / "sure" / "x.tif", percent, None)
    one = source(tmp_path, split="train", confidence=str(tmp_path / "sure"), min_confidence=0.7, weight=0.25)
    module = data(tmp_path, [one], window=10, global_batch=1, augmentation=Augmentation(1, 1, flip_horizontal=0))
    batch = batches(module, 1)[0]
    assert torch.equal(batch["labels"][0] != IGNORE, torch.from_numpy(percent[0] >= 70))
    assert batch["weight"].tolist() == [0.25]
    with pytest.raises(InputError, match="give both confidence"):
        source(tmp_path, min_confidence=0.7)


def test_the_bound_of_a_filter_is_the_share_itself(raster_at, tmp_path):
    assert [least_percent(share) for share in (0.55, 0.57, 0.07, 1.0)] == [55, 57, 7, 100]
    assert 100 * 0.55 > 55


def test_values_that_the_domain_cannot_hold_and_masks_of_another_place_are_refused(raster_at, tmp_path):
    raster_at(tmp_path / "images" / "x.tif", np.full((1, 40, 40), -12, np.float32))
    mask = raster_at(tmp_path / "masks" / "x.tif", np.ones((1, 40, 40), np.uint8), None)
    with pytest.raises(InputError, match=r"x\.tif: domain amplitude, but 100.00% of the pixels are negative"):
        data(tmp_path, [source(tmp_path, split="train")]).open_index()
    raster_at(tmp_path / "images" / "x.tif", np.ones((1, 40, 40), np.float32))
    with rasterio.open(mask, "r+") as opened:
        opened.crs = "EPSG:32634"
    with pytest.raises(InputError, match=r"masks/x\.tif is in EPSG:32634 and .* in EPSG:32633"):
        data(tmp_path, [source(tmp_path, split="train")]).open_index()
    with rasterio.open(mask, "r+") as opened:
        opened.crs, opened.scales = "EPSG:32633", (2.0,)
    with pytest.raises(InputError, match="class ids do not have"):
        data(tmp_path, [source(tmp_path, split="train")]).open_index()


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"window": 0}, "window"), ({"val_fraction": 1.0}, "val_fraction"), ({"classes": {0: "a", 255: "b"}}, "ignore")],
)
def test_settings_that_are_none(folder, options, reason):
    with pytest.raises(InputError, match=reason):
        data(folder, **options)
    with pytest.raises(InputError, match="a name of its own"):
        data(folder, [source(folder), source(folder)])
    with pytest.raises(InputError, match="never trained on"):
        source(folder, role="target", split="train")
