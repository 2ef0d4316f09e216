# SPDX-License-Identifier: GPL-3.0-or-later
"""Drawing kit for sheets of pictures: paper, ink, lines of text, pictures in boxes, legends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..anydressing_core.atomic_write import write_atomically
from ..anydressing_core.heat_maps import COLOURS, Colour
from ..anydressing_core.pixels import Pixels
from .picture_files import png_bytes

FOLDER = "previews"


def save_sheet(run_folder: Path, step: int, sheet: Image.Image) -> Path:
    """Write `previews/step-00000500.png` into a run folder, whole or not at all. Raises OSError as the disk does."""
    path = run_folder / FOLDER / f"step-{step:08d}.png"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, png_bytes(sheet))
    return path


PAPER, INK, GREY = (250, 249, 246), (38, 36, 34), (128, 124, 118)

PICTURE_HEIGHT = 320  # pixels, whatever size was sampled

MARGIN, GAP = 28, 10

HEADER, CAPTION, TITLES, BETWEEN = 44, 26, 26, 26

STRIPE = 5  # of its garment's colour, beside a flat-lay


def draw_flat_lays(pictures: Sequence[Pixels], width: int) -> Image.Image:
    """The flat-lays one below the other, each marked with its garment's colour in the heat map."""
    column = Image.new("RGB", (width, PICTURE_HEIGHT), PAPER)
    count = max(2, len(pictures))
    height = (PICTURE_HEIGHT - GAP * (count - 1)) // count
    for index, picture in enumerate(pictures):
        top = index * (height + GAP)
        column.paste(COLOURS[index], (0, top, STRIPE, top + height))
        column.paste(fitted(picture, width - STRIPE, height), (STRIPE, top))
    return column


def draw_legend(pen: ImageDraw.ImageDraw, corner: tuple[int, int], slots: Sequence[str]) -> None:
    x, y = corner
    for slot, colour in zip(slots, COLOURS, strict=False):
        pen.rounded_rectangle((x, y + 3, x + 12, y + 15), 3, colour)
        pen.text((x + 18, y), slot, GREY, typeface(15))
        x += 18 + round(pen.textlength(slot, typeface(15))) + 14


def fitted(picture: Pixels, width: int, height: int) -> Image.Image:
    """The picture in a white box, its aspect ratio kept."""
    image = Image.fromarray(picture)
    scale = min(width / image.width, height / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.LANCZOS)
    box = Image.new("RGB", (width, height), "white")
    box.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return box


def write_line(
    pen: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, colour: Colour, size: int, width: int
) -> None:
    """One line of text; what does not fit is cut off and marked."""
    line, font = text, typeface(size)
    while len(line) > 1 and pen.textlength(line, font) > width:
        line = line.removesuffix("…")[:-1] + "…"
    pen.text(corner, line, colour, font)


def typeface(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
