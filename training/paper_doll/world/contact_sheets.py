# SPDX-License-Identifier: GPL-3.0-or-later
"""Contact sheets: people beside their flat-lays, the visible part of each garment outlined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...sheets import grid
from .canvas import as_bytes, resized
from .colours import Colour, rgb
from .samples import Sample

OUTLINES: dict[str, Colour] = {"upper": rgb("ff2d6f"), "lower": rgb("00b7ff"), "hat": rgb("ffd000")}
GAP = 8  # pixels


def contact_sheet(samples: Sequence[Sample], columns: int = 4, outlines: bool = True) -> NDArray[np.uint8]:
    """Lay samples out in rows, (H, W, 3) bytes: each person with its flat-lays, a third of its height, on the right."""
    return np.asarray(grid([Image.fromarray(_cell(sample, outlines)) for sample in samples], columns))


def _cell(sample: Sample, outlines: bool) -> NDArray[np.uint8]:
    height, width = sample.person.shape[:2]
    small = height // 3, round(width * (height // 3) / height)
    cell = np.full((height + GAP, width + small[1] + GAP, 3), 255, np.uint8)
    cell[:height, :width] = outlined(sample) if outlines else sample.person
    for row, garment in enumerate(sample.garments.values()):
        picture = resized(garment.flat_lay.astype(np.float32) / 255, *small)
        cell[row * small[0] : (row + 1) * small[0], width : width + small[1]] = as_bytes(picture)
    return cell


def outlined(sample: Sample) -> NDArray[np.uint8]:
    """The person with a line around the visible part of each garment."""
    picture = sample.person.copy()
    for slot, garment in sample.garments.items():
        mask = np.pad(garment.mask, 1, mode="edge")
        inner = mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
        picture[garment.mask & ~inner] = np.round(OUTLINES[slot] * 255)
    return picture
