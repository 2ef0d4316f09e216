# SPDX-License-Identifier: GPL-3.0-or-later
"""A straw hat with a red ribbon, seen a little from above."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .canvas import (
    CENTRE,
    SS,
    Plane,
    blank,
    box_of,
    ellipse,
    fill,
    finished,
    grid,
    mirrored,
    moved,
    rgb,
    spline,
    stroke,
)
from .cloth import cast_shadow, darken, drape, grain, ground_shadow, lay, seam, waves

PALE, STRAW, DEEP = rgb("f7e3b4"), rgb("e4c384"), rgb("a87a3c")
RED = rgb("c9303a")

BRIM = (CENTRE, 470.0, 244.0, 112.0)  # x, y and radii of its rim
BASE = (CENTRE, 448.0, 124.0, 50.0)  # where the crown meets the brim
TOP = (CENTRE, 306.0, 100.0, 32.0)  # the flat of the crown
WALL = spline((TOP[0] - TOP[2], TOP[1]), (178, 350), (169, 400), (BASE[0] - BASE[2], BASE[1]))
RIBBON_HEIGHT = 44.0
KNOT = (372.0, 458.0)


def braid(across: Plane, along: Plane) -> Plane:
    """The shade of plaited straw, about -1 to 1: `across` counts the braids, `along` the stalks within one."""
    part = across % 1
    chevron = np.sin(2 * np.pi * (along + 0.9 * np.abs(part - 0.5)))
    return 0.75 * chevron + 1.1 * (np.sin(np.pi * part) ** 0.5 - 0.75)


def straw(shade: Plane) -> Plane:
    """Straw of a given shade (-1 deep, 0 natural, 1 pale) as a picture of colours."""
    return STRAW + (PALE - STRAW) * np.clip(shade, 0, 1) + (STRAW - DEEP) * np.clip(shade, -1, 0)


def brim_weave(x: Plane, y: Plane) -> Plane:
    """Braids sewn in rings from the crown outwards."""
    radius = np.hypot((x - BRIM[0]) / BRIM[2], (y - BRIM[1]) / BRIM[3])
    middle = BRIM[1] - 2 * (1 - np.clip(radius, 0.45, 1)) * (BRIM[1] - BASE[1])
    radius = np.hypot((x - BRIM[0]) / BRIM[2], (y - middle) / BRIM[3])
    turn = np.arctan2((y - middle) / BRIM[3], (x - BRIM[0]) / BRIM[2])
    return 0.62 * braid(radius * 17 + turn / (2 * np.pi), turn * 96 / (2 * np.pi))


def half_width(y: Plane) -> Plane:
    """Half the width of the crown at a height."""
    return CENTRE - np.interp(y, WALL[:, 1], WALL[:, 0])


def around(x: Plane, y: Plane) -> tuple[Plane, Plane]:
    """Where a sample lies on the wall of the crown: angle from the front in radians, and height as y at the side."""
    level = y - 34
    for _ in range(3):
        sine = np.clip((x - CENTRE) / half_width(level), -1, 1)
        sag = np.interp(level, (TOP[1], BASE[1]), (TOP[3], BASE[3]))
        level = y - sag * np.sqrt(1 - sine**2)
    return np.arcsin(np.clip((x - CENTRE) / half_width(level), -1, 1)), level


def top_weave(x: Plane, y: Plane) -> Plane:
    """Braids in rings on the flat of the crown."""
    radius = np.hypot((x - TOP[0]) / TOP[2], (y - TOP[1]) / TOP[3])
    turn = np.arctan2((y - TOP[1]) / TOP[3], (x - TOP[0]) / TOP[2])
    return 0.25 + 0.5 * braid(radius * 7 + turn / (2 * np.pi), turn * 44 / (2 * np.pi))


def wall_weave(x: Plane, y: Plane) -> Plane:
    """Braids wound around the wall, lit from the left."""
    angle, level = around(x, y)
    light = 0.25 - 0.9 * np.sin(angle + 0.35) ** 2
    return light + 0.58 * braid((level - TOP[1]) / 11.5 + angle / (2 * np.pi), angle * 96 / (2 * np.pi))


def lay_straw(
    image: Plane, piece: Plane, weave: Callable[[Plane, Plane], Plane], relief: Plane | None, rim: float
) -> None:
    """Lay a piece of straw whose shade at x, y is given by `weave`."""
    rows, columns = box_of(piece)
    x, y = grid()
    speckle = 0.16 * grain(21, 1.2, 0.8)
    picture = np.zeros_like(image)
    picture[:, rows, columns] = straw(weave(x[rows, columns], y[rows, columns]) + speckle[rows, columns])
    lay(image, piece, picture, relief, rim)


def draw() -> NDArray[np.uint8]:
    """Draw the hat."""
    image = blank()
    brim = fill(ellipse(*BRIM)[:-1])
    wall = np.vstack([WALL, ellipse(*BASE, 180, 0)[1:-1], mirrored(WALL)])
    top = fill(ellipse(*TOP)[:-1])
    crown = np.maximum(fill(np.vstack([wall, ellipse(*TOP, 0, -180)[1:-1]])), top)
    ground_shadow(image, np.maximum(brim, crown))

    ripple = drape(
        (spline((120, 400), (150, 470), (130, 560)), 34, 5.0),
        (spline((470, 410), (430, 470), (470, 560)), 34, -4.0),
    )
    lay_straw(image, brim, brim_weave, ripple + waves(22, 60), 9)
    draw_brim_edge(image)
    cast_shadow(image, crown, 0.5, 9, brim)

    lay_straw(image, crown, wall_weave, None, 10)
    pinch = drape((spline((CENTRE - 66, 302), (CENTRE, 309), (CENTRE + 66, 303)), 15, -6.0))
    lay_straw(image, top, top_weave, pinch, 7)
    draw_ribbon(image, crown)
    draw_bow(image)
    return finished(image, step=7)


def draw_brim_edge(image: Plane) -> None:
    """The bound edge of the brim."""
    seam(image, ellipse(BRIM[0], BRIM[1], 0.972 * BRIM[2], 0.972 * BRIM[3]), 1.0, 0.3)


def draw_ribbon(image: Plane, crown: Plane) -> None:
    """The grosgrain band around the crown."""
    angle, level = around(*grid())
    start = BASE[1] - RIBBON_HEIGHT
    band = crown * np.clip((level - start) * SS + 0.5, 0, 1)
    cast = crown * np.clip((level - start + 5) / 5, 0, 1) * (1 - band)
    darken(image, 0.25 * cast)
    light = 1.08 - 0.45 * np.sin(angle + 0.3) ** 2 + 0.05 * np.sin(angle * 150)
    edges = 1 - 0.18 * (np.abs(level - start - RIBBON_HEIGHT / 2) > RIBBON_HEIGHT / 2 - 3)
    lay(image, band, RED * light * edges, rim=4)


def draw_bow(image: Plane) -> None:
    """The flat bow on the right of the band, its tails lying on the brim."""
    tails = (
        np.array([(-6, 4), (4, 8), (18, 40), (28, 74), (14, 68), (4, 78), (-4, 44)]),
        np.array([(0, 2), (10, 2), (38, 26), (66, 50), (52, 53), (50, 66), (24, 38)]),
    )
    loops = (
        spline((0, 0), (-20, -22), (-48, -24), (-56, -4), (-46, 14), (-20, 12), (0, 2)),
        spline((0, 0), (18, -26), (42, -36), (54, -20), (48, 0), (22, 8), (0, 2)),
    )
    for tail in tails:
        draw_satin(image, fill(moved(tail, *KNOT)), 0.95)
    for loop in loops:
        draw_satin(image, fill(moved(loop, *KNOT)), 1.06)
        bend = moved(spline((0, 0), 0.55 * loop[len(loop) // 2]), *KNOT)
        darken(image, 0.3 * stroke(bend, 2.2))
    draw_satin(image, fill(ellipse(KNOT[0], KNOT[1], 10, 12)[:-1]), 1.0)


def draw_satin(image: Plane, piece: Plane, brightness: float) -> None:
    """A piece of the bow with the shade that it casts."""
    cast_shadow(image, piece, 0.3, 2)
    lay(image, piece, RED * brightness, rim=9)
