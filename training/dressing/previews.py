# SPDX-License-Identifier: GPL-3.0-or-later
"""Previews: a sheet of pictures of the same few people at every so many steps, by which training can be watched.

    garments | ground truth | no garments | each garment alone | all garments | where A_k went

All pictures of a person start from the same noise, at every step, so that they differ by what was learned alone.
`sample_rows` samples, `draw_sheet` only draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from ...anydressing_core.heat_maps import overlay
from ...anydressing_core.latents import Size
from ...anydressing_core.pixels import Pixels
from ..base.model import BaseModel
from ..model.dresser import Dresser
from ..model.people import EncodedGarment, Person, sample_people
from ..model.sampling import SamplingSettings, Tick
from ..sheets import (
    BETWEEN,
    CAPTION,
    GAP,
    GREY,
    INK,
    PAPER,
    PICTURE_HEIGHT,
    TITLES,
    draw_flat_lays,
    draw_legend,
    fitted,
    grid,
    titled,
    write_line,
)


@dataclass(frozen=True)
class Sitter:
    """Somebody who sits for every preview, in one garment or more.

    name: with the seed it decides the noise. text: (77, C), of the caption. flat_lays: one picture a garment. truth:
    the photograph of this person in these garments, if there is one.
    """

    name: str
    caption: str
    text: Tensor
    garments: Sequence[EncodedGarment]
    flat_lays: Sequence[Pixels]
    truth: Pixels | None = None

    @property
    def outfits(self) -> list[Sequence[EncodedGarment]]:
        """What is worn in this sitter's pictures: nothing, each garment alone if there are several, all of them."""
        singles = [[garment] for garment in self.garments] if len(self.garments) > 1 else []
        return [[], *singles, self.garments]


@dataclass(frozen=True)
class PreviewRow:
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
    model: Dresser,
    base: BaseModel,
    sitters: Sequence[Sitter],
    no_text: Tensor,
    settings: SamplingSettings,
    *,
    size: Size,
    batch: int = 4,
    tick: Tick | None = None,
) -> list[PreviewRow]:
    """Sample every sitter without garments, in each alone and in all; the arguments are those of `sample_people`."""
    people = [Person(sitter.name, sitter.text, worn) for sitter in sitters for worn in sitter.outfits]
    sampled = iter(sample_people(model, base, people, no_text, settings, size=size, batch=batch, tick=tick))
    rows: list[PreviewRow] = []
    for sitter in sitters:
        undressed = next(sampled).pixels
        singles = [next(sampled).pixels for _ in sitter.garments] if len(sitter.garments) > 1 else []
        dressed = next(sampled)
        assert dressed.maps is not None
        slots = [garment.slot for garment in sitter.garments]
        rows.append(
            PreviewRow(
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


# --- drawing ---------------------------------------------------------------------------------------------------------


def draw_sheet(title: str, note: str, rows: Sequence[PreviewRow]) -> Image.Image:
    """Draw a sheet: the title, a note in small print beside it, and one row of pictures for each person.

    The people may wear different numbers of garments; the pictures' size is the first undressed one's, scaled.
    """
    return titled(grid([_draw_row(row, _cell_width(rows)) for row in rows], 1, BETWEEN), title, note)


def _cell_width(rows: Sequence[PreviewRow]) -> int:
    height, width, _ = rows[0].undressed.shape
    return round(PICTURE_HEIGHT * width / height)


def _draw_row(row: PreviewRow, cell: int) -> Image.Image:
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
        image.paste(fitted(picture, cell, PICTURE_HEIGHT), (left, CAPTION + TITLES))
        left += cell + GAP
    draw_legend(pen, (left - cell - GAP, CAPTION), row.slots)
    return image


def _greyed(picture: Pixels) -> Pixels:
    """The picture without its colours, so that those of the heat maps stand alone."""
    return np.asarray(Image.fromarray(picture).convert("L").convert("RGB"))
