# SPDX-License-Identifier: GPL-3.0-or-later
"""One labelled picture out of several: side by side, each with its name, a caption below."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

HEIGHT, MARGIN, LABEL = 512, 24, 40  # pixels
PAPER, INK = "#faf9f6", "#33312e"


def contact_sheet(pictures: Sequence[tuple[str, Image.Image]], caption: str) -> Image.Image:
    """Return the named pictures at one height on one sheet."""
    scaled = [(name, picture.convert("RGB").resize(size_at(picture, HEIGHT))) for name, picture in pictures]
    width = MARGIN + sum(picture.width + MARGIN for _, picture in scaled)
    sheet = Image.new("RGB", (width, HEIGHT + 2 * MARGIN + 2 * LABEL), PAPER)
    draw = ImageDraw.Draw(sheet)
    left = MARGIN
    for name, picture in scaled:
        sheet.paste(picture, (left, MARGIN + LABEL))
        write(draw, (left + picture.width // 2, MARGIN), name, picture.width)
        left += picture.width + MARGIN
    write(draw, (width // 2, HEIGHT + MARGIN + LABEL + 12), caption, width - 2 * MARGIN)
    return sheet


def size_at(picture: Image.Image, height: int) -> tuple[int, int]:
    """Return the picture's size when it is scaled to `height`."""
    return round(picture.width * height / picture.height), height


def write(draw: ImageDraw.ImageDraw, top_middle: tuple[int, int], text: str, width: int) -> None:
    """Write one centred line, as large as fits into `width`."""
    size = 22
    while size > 10 and draw.textlength(text, font=ImageFont.load_default(size)) > width:
        size -= 1
    draw.text(top_middle, text, fill=INK, font=ImageFont.load_default(size), anchor="mt")
