"""Pictures of a validation: which, in which order, where they go."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mmzoo.errors import InputError
from mmzoo.training import validation_images
from mmzoo.training.validation_images import ShownImages, ValidationImages, beside


def shown(wanted, *batches):
    images = ShownImages()
    images.wanted = wanted
    for grey in batches:
        column = torch.tensor(grey)[:, None, None, None].expand(-1, 3, 2, 4) / 255
        images.add("val/x", (column, 1 - column))
    return images


def greys(rows):
    return [int(row[0, 0, 0]) for row in rows]


def test_the_first_samples_are_shown_beside_what_became_of_them():
    rows = shown(3, [10, 20], [30, 40]).take()["val/x"]
    assert greys(rows) == [10, 20, 30]
    assert rows[0].shape == (2, 4 + validation_images.GAP + 4, 3)
    assert rows[0][0, -1].tolist() == [245] * 3
    assert rows[0][0, 4].tolist() == [255] * 3
    assert shown(0, [10, 20]).take() == {}


def test_ranks_give_the_order_of_the_data(monkeypatch):
    """Each batch is spread over the ranks, so one rank's second batch comes after all ranks' first."""
    one, two = shown(5, [1, 2], [5, 6]), shown(5, [3, 4], [7])
    monkeypatch.setattr(validation_images, "from_all_ranks", lambda own: [one._rows, two._rows])
    rows = {"one": one._rows, "two": two._rows}
    assert greys(one.take()["val/x"]) == [1, 2, 3, 4, 5]
    assert rows["two"]["val/x"]


def test_smaller_pictures_are_filled_with_white():
    grid = beside([np.zeros((2, 3, 3), np.uint8), np.zeros((1, 5, 3), np.uint8)], axis=0)
    assert grid.shape == (2 + validation_images.GAP + 1, 5, 3)
    assert grid[0, 3].tolist() == [255] * 3


def test_files_are_named_after_the_step_and_only_the_newest_stay(tmp_path):
    callback = ValidationImages(most=1, keep=2)
    module = SimpleNamespace(images=ShownImages())
    for step in (5, 20, 100):
        trainer = SimpleNamespace(
            sanity_checking=False, fast_dev_run=False, is_global_zero=True, loggers=[],
            default_root_dir=str(tmp_path), global_step=step,
        )  # fmt: skip
        callback.on_validation_start(trainer, module)
        module.images.add("val/x", (torch.full((1, 3, 2, 2), step / 255),))
        callback.on_validation_end(trainer, module)
    files = sorted((tmp_path / "images" / "val_x").iterdir())
    assert [file.name for file in files] == ["step_00000020.png", "step_00000100.png"]
    with Image.open(files[1]) as picture:
        assert picture.getpixel((0, 0)) == (100, 100, 100)


@pytest.mark.parametrize("settings", [{"most": -1}, {"keep": 0}])
def test_settings_are_checked(settings):
    with pytest.raises(InputError, match=r"images\.most must be 0 or more"):
        ValidationImages(**settings)
