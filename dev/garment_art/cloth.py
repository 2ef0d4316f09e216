# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a filled outline look like cloth: folds, soft light, seams, stitches and grain."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from .canvas import (
    HEIGHT,
    SHAPE,
    SS,
    WIDTH,
    Plane,
    Points,
    blur,
    box_of,
    dashes,
    length_of,
    near,
    paint,
    placed,
    within,
)

BLACK = np.zeros((3, 1, 1))
LIGHT = (0.55, 0.85)  # the lamp stands above and a little to the left
Fold: TypeAlias = tuple[Points, float, float]


def drape(*folds: Fold) -> Plane:
    """The height in pixels of some folds, each a (line, width, height) fading out towards both of its ends.

    A negative height presses a furrow.
    """
    relief = np.zeros(SHAPE)
    for line, width, height in folds:
        box, distance, along = near(line, 3 * width)
        part = along / length_of(line)
        rise = np.clip(2.5 * np.minimum(part, 1 - part), 0, 1)
        relief[box] += height * rise**2 * (3 - 2 * rise) * np.exp(-((distance / width) ** 2))
    return relief


def lit(relief: Plane) -> Plane:
    """How much brighter or darker the lamp makes a surface of this height, around 0."""
    down, right = (np.asarray(slope) for slope in np.gradient(relief, 1 / SS))
    return LIGHT[0] * right + LIGHT[1] * down


def grain(seed: int, across: float, down: float) -> Plane:
    """Noise of unit strength whose specks are about `across` by `down` pixels."""
    noise = np.random.default_rng(seed).standard_normal((HEIGHT, WIDTH))
    for axis, size in ((1, across), (0, down)):
        reach = int(np.ceil(2 * size))
        kernel = np.exp(-((np.arange(-reach, reach + 1) / size) ** 2))
        shifted = [weight * np.roll(noise, offset, axis) for offset, weight in enumerate(kernel, -reach)]
        noise = np.sum(shifted, axis=0) / np.sqrt((kernel**2).sum())
    return noise.repeat(SS, axis=0).repeat(SS, axis=1)


def waves(seed: int, size: float) -> Plane:
    """Broad, gentle unevenness of about unit strength: random bumps `size` pixels wide."""
    down, across = (_bumps(length, size * SS) for length in SHAPE)
    heights = np.random.default_rng(seed).standard_normal((down.shape[1], across.shape[1]))
    return down @ heights @ across.T


def _bumps(length: int, size: float) -> Plane:
    """Gaussian bumps one size apart, (length, bumps)."""
    centres = np.arange(-1, length / size + 2) * size
    return np.exp(-(((np.arange(length)[:, None] - centres) / size) ** 2))


def lay(image: Plane, piece: Plane, colour: Plane, relief: Plane | None = None, rim: float = 8.0) -> None:
    """Lay a piece of cloth on the picture, lit and rounded towards its rim.

    colour: one colour or a picture of colours. relief: height in pixels of its folds. rim: reach of the rounding.
    """
    rows, columns = box_of(piece, margin=round(2 * rim * SS))
    cover = piece[rows, columns]
    edge = np.clip(2 * blur(cover, rim / 2) - 1, 0, 1)
    shade = 1 - 0.2 * (1 - edge) ** 2 + 0.9 * lit(edge)
    if relief is not None:
        shade += lit(relief[rows, columns])
    ink = colour[:, rows, columns] if colour.shape[1] > 1 else colour
    image[:, rows, columns] += (np.clip(ink * shade, 0, 1) - image[:, rows, columns]) * cover


def darken(image: Plane, amount: Plane) -> None:
    """Take light away: `amount` 0 leaves the picture, 1 makes it black."""
    paint(image, np.clip(amount, 0, 1), BLACK)


def cast_shadow(image: Plane, piece: Plane, depth: float, softness: float, where: Plane | float = 1.0) -> None:
    """Darken what lies below and to the right of a piece, but not the piece itself."""
    offset = round((softness + 1) * SS), round(0.7 * (softness + 1) * SS)
    darken(image, depth * np.roll(blur(piece, softness), offset, axis=(0, 1)) * (1 - piece) * where)


def ground_shadow(image: Plane, silhouette: Plane) -> None:
    """The faint shade that a garment lying on white paper leaves around itself."""
    cast_shadow(image, silhouette, 0.13, 3.5)


def seam(image: Plane, line: Points, where: Plane | float = 1.0, depth: float = 0.4) -> None:
    """Press a seam into the cloth: a thin furrow with a softer shade beside it."""
    box, distance, _ = near(line, 8)
    soft = np.exp(-((distance / 2.6) ** 2)) * 0.35
    darken(image, where * placed(box, depth * np.maximum(within(distance, 0.55), soft)))


def stitches(image: Plane, line: Points, colour: Plane, where: Plane | float = 1.0, width: float = 1.3) -> None:
    """Sew a row of top-stitches, each casting a little shade."""
    row = dashes(line, width, 4.2, 1.8) * where
    darken(image, 0.35 * np.roll(row, (SS, SS // 2), axis=(0, 1)))
    paint(image, row, colour)


def ribbing(image: Plane, line: Points, pitch: float, depth: float, where: Plane, reach: float) -> None:
    """Knit ribs into a band: furrows square to `line`, `pitch` pixels apart, on the samples `where` covers."""
    box, _, along = near(line, reach)
    darken(image, where * placed(box, depth * (0.5 + 0.5 * np.cos(2 * np.pi * along / pitch))))
