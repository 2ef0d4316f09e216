# SPDX-License-Identifier: GPL-3.0-or-later
"""The bench's outfits as one picture: a row for each, with her garments and the true person first."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from comfyui_anydressing.training.paper_doll.bench.pictures import ABOUT, FIRST, outfit
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


def bench_sheet(undressed: Path, dressed: Mapping[str, Path], outfits: int = 8) -> Image.Image:
    """The bench's first outfits: undressed, then a column for each way, made freely.

    undressed, dressed: heading -> where a way's pictures lie, as `bench.pictures` leaves them.
    """
    about = json.loads((undressed / str(FIRST) / ABOUT).read_text(encoding="utf-8"))

    def picture(folder: Path, name: str, seed: int) -> Path:
        return folder / str(seed) / f"{name}.png"

    columns = {"undressed": partial(picture, undressed, "undressed")}
    columns |= {heading: partial(picture, folder, "free") for heading, folder in dressed.items()}
    return outfit_sheet(range(FIRST, FIRST + outfits), about["slots"], tuple(about["size"]), columns)


def _head(text: str) -> Image.Image:
    cell = Image.new("RGB", (CELL[0], WORDS), PAPER)
    write_line(ImageDraw.Draw(cell), (0, 4), text, INK, 11, CELL[0])
    return cell
