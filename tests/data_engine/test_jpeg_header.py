"""The header reader knows plain JPEGs only, and there it says what Pillow says."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image

from data_engine.decode import DecodeRules, decode_image, quiet_pillow
from data_engine.jpeg_header import PlainJpeg, plain_jpeg
from mmzoo.errors import InputError

FAST = DecodeRules(fast=True, max_pixels=10**6)


def saved(pixels, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.fixture
def photo(pixels):
    return pixels(4, 24, 40)


def outcome(data, rules):
    """The pixels, or which kind of refusal."""
    try:
        return decode_image(data, rules).tobytes()
    except InputError:
        return "refused"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"quality": 30, "subsampling": "4:2:0"},
        {"keep_rgb": True},
        {"comment": b"made for a test"},
        {"icc_profile": bytes(70_000)},
        {"optimize": True, "restart_marker_blocks": 1},
    ],
)
def test_plain_files_are_read_without_pillow(photo, options, monkeypatch):
    data = saved(photo, **options)
    assert plain_jpeg(data) == PlainJpeg(40, 24, b"")
    expected = decode_image(data)
    monkeypatch.setattr("data_engine.decode._open", None)
    np.testing.assert_array_equal(decode_image(data, FAST), expected)


@pytest.mark.parametrize("orientation", [1, 6, 8, 99])
def test_exif_is_handed_over(photo, orientation, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(photo, exif=exif)
    expected = decode_image(data)
    monkeypatch.setattr("data_engine.decode._open", None)
    np.testing.assert_array_equal(decode_image(data, FAST), expected)
    assert expected.shape == ((40, 24, 3) if orientation in (6, 8) else (24, 40, 3))


def with_segment(data, marker, body):
    return data[:2] + bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body + data[2:]


XMP = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6"/></x:xmpmeta>'


def test_what_is_not_plain_is_left_to_pillow(photo):
    plain = saved(photo)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    not_plain = {
        "grey": saved(photo[..., 0]),
        "cmyk": (lambda s: (Image.new("CMYK", (8, 8)).save(s, "JPEG"), s.getvalue())[1])(io.BytesIO()),
        "xmp": with_segment(plain, 0xE1, XMP),
        "two exif": with_segment(with_segment(plain, 0xE1, exif), 0xE1, exif),
        "several pictures": with_segment(plain, 0xE2, b"MPF\0" + bytes(20)),
        "stray bytes": plain[:2] + b"\0" + plain[2:],
        "fill byte": plain[:2] + b"\xff" + plain[2:],
        "arithmetic codes": plain.replace(b"\xff\xc0\0\x11", b"\xff\xc9\0\x11"),
        "twelve bits": plain.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
        "cut before the scan": plain[: plain.index(b"\xff\xda")],
        "png": b"\x89PNG\r\n\x1a\n",
        "nothing": b"",
    }
    for name, data in not_plain.items():
        assert plain_jpeg(data) is None, name
        with quiet_pillow():
            assert outcome(data, FAST) == outcome(data, DecodeRules()), name
    assert decode_image(not_plain["xmp"], FAST).shape == (40, 24, 3)


def test_the_pixel_limit_holds_before_decoding(photo, monkeypatch):
    monkeypatch.setattr("data_engine.decode._torchvision_jpeg", None)
    with pytest.raises(InputError, match="40 x 24 px is above the limit of 959 px"):
        decode_image(saved(photo), DecodeRules(fast=True, max_pixels=959))


def test_damaged_headers_come_to_the_same_as_with_pillow(photo):
    """One byte before the scan is changed at random: the fast way gives the pixels of the slow one, or also refuses."""
    exif, chance = Image.Exif(), random.Random(0)
    exif[0x0112] = 6
    for sound in (saved(photo, exif=exif), saved(photo, progressive=True)):
        for _ in range(200):
            data = bytearray(sound)
            data[chance.randrange(2, sound.index(b"\xff\xda"))] = chance.randrange(256)
            with quiet_pillow():
                fast, slow = (outcome(bytes(data), DecodeRules(fast=way, max_pixels=10**6)) for way in (True, False))
            assert fast == slow, bytes(data)


def test_real_photographs(shared):
    """Every JPEG of the natural set is plain, and has the size that Pillow finds."""
    plain = 0
    for file in sorted((shared / "data" / "natural" / "images").glob("*.jpg")):
        data = file.read_bytes()
        header = plain_jpeg(data)
        with Image.open(io.BytesIO(data)) as image:
            if header is not None:
                plain += 1
                assert (header.width, header.height) == image.size, file.name
                assert image.mode == "RGB", file.name
    assert plain > 600
