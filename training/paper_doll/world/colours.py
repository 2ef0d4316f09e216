# SPDX-License-Identifier: GPL-3.0-or-later
"""The colours of the paper-doll world: a palette with names, so that truth can be told and splits can be kept."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Colour: TypeAlias = NDArray[np.floating[Any]]  # (3,), red green blue in [0, 1]


def rgb(code: str) -> Colour:
    """The colour written as six hexadecimal digits."""
    return np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)], np.float32) / 255


CLOTH_COLOURS: dict[str, Colour] = {
    "white": rgb("f6f3ed"),
    "black": rgb("2b2a30"),
    "grey": rgb("9a9ca3"),
    "red": rgb("d23c3f"),
    "burgundy": rgb("7c2438"),
    "orange": rgb("ee8a3a"),
    "mustard": rgb("d9a52c"),
    "yellow": rgb("f4d350"),
    "mint": rgb("9fd9bd"),
    "green": rgb("4fa05a"),
    "olive": rgb("7d8446"),
    "teal": rgb("2f9c9b"),
    "sky": rgb("7fc3ea"),
    "blue": rgb("3c6fc9"),
    "navy": rgb("27355f"),
    "purple": rgb("7f55b5"),
    "lilac": rgb("c3a6e0"),
    "pink": rgb("f19ab8"),
    "brown": rgb("8a5a3c"),
    "beige": rgb("dcc4a0"),
}
DENIM_COLOURS = ("blue", "navy", "sky", "black", "grey", "white", "brown", "olive")
SKINS = tuple(rgb(code) for code in ("ffe0cc", "f7cda9", "e5ac7f", "c68a5d", "9a6340", "6e452c"))
HAIR_COLOURS: dict[str, Colour] = {
    "black": rgb("2f2a31"),
    "brown": rgb("6b4229"),
    "blonde": rgb("e3b968"),
    "red": rgb("b4512c"),
    "grey": rgb("b9b6b3"),
    "pink": rgb("e08aa8"),
}
WHITE, BLACK = np.ones(3, np.float32), np.zeros(3, np.float32)
READABLE = 0.62  # the least `difference` between an ink and the cloth under it


def difference(first: Colour, second: Colour) -> float:
    """How far two colours lie apart: the sum over the channels, 0 to 3."""
    return float(np.abs(first - second).sum())


def luminance(colour: Colour) -> float:
    """How bright a colour looks, 0 to 1."""
    return float(colour @ np.array([0.3, 0.59, 0.11], np.float32))


def jittered(colour: Colour, rng: np.random.Generator, reach: float = 0.03) -> Colour:
    """A colour close by, as another dye lot would give: each channel moves by at most `reach`."""
    return np.clip(colour + rng.uniform(-reach, reach, 3).astype(np.float32), 0, 1)


def darker(colour: Colour, amount: float) -> Colour:
    """The colour with `amount` of its light taken away; 1 is black."""
    return colour * np.float32(1 - amount)


def lighter(colour: Colour, amount: float) -> Colour:
    """The colour mixed with `amount` of white."""
    return colour + (WHITE - colour) * np.float32(amount)


def trim_of(colour: Colour) -> Colour:
    """The colour of ribbing and waistbands on cloth of this colour: darker, or lighter on nearly black cloth."""
    return darker(colour, 0.2) if luminance(colour) > 0.25 else lighter(colour, 0.16)


READABLE_ON: dict[str, tuple[str, ...]] = {  # the cloth colours that can be told apart from each, in palette order
    name: tuple(other for other, ink in CLOTH_COLOURS.items() if difference(colour, ink) > READABLE)
    for name, colour in CLOTH_COLOURS.items()
}
