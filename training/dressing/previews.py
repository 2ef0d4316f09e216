# SPDX-License-Identifier: GPL-3.0-or-later
"""Previews: a sheet of pictures of the same few people at every so many steps, by which training can be watched.

    garments | ground truth | no garments | each garment alone | all garments | where A_k went

All pictures of a person start from the same noise, at every step, so that they differ by what was learned alone.
`sample_rows` samples, `draw_sheet` only draws.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...anydressing_core.atomic_write import write_atomically
from ...anydressing_core.heat_maps import COLOURS, Colour, overlay
from ..base.model import BaseModel
from ..data.pictures import Pixels
from ..model.dressing import DressingModel
from ..model.sampling import Garment, Person, Progress, SamplingSettings, sample_people

FOLDER = "previews"


@dataclass(frozen=True)
class Sitter:
    """Somebody who sits for every preview, in one garment or more.

    name: with the seed it decides the noise. text: (77, C), of the caption. flat_lays: one picture a garment. truth:
    the photograph of this person in these garments, if there is one.
    """

    name: str
    caption: str
    text: Tensor
    garments: Sequence[Garment]
    flat_lays: Sequence[Pixels]
    truth: Pixels | None = None

    @property
    def outfits(self) -> list[Sequence[Garment]]:
        """What is worn in this sitter's pictures: nothing, each garment alone if there are several, all of them."""
        singles = [[garment] for garment in self.garments] if len(self.garments) > 1 else []
        return [[], *singles, self.garments]


@dataclass(frozen=True)
class Row:
    """A sitter's pictures. singles: one a garment; none for a sitter with one garment. maps: A_k (N, h, w)."""

    caption: str
    slots: Sequence[str]
    flat_lays: Sequence[Pixels]
    truth: Pixels | None
    undressed: Pixels
    singles: Sequence[Pixels]
    dressed: Pixels
    maps: Tensor


def sample_rows(
    model: DressingModel,
    base: BaseModel,
    sitters: Sequence[Sitter],
    no_text: Tensor,
    settings: SamplingSettings,
    *,
    seed: int,
    size: tuple[int, int],
    batch: int = 4,
    progress: Progress | None = None,
) -> list[Row]:
    """Sample every sitter without garments, in each alone and in all; the arguments are those of `sample_people`."""
    people = [Person(sitter.name, sitter.text, worn) for sitter in sitters for worn in sitter.outfits]
    sampled = iter(
        sample_people(model, base, people, no_text, settings, seed=seed, size=size, batch=batch, progress=progress)
    )
    rows: list[Row] = []
    for sitter in sitters:
        undressed = next(sampled).pixels
        singles = [next(sampled).pixels for _ in sitter.garments] if len(sitter.garments) > 1 else []
        dressed = next(sampled)
        assert dressed.maps is not None
        slots = [garment.slot for garment in sitter.garments]
        rows.append(
            Row(
                sitter.caption,
                slots,
                sitter.flat_lays,
                sitter.truth,
                undressed,
                singles,
                dressed.pixels,
                dressed.maps,
            )
        )
    return rows


def save_sheet(run_folder: Path, step: int, sheet: Image.Image) -> Path:
    """Write `previews/step-00000500.png` into a run folder, whole or not at all. Raises OSError as the disk does."""
    path = run_folder / FOLDER / f"step-{step:08d}.png"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, png_bytes(sheet))
    return path


def png_bytes(picture: Image.Image) -> bytes:
    """The content of a PNG file."""
    content = io.BytesIO()
    picture.save(content, "png")
    return content.getvalue()


# --- drawing ---------------------------------------------------------------------------------------------------------

PAPER, INK, GREY = (250, 249, 246), (38, 36, 34), (128, 124, 118)
PICTURE_HEIGHT = 320  # pixels, whatever size was sampled
MARGIN, GAP = 28, 10
HEADER, CAPTION, TITLES, BETWEEN = 44, 26, 26, 26
STRIPE = 5  # of its garment's colour, beside a flat-lay


def draw_sheet(title: str, note: str, rows: Sequence[Row]) -> Image.Image:
    """Draw a sheet: the title, a note in small print beside it, and one row of pictures for each person.

    The people may wear different numbers of garments; the pictures' size is the first undressed one's, scaled.
    """
    drawn = [_draw_row(row, _cell_width(rows)) for row in rows]
    width = max(row.width for row in drawn) + 2 * MARGIN
    height = 2 * MARGIN + HEADER + sum(row.height for row in drawn) + BETWEEN * (len(drawn) - 1)
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN + 24), title, INK, typeface(28), anchor="ls")
    pen.text((width - MARGIN, MARGIN + 24), note, GREY, typeface(16), anchor="rs")
    top = MARGIN + HEADER
    for row in drawn:
        sheet.paste(row, (MARGIN, top))
        top += row.height + BETWEEN
    return sheet


def _cell_width(rows: Sequence[Row]) -> int:
    height, width, _ = rows[0].undressed.shape
    return round(PICTURE_HEIGHT * width / height)


def _draw_row(row: Row, cell: int) -> Image.Image:
    """The caption over a line of titles over the pictures."""
    columns = [("ground truth", row.truth)] if row.truth is not None else []
    columns += [("no garments", row.undressed)]
    columns += [(f"{slot} alone", picture) for slot, picture in zip(row.slots, row.singles, strict=False)]
    columns += [("all garments" if row.singles else row.slots[0], row.dressed)]
    columns += [("", overlay(_greyed(row.dressed), row.maps))]
    lays = cell // 2
    image = Image.new("RGB", (lays + len(columns) * (cell + GAP), CAPTION + TITLES + PICTURE_HEIGHT), PAPER)
    pen = ImageDraw.Draw(image)
    write_line(pen, (0, 0), row.caption, INK, 17, image.width)
    write_line(pen, (0, CAPTION), "garments", GREY, 15, lays)
    image.paste(draw_flat_lays(row.flat_lays, lays), (0, CAPTION + TITLES))
    left = lays + GAP
    for title, picture in columns:
        write_line(pen, (left, CAPTION), title, GREY, 15, cell)
        image.paste(_fitted(picture, cell, PICTURE_HEIGHT), (left, CAPTION + TITLES))
        left += cell + GAP
    draw_legend(pen, (left - cell - GAP, CAPTION), row.slots)
    return image


def draw_flat_lays(pictures: Sequence[Pixels], width: int) -> Image.Image:
    """The flat-lays one below the other, each marked with its garment's colour in the heat map."""
    column = Image.new("RGB", (width, PICTURE_HEIGHT), PAPER)
    count = max(2, len(pictures))
    height = (PICTURE_HEIGHT - GAP * (count - 1)) // count
    for index, picture in enumerate(pictures):
        top = index * (height + GAP)
        column.paste(COLOURS[index], (0, top, STRIPE, top + height))
        column.paste(_fitted(picture, width - STRIPE, height), (STRIPE, top))
    return column


def draw_legend(pen: ImageDraw.ImageDraw, corner: tuple[int, int], slots: Sequence[str]) -> None:
    x, y = corner
    for slot, colour in zip(slots, COLOURS, strict=False):
        pen.rounded_rectangle((x, y + 3, x + 12, y + 15), 3, colour)
        pen.text((x + 18, y), slot, GREY, typeface(15))
        x += 18 + round(pen.textlength(slot, typeface(15))) + 14


def _greyed(picture: Pixels) -> Pixels:
    """The picture without its colours, so that those of the heat maps stand alone."""
    return np.asarray(Image.fromarray(picture).convert("L").convert("RGB"))


def _fitted(picture: Pixels, width: int, height: int) -> Image.Image:
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
