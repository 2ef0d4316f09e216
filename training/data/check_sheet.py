# SPDX-License-Identifier: GPL-3.0-or-later
"""The sheet of `data check`: people as they are trained on, with outlined masks beside their garments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from ...anydressing_core.heat_maps import COLOURS
from ...anydressing_core.latents import Size
from ...anydressing_core.pixels import as_pixels
from ..sheets import (
    BETWEEN,
    GAP,
    GREY,
    INK,
    PAPER,
    PICTURE_HEIGHT,
    draw_flat_lays,
    draw_legend,
    grid,
    titled,
    typeface,
    write_line,
)
from .findings import Note
from .opening import OpenedPerson, by
from .pictures import cut_out, flat_lay, person_picture, worn_mask

T = TypeVar("T")

MOST_DRAWN = 24
SHEET_WIDTH = 1800  # pixels, at most, unless one person alone takes more
TEXT = 22  # the height of a line
WARNING = COLOURS[0]
HALVES = [255 if value >= 128 else 0 for value in range(256)]
WITHIN_SIGMA = [255 if 0.16 < value / 255 < 0.84 else 0 for value in range(256)]


def evenly(things: Sequence[T], most: int) -> list[T]:
    """At most so many of them, from the first to the last at equal distances."""
    indices = np.linspace(0, len(things) - 1, min(most, len(things))).round().astype(int)
    return [things[index] for index in indices]


def draw_check_sheet(
    manifest: Path, resolution: Size, people: Sequence[OpenedPerson], notes: Sequence[Note]
) -> Image.Image:
    """Draw people as they are trained on: each with outlined masks, and beside them the garments of the same colours."""
    cards = [_draw_card(person, resolution, [n.kind for n in notes if n.person == person.item.id]) for person in people]
    cards = cards or [Image.new("RGB", (SHEET_WIDTH // 3, TEXT), PAPER)]
    columns = max(1, min(len(cards), SHEET_WIDTH // (cards[0].width + BETWEEN)))
    note = f"{len(people)} people as they are trained on, at {by(resolution)}"
    return titled(grid(cards, columns, BETWEEN), f"{manifest.parent.name}/{manifest.name}", note)


def draw_person(person: OpenedPerson, resolution: Size) -> Image.Image:
    """Somebody usable as she is trained on, masks outlined, beside her garments."""
    assert person.picture is not None
    masks: list[Tensor] = []
    lays: list[Any] = []
    for garment in person.garments:
        assert garment.mask is not None
        masks.append(worn_mask(garment.mask, person.picture, resolution))
        if garment.flat_lay is not None:
            canvas = flat_lay(garment.flat_lay, resolution)
        else:
            canvas = cut_out(person.picture, garment.mask, resolution)
        lays.append(as_pixels(canvas.preview[0]))
    width = round(PICTURE_HEIGHT * resolution[1] / resolution[0])
    beside = max(width // 2, 96)
    drawn = Image.new("RGB", (width + GAP + beside, PICTURE_HEIGHT), PAPER)
    picture = Image.fromarray(as_pixels(person_picture(person.picture, resolution)))
    picture = picture.resize((width, PICTURE_HEIGHT), Image.Resampling.LANCZOS)
    drawn.paste(_outlined(picture, masks), (0, 0))
    drawn.paste(draw_flat_lays(lays, beside), (width + GAP, 0))
    return drawn


def _draw_card(person: OpenedPerson, resolution: Size, warnings: Sequence[str]) -> Image.Image:
    """The name and what is odd about this person, over the picture and the garments, over slots and caption."""
    drawn = draw_person(person, resolution)
    card = Image.new("RGB", (drawn.width, PICTURE_HEIGHT + 4 * TEXT), PAPER)
    pen = ImageDraw.Draw(card)
    item = person.item
    name = item.id if item.split == "train" else f"{item.id}, {item.split}"
    write_line(pen, (0, 0), name, GREY, 14, card.width)
    left = round(pen.textlength(name, typeface(14))) + GAP
    write_line(pen, (left, 0), ", ".join(dict.fromkeys(warnings)), WARNING, 14, card.width - left)
    card.paste(drawn, (0, TEXT))
    below = TEXT + PICTURE_HEIGHT
    names = [one.worn.slot if one.flat_lay else f"{one.worn.slot} (cut out)" for one in person.garments]
    draw_legend(pen, (0, below + 3), names)
    first, rest = _broken(pen, item.caption, card.width)
    write_line(pen, (0, below + TEXT), first, INK, 14, card.width)
    write_line(pen, (0, below + 2 * TEXT - 2), rest, INK, 14, card.width)
    return card


def _outlined(picture: Image.Image, masks: Sequence[Tensor]) -> Image.Image:
    """A line in its garment's colour around each mask, on a fine white one that keeps it apart from the picture."""
    fine = (2 * picture.width, 2 * picture.height)
    shapes = [Image.fromarray(mask.numpy()).convert("L").resize(fine, Image.Resampling.BICUBIC) for mask in masks]

    def band(shape: Image.Image, pixels: int) -> Image.Image:
        """So many fine pixels on both sides of the edge: there a blurred edge is within one sigma of its middle."""
        blurred = shape.point(HALVES).filter(ImageFilter.GaussianBlur(pixels))
        return blurred.point(WITHIN_SIGMA).resize(picture.size, Image.Resampling.BOX)

    for shape in shapes:
        picture.paste("white", mask=band(shape, 4))
    for shape, colour in zip(shapes, COLOURS, strict=False):
        picture.paste(colour, mask=band(shape, 2))
    return picture


def _broken(pen: ImageDraw.ImageDraw, text: str, width: int) -> tuple[str, str]:
    """A text's words in two lines, as many as fit in the first."""
    words = text.split()
    count = len(words)
    while count > 1 and pen.textlength(" ".join(words[:count]), typeface(14)) > width:
        count -= 1
    return " ".join(words[:count]), " ".join(words[count:])
