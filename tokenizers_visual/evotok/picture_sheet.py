"""One picture of many: rows of equal tiles, a line of text above each."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

LINE, GAP = 14, 4  # px: height of a line of text, space between tiles
SMALLEST_TILE = 96  # px; smaller pictures are enlarged by whole factors, so that their pixels stay what they are


def picture_sheet(rows: Sequence[Sequence[tuple[str, Image.Image]]]) -> Image.Image:
    """RGB sheet of (text, picture) tiles, one row a sequence; tiles are as large as the largest picture."""
    tiles = [[(text, _enlarged(picture)) for text, picture in row] for row in rows]
    width = max(picture.width for row in tiles for _, picture in row) + GAP
    height = max(picture.height for row in tiles for _, picture in row) + LINE + GAP
    sheet = Image.new("RGB", (width * max(map(len, tiles)) + GAP, height * len(tiles) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for down, row in enumerate(tiles):
        for right, (text, picture) in enumerate(row):
            left, top = GAP + right * width, GAP + down * height
            pen.text((left, top), _cut(text, width - GAP, pen), fill="black")
            sheet.paste(picture, (left, top + LINE))
    return sheet


def _enlarged(picture: Image.Image) -> Image.Image:
    factor = max(1, -(-SMALLEST_TILE // max(picture.size)))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _cut(text: str, width: int, pen: ImageDraw.ImageDraw) -> str:
    """The text, shortened at its end until it fits `width` px; what the built-in font lacks becomes a question mark."""
    text = text.encode("latin-1", "replace").decode("latin-1")
    while len(text) > 1 and pen.textlength(text) > width:
        text = text[:-1]
    return text
