# SPDX-License-Identifier: GPL-3.0-or-later
"""How many pixels a latent cell has, and the sizes that follow from it."""

from __future__ import annotations

CELL = 8
"""Pixels of one latent cell along each axis: SD1.5's autoencoder and the demo's halve a picture three times."""

LEAST_SIDE, MOST_SIDE = 16, 2048
"""Pixels of the sides of a picture that a file may be made for."""

Size = tuple[int, int]
"""Height and width."""


def is_whole(size: Size) -> bool:
    """Whether a picture of this size, in pixels, is made of whole latent cells."""
    return size[0] % CELL == size[1] % CELL == 0


def latent_size(size: Size) -> Size:
    """The latent height and width of a picture, whose size in pixels is whole (`is_whole`)."""
    assert is_whole(size)
    return size[0] // CELL, size[1] // CELL


def half_size(size: Size) -> Size:
    """Half of each side in pixels, rounded down to whole latent cells: a quarter of a garment's tokens."""
    return size[0] // 2 // CELL * CELL, size[1] // 2 // CELL * CELL
