import base64
import io

import numpy as np
import pytest
from PIL import Image, features
from sample import photo

from mmzoo.report import pictures
from mmzoo.report.pictures import embed


def decoded(embedded):
    kind, _, text = embedded.uri.partition(";base64,")
    file = base64.b64decode(text)
    return kind, np.asarray(Image.open(io.BytesIO(file)))


@pytest.mark.parametrize("name", ["astronaut", "moon"])
def test_a_picture_comes_back_bit_by_bit(name):
    image = photo(name, 120)
    embedded = embed(image)
    kind, back = decoded(embedded)
    assert kind in {"data:image/png", "data:image/webp"}
    assert np.array_equal(back if image.ndim == 3 else back.reshape(120, 120, -1)[..., 0], image)
    assert (embedded.width, embedded.height, embedded.small) == (120, 120, False)


@pytest.mark.skipif(not features.check("webp"), reason="this Pillow writes no WebP")
def test_the_smaller_format_is_taken():
    assert decoded(embed(photo("astronaut", 120)))[0] == "data:image/webp"
    assert decoded(embed(np.zeros((1, 17_000), np.uint8)))[0] == "data:image/png", "wider than WebP can hold"


def test_without_webp_it_is_png(monkeypatch):
    monkeypatch.setattr(pictures.features, "check", lambda feature: False)
    image = photo("astronaut", 40)
    kind, back = decoded(embed(image))
    assert kind == "data:image/png"
    assert np.array_equal(back, image)


def test_small_pictures_are_marked_and_sides_are_not_swapped():
    embedded = embed(np.zeros((28, 96, 3), np.uint8))
    assert (embedded.width, embedded.height, embedded.small) == (96, 28, True)
    assert not embed(np.zeros((97, 28), np.uint8)).small


def test_a_view_with_strides_is_taken_as_it_looks():
    image = photo("astronaut", 64)[::2, ::-1]
    assert np.array_equal(decoded(embed(image))[1], image)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((0, 8), np.uint8),
    ],
)
def test_other_arrays_are_refused(image):
    with pytest.raises(ValueError, match="uint8"):
        embed(image)
