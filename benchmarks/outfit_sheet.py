# SPDX-License-Identifier: GPL-3.0-or-later
"""The bench's outfits as one picture: a row for each, with her garments and the true person first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from comfyui_anydressing.dev.contact_sheet import INK, PAPER
from comfyui_anydressing.training.paper_doll.bench.pictures import outfit
from PIL import Image, ImageDraw, ImageFont

CELL, GAP, WORDS = (96, 128), 6, 34  # width and height, pixels


def outfit_sheet(
    outfits: Sequence[int],
    slots: Sequence[str],
    size: tuple[int, int],
    columns: Mapping[str, Callable[[int], Path]],
) -> Image.Image:
    """outfits: their seeds. size: height, width of the renders. columns: heading -> where an outfit's picture lies."""
    heads = [*slots, "truth", *columns]
    whole = (len(heads) * (CELL[0] + GAP) + GAP, len(outfits) * (CELL[1] + GAP) + WORDS)
    canvas, small = Image.new("RGB", whole, PAPER), ImageFont.load_default(11)
    pen = ImageDraw.Draw(canvas)
    for column, head in enumerate(heads):
        pen.text((GAP + column * (CELL[0] + GAP), 10), head, INK, small)
    for row, seed in enumerate(outfits):
        truth = outfit(seed, slots, size).truth
        painted = [*(truth.garments[slot].flat_lay for slot in slots), truth.person]
        pictures = [*map(Image.fromarray, painted), *(Image.open(where(seed)) for where in columns.values())]
        for column, picture in enumerate(pictures):
            place = (GAP + column * (CELL[0] + GAP), WORDS + row * (CELL[1] + GAP))
            canvas.paste(picture.convert("RGB").resize(CELL, Image.Resampling.LANCZOS), place)
    return canvas
