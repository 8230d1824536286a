"""Codecs at a budget: the search finds what trying everything finds, and the bytes are counted as the formats say."""

import io

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut, coffee

from eval_suites.metrics.image_codecs import CODECS, JPEG, WEBP, Encodings, codec_description
from eval_suites.metrics.reconstruction import psnr


@pytest.fixture(scope="module", params=["jpeg", "webp"])
def tried(request):
    """A photograph of 64 px with all its encodings, shared by the tests: they are what takes the time."""
    return Encodings(CODECS[request.param], np.array(Image.fromarray(astronaut()).resize((64, 64))))


@pytest.mark.parametrize("with_header", [True, False])
def test_the_search_finds_what_trying_every_quality_finds(tried, with_header):
    for budget in (1, 100.5, 340, 700, 1000.25, 1500, 3000, 10**6):
        found = tried.fit(budget, with_header=with_header)
        expected = tried.fit_reference(budget, with_header=with_header)
        assert (found.quality, found.size, found.over) == (expected.quality, expected.size, expected.over), budget
        counted = found.size - (0 if with_header else found.header)
        assert found.over == (counted > budget)
        if found.over:
            assert found.quality == tried.codec.qualities[0]


def test_more_bytes_are_never_worse_by_much_and_the_pixels_are_those_of_the_file(tried):
    fits = [tried.fit(budget, with_header=False) for budget in (300, 900, 2700)]
    values = [float(psnr(tried.pixels[None], fitted.pixels[None])[0]) for fitted in fits]
    assert values == sorted(values)
    assert values[0] + 3 < values[2]
    with Image.open(io.BytesIO(tried.file(fits[1].quality))) as image:
        assert np.array_equal(np.asarray(image), fits[1].pixels)


def test_the_scan_of_a_jpeg_is_what_its_headers_leave():
    """A grey image of 8 x 8 px: one block a component; the same tables whatever the picture, so the rest is scan."""
    data = JPEG.encode(np.full((8, 8, 3), 128, np.uint8), 50)
    assert data[:2] == b"\xff\xd8"
    assert data[-2:] == b"\xff\xd9"
    scan_header = data.index(b"\xff\xda")  # its length, 12 bytes for three components, is in the next two
    scan = data[scan_header + 2 + 12 : -2]
    assert 0 < len(scan) <= 4  # three direct-current zeros and three ends of block
    assert JPEG.header(data) == len(data) - len(scan)
    bigger = JPEG.encode(astronaut()[:128, 180:308].copy(), 90)
    assert JPEG.header(bigger) < 450 < 5000 < len(bigger)


def test_a_webp_is_riff_chunk_and_frame_headers_and_partitions():
    data = WEBP.encode(coffee()[:64, :64].copy(), 50)
    padding = int.from_bytes(data[16:20], "little") % 2
    assert WEBP.header(data) == 20 + 10 + padding
    lossless = io.BytesIO()
    Image.fromarray(coffee()[:64, :64]).save(lossless, "WEBP", lossless=True)
    with pytest.raises(ValueError, match="lossy WebP"):
        WEBP.header(lossless.getvalue())


def test_the_record_names_settings_and_library():
    for name in CODECS:
        description = codec_description(name)
        assert description["settings"]
        assert description["library"][0].isdigit()
