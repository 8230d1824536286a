"""The few things that a decoder must know of a JPEG beforehand, read from its segments in microseconds.

Opening the file with Pillow tells the same, and costs a tenth of decoding it. Whatever is unusual here is left to
Pillow, so this file knows only the plain case (ITU-T T.81 annex B; JEITA CP-3451 for the EXIF segment).
"""

from __future__ import annotations

from typing import NamedTuple

START_OF_IMAGE = b"\xff\xd8"
FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive; all with Huffman codes
OTHER_FRAMES = {0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)}
START_OF_SCAN, APP1, APP2 = 0xDA, 0xE1, 0xE2
WITHOUT_LENGTH = {0x01, *range(0xD0, 0xDA), 0xFF}
EXIF = b"Exif\0\0"


class PlainJpeg(NamedTuple):
    """A JPEG of three 8-bit components: stored size in px, and its EXIF segment (b"" when there is none)."""

    width: int
    height: int
    exif: bytes


def plain_jpeg(data: bytes) -> PlainJpeg | None:
    """What the segments before the first scan say; None for all that is not plain.

    Not plain: other components or depth, several pictures (MPF), XMP (it may turn the picture too), two frames or EXIF
    segments, stray bytes, an end before the scan.
    """
    size: tuple[int, int] | None = None
    exif, at = b"", len(START_OF_IMAGE)
    if data[:at] != START_OF_IMAGE:
        return None
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, body = data[at + 1], at + 4
        if marker == START_OF_SCAN:
            return PlainJpeg(*size, exif) if size else None
        if marker in WITHOUT_LENGTH or marker in OTHER_FRAMES:
            return None
        at += 2 + int.from_bytes(data[at + 2 : body], "big")
        if marker in FRAMES:
            if size or data[body : body + 1] != b"\x08" or data[body + 5 : body + 6] != b"\x03":
                return None
            height, width = (int.from_bytes(data[place : place + 2], "big") for place in (body + 1, body + 3))
            size = (width, height)
        elif marker == APP1:
            if exif or not data.startswith(EXIF, body):
                return None
            exif = data[body:at]
        elif marker == APP2 and data.startswith(b"MPF\0", body):
            return None
    return None
