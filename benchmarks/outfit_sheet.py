# SPDX-License-Identifier: GPL-3.0-or-later
"""The bench's outfits as one picture: a row for each, with her garments and the true person first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from comfyui_anydressing.training.paper_doll.bench.pictures import outfit
from comfyui_anydressing.training.sheets import INK, PAPER, grid, write_line
from PIL import Image, ImageDraw, ImageOps

CELL, GAP, WORDS = (96, 128), 6, 22  # width and height, pixels


def outfit_sheet(
    outfits: Sequence[int],
    slots: Sequence[str],
    size: tuple[int, int],
    columns: Mapping[str, Callable[[int], Path]],
) -> Image.Image:
    """outfits: their seeds. size: height, width of the renders. columns: heading -> where an outfit's picture lies."""
    heads = [*slots, "truth", *columns]
    cells = [_head(head) for head in heads]
    for seed in outfits:
        truth = outfit(seed, slots, size).truth
        painted = [*(truth.garments[slot].flat_lay for slot in slots), truth.person]
        pictures = [*map(Image.fromarray, painted), *(Image.open(where(seed)) for where in columns.values())]
        cells += [picture.convert("RGB").resize(CELL, Image.Resampling.LANCZOS) for picture in pictures]
    return ImageOps.expand(grid(cells, len(heads), GAP), GAP, PAPER)


def _head(text: str) -> Image.Image:
    cell = Image.new("RGB", (CELL[0], WORDS), PAPER)
    write_line(ImageDraw.Draw(cell), (0, 4), text, INK, 11, CELL[0])
    return cell
