# SPDX-License-Identifier: GPL-3.0-or-later
"""Drawing kit for sheets of pictures: paper, ink, lines of text, pictures in boxes, legends; and where a run keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..anydressing_core.atomic_write import write_atomically
from ..anydressing_core.heat_maps import COLOURS, Colour
from ..anydressing_core.pixels import Pixels
from .picture_files import png_bytes

FOLDER = "previews"
PAPER, INK, GREY = (250, 249, 246), (38, 36, 34), (128, 124, 118)
PICTURE_HEIGHT = 320  # pixels, whatever size was sampled
MARGIN, GAP = 28, 10
HEADER, CAPTION, TITLES, BETWEEN = 44, 26, 26, 26
STRIPE = 5  # of its garment's colour, beside a flat-lay


def of_step(step: int) -> str:
    """What a step's sheet is called: `step-00000500`."""
    return f"step-{step:08d}"


def save_sheet(run_folder: Path, name: str, sheet: Image.Image) -> Path:
    """Write `previews/NAME.png` into a run folder, whole or not at all. Raises OSError as the disk does."""
    path = run_folder / FOLDER / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, png_bytes(sheet))
    return path


def grid(cells: Sequence[Image.Image], columns: int, gap: int = 0) -> Image.Image:
    """Pictures row by row on paper, each column as wide as its widest, each row as high as its highest."""
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    widths = [max(cell.width for cell in cells[column::columns]) for column in range(min(columns, len(cells)))]
    heights = [max(cell.height for cell in row) for row in rows]
    size = (sum(widths) + gap * (len(widths) - 1), sum(heights) + gap * (len(heights) - 1))
    sheet, top = Image.new("RGB", size, PAPER), 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for cell, width in zip(row, widths, strict=False):
            sheet.paste(cell, (left, top))
            left += width + gap
        top += height + gap
    return sheet


def titled(body: Image.Image, title: str, note: str) -> Image.Image:
    """A sheet: its title large, a note small on the right where there is room, the body under both, margins around."""
    sheet = Image.new("RGB", (body.width + 2 * MARGIN, HEADER + body.height + 2 * MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    left = sheet.width - MARGIN - round(pen.textlength(note, typeface(16)))
    if left - 2 * MARGIN < pen.textlength(title, typeface(28)):
        left = sheet.width  # the title matters more
    else:
        pen.text((left, MARGIN + 24), note, GREY, typeface(16), anchor="ls")
    write_line(pen, (MARGIN, MARGIN - 4), title, INK, 28, left - 2 * MARGIN)
    sheet.paste(body, (MARGIN, MARGIN + HEADER))
    return sheet


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
    """Each garment's colour in the heat maps, with its slot."""
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
    """The typeface of all sheets, so many pixels high."""
    return ImageFont.load_default(size)
