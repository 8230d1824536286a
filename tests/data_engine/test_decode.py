from __future__ import annotations

import contextlib
import io
import random
import warnings
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageOps

from data_engine.decode import DecodeRules, decode_image, looks_like_image, quiet_pillow, read_header
from mmzoo.errors import InputError

FORMATS = ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"]


def saved(image: Image.Image, form: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize("form", FORMATS)
def test_formats_are_found_by_content(form, encoded, pixels):
    data = encoded(pixels(1), form)
    header = read_header(data)
    assert header.format == form
    assert looks_like_image(data[:16])
    image = decode_image(data)
    assert image.shape == (12, 16, 3)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert image.flags.c_contiguous
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "TIFF-lzw"])
def test_exif_orientation(form, orientation, fast, pixels):
    exif = Image.Exif()
    exif[0x0112] = orientation
    form, _, compression = form.partition("-")
    options = {"compression": f"tiff_{compression}"} if compression else {}
    data = saved(Image.fromarray(pixels(2)), form, exif=exif, **options)
    counts = Counter()
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    image = decode_image(data, DecodeRules(fast=fast), counts)
    np.testing.assert_array_equal(image, upright)
    assert image.shape[:2] == ((16, 12) if orientation > 4 else (12, 16))
    assert counts["exif_oriented"] == (orientation != 1)


def test_alpha_is_dropped_or_laid_on_white():
    pixels = np.full((2, 2, 4), 100, np.uint8)
    pixels[0, 0, 3], pixels[0, 1, 3] = 0, 255
    data = saved(Image.fromarray(pixels), "PNG")
    counts = Counter()
    assert (decode_image(data, counts=counts) == 100).all()
    assert counts["alpha_dropped"] == 1
    white = decode_image(data, DecodeRules(background="white"), counts)
    assert white[0, 0].tolist() == [255, 255, 255]
    assert white[0, 1].tolist() == [100, 100, 100]
    assert counts["alpha_on_white"] == 1


def test_transparent_palette_keeps_its_colours():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    for transparency in (0, bytes([0, 128])):
        data = saved(image, "PNG", transparency=transparency)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert decode_image(data).tolist() == [[[10, 20, 30], [40, 50, 60]]]
            assert decode_image(data, DecodeRules(background="white"))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_is_replicated(mode):
    counts = Counter()
    image = decode_image(
        saved(Image.new(mode, (3, 2), 1 if mode == "1" else 77 if mode == "L" else (77, 9)), "PNG"), counts=counts
    )
    assert (image == (255 if mode == "1" else 77)).all()
    assert image.shape == (2, 3, 3)
    assert counts["grey"] == 1


def test_cmyk_goes_through_pillow():
    source = Image.new("CMYK", (8, 8), (200, 30, 60, 10))
    data = saved(source, "JPEG")
    counts = Counter()
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode_image(data, DecodeRules(fast=True), counts), expected)
    assert counts["cmyk"] == 1


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(form):
    values = np.array([[0, 255, 256, 4096, 40000, 65535]], np.uint16)
    counts = Counter()
    image = decode_image(saved(Image.fromarray(values), form), counts=counts)
    assert image[0, :, 0].tolist() == [0, 0, 1, 16, 156, 255]
    assert (image == image[..., :1]).all()
    assert counts["sixteen_bit"] == 1


def test_sixteen_bit_big_endian_tiff():
    values = np.array([[258, 65280]], ">u2")
    little = saved(Image.fromarray(values.astype("<u2")), "TIFF")
    big = saved(Image.frombytes("I;16B", (2, 1), values.tobytes()), "TIFF")
    assert little[:2] != big[:2] or little != big
    for data in (little, big):
        assert decode_image(data)[0, :, 0].tolist() == [1, 255]


def sixteen_bit_colour_png(values: np.ndarray) -> bytes:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bit_colour_and_grey_scale_alike():
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), np.uint16)
    counts = Counter()
    image = decode_image(sixteen_bit_colour_png(values), counts=counts)
    np.testing.assert_array_equal(image, values >> 8)
    assert counts["sixteen_bit"] == 1


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(form):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = saved(
        frames[0], form, save_all=True, append_images=frames[1:], **({"lossless": True} if form == "WEBP" else {})
    )
    counts = Counter()
    image = decode_image(data, counts=counts)
    assert image[4, 4].tolist() == [255, 0, 0]
    assert counts["first_frame"] == 1


def test_32_bit_values_are_refused():
    with pytest.raises(InputError, match="32-bit"):
        decode_image(saved(Image.new("F", (4, 4), 0.5), "TIFF"))


def test_bomb_is_refused_before_it_is_decoded(bomb, monkeypatch):
    monkeypatch.setattr(Image.Image, "convert", None)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    for check in (read_header, decode_image):
        with pytest.raises(InputError, match="too many pixels, not decoded"):
            check(bomb)


def test_pixel_limit(encoded, pixels):
    data = encoded(pixels(0), "PNG")
    assert decode_image(data, DecodeRules(max_pixels=16 * 12)).shape == (12, 16, 3)
    with pytest.raises(InputError, match="16 x 12 px is above the limit of 191"):
        decode_image(data, DecodeRules(max_pixels=191))


@pytest.mark.parametrize("data", [b"", b"hello", b"\x80\x04\x95pickle", b"%PDF-1.4", b"P6 2 2 255 " + bytes(12)])
def test_other_content_is_refused(data):
    assert not looks_like_image(data[:16])
    with pytest.raises(InputError, match="not an image of a known format"):
        decode_image(data)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("form", FORMATS)
def test_truncation_is_an_error(form, fast, encoded):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(noise, form)
    with pytest.raises(InputError) as caught:
        decode_image(data[: len(data) * 2 // 3], DecodeRules(fast=fast))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", FORMATS)
def test_damage_never_escapes_as_another_error(form, encoded):
    """Random damage gives pixels or an InputError, never a trace of Pillow's."""
    chance = random.Random(form)
    sound = encoded(np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8), form)
    for _ in range(150):
        data = bytearray(sound)
        for _ in range(chance.choice([1, 4, 16])):
            data[chance.randrange(min(len(data), chance.choice([64, 4096])))] = chance.randrange(256)
        with quiet_pillow(), contextlib.suppress(InputError):
            assert decode_image(bytes(data), DecodeRules(max_pixels=10**6)).shape[2] == 3


def test_damaged_exif_does_not_reject_sound_pixels(pixels):
    data = saved(Image.fromarray(pixels(3)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert decode_image(data).shape == (12, 16, 3)


def test_torchvision_equals_pillow_on_real_photographs(shared):
    """The reason why the loader may take the faster decoder. A few seconds."""
    files = sorted((shared / "data" / "natural" / "images").glob("*.jpg"))
    assert len(files) == 663
    fast = DecodeRules(fast=True)
    for file in files:
        data = file.read_bytes()
        assert np.array_equal(decode_image(data, fast), decode_image(data)), file.name


def test_fast_path_is_taken_for_plain_rgb_jpeg_only(encoded, pixels, monkeypatch):
    taken = []
    monkeypatch.setattr(
        "data_engine.decode._torchvision_jpeg", lambda data: taken.append(data) or np.zeros((1, 1, 3), np.uint8)
    )
    jpeg, grey = encoded(pixels(0)), encoded(pixels(0)[..., 0])
    decode_image(jpeg, DecodeRules(fast=True))
    assert taken == [jpeg]
    for data in (grey, encoded(pixels(0), "PNG")):
        decode_image(data, DecodeRules(fast=True))
    decode_image(jpeg)
    assert taken == [jpeg]
