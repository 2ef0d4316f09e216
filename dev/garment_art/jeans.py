# SPDX-License-Identifier: GPL-3.0-or-later
"""Straight blue jeans with orange top-stitching."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .canvas import (
    CENTRE,
    Plane,
    Points,
    blank,
    ellipse,
    fill,
    finished,
    grid,
    mirrored,
    moved,
    paint,
    rgb,
    spline,
    symmetric,
)
from .cloth import Fold, cast_shadow, darken, drape, grain, ground_shadow, lay, seam, stitches, waves

INDIGO, WASHED, INSIDE = rgb("36557f"), rgb("86a6c8"), rgb("2a4468")
ORANGE, COPPER, LEATHER = rgb("df9440"), rgb("c8814d"), rgb("a4673a")

WAIST = spline((188, 66), (222, 75), (256, 80), (CENTRE, 81))
BAND = spline((184, 93), (220, 102), (255, 107), (CENTRE, 108))
OUTSEAM = spline((188, 66), (184, 93), (175, 140), (169, 200), (165, 300), (158, 450), (150, 580), (146, 706))
HEM = spline((146, 706), (196, 714), (252, 711))
INSEAM = spline((252, 711), (260, 580), (268, 430), (277, 320), (CENTRE, 262))
POCKET = spline((229, 105), (226, 134), (208, 156), (173, 167))
COIN = np.vstack([spline((189, 178), (188, 138)), spline((188, 138), (205, 136), (224, 130))])
FLY_EDGE = spline((CENTRE, 108), (CENTRE, 160), (CENTRE, 212), (CENTRE, 262))
FLY_STITCH = spline((311, 108), (311, 150), (310, 184), (303, 204), (CENTRE + 1, 216))
HEM_STITCH = spline((147, 690), (198, 698), (253, 695))


def wash(x: Plane, y: Plane) -> Plane:
    """How far the indigo is worn away, 0 to 1: thighs, knees, and whiskers at the hips."""
    outward = np.abs(x - CENTRE)
    thigh = np.exp(-(((outward - 66 - (y - 300) * 0.04) / 27) ** 2) - ((y - 300) / 118) ** 2)
    shin = 0.45 * np.exp(-(((outward - 80) / 26) ** 2) - ((y - 520) / 130) ** 2)
    return 0.12 + 0.75 * thigh + shin


def whiskers() -> tuple[Fold, ...]:
    """The worn lines that fan out from the fly over the thighs of both legs, as (line, width, strength)."""
    left = (
        (spline((270, 240), (236, 228), (186, 214)), 4.0, 0.22),
        (spline((270, 256), (234, 252), (184, 246)), 4.5, 0.24),
        (spline((268, 274), (236, 278), (190, 280)), 4.5, 0.18),
    )
    return left + tuple((mirrored(line), width, strength) for line, width, strength in left)


def denim(x: Plane, y: Plane) -> Plane:
    """The cloth as a picture of colours: washed indigo, slubs down the warp, and the slant of the twill."""
    warp = 0.07 * grain(5, 0.7, 9)
    twill = 0.03 * np.sin(2 * np.pi * (np.floor(x) + np.floor(y)) / 3)
    worn = wash(x, y) + drape(*whiskers()) + 0.05 * waves(7, 30) + warp + twill
    return INDIGO + (WASHED - INDIGO) * np.clip(worn, -0.3, 1.2)


def leg_folds() -> Plane:
    """Creases at the crotch and behind the knees, slack above the hems."""
    return drape(
        (spline((284, 268), (262, 286), (232, 296)), 7, 1.4),
        (spline((292, 268), (316, 290), (346, 298)), 7, 1.4),
        (spline((280, 300), (258, 330), (226, 344)), 9, 1.0),
        (spline((298, 304), (318, 336), (352, 350)), 9, 1.0),
        (spline((166, 438), (200, 456), (240, 448)), 8, 1.5),
        (spline((270, 466), (234, 480), (196, 476)), 8, 1.2),
        (spline((412, 446), (376, 466), (338, 460)), 8, 1.5),
        (spline((310, 480), (340, 494), (384, 490)), 8, 1.2),
        (spline((156, 640), (190, 652), (232, 644)), 8, 1.2),
        (spline((420, 634), (384, 648), (346, 644)), 8, 1.2),
        (spline((196, 480), (192, 580), (204, 690)), 16, 1.2),
        (spline((380, 490), (384, 590), (372, 690)), 16, 1.2),
    )


def draw() -> NDArray[np.uint8]:
    """Draw the jeans."""
    image = blank()
    x, y = grid()
    legs = fill(symmetric(np.vstack([WAIST[::-1], OUTSEAM, HEM, INSEAM])))
    back = fill(symmetric(np.vstack([spline((CENTRE, 66), (230, 65), (188, 62)), WAIST])))
    cloth = denim(x, y)
    ground_shadow(image, np.clip(legs + back, 0, 1))
    draw_back(image, back)
    lay(image, legs, cloth, leg_folds() + 0.6 * waves(8, 34), rim=13)
    draw_seams(image, legs)
    draw_pockets(image, legs, cloth)
    draw_fly(image, legs)
    draw_hems(image, legs, cloth)
    draw_waistband(image, legs, cloth)
    return finished(image, step=7)


def draw_back(image: Plane, back: Plane) -> None:
    """The inside of the waistband with a leather label."""
    lay(image, back, INSIDE, rim=5)
    stitches(image, symmetric(spline((192, 66), (232, 70), (CENTRE, 71)))[:-1], ORANGE * 0.8, back)
    label = back * fill(np.array([(263, 60), (313, 60), (313, 90), (263, 90)]))
    lay(image, label, LEATHER, rim=3)
    stitches(image, spline((266, 69), (310, 69)), LEATHER * 0.6, label, 1.0)


def both(line: Points) -> tuple[Points, Points]:
    """A line and its mirror image."""
    return line, mirrored(line)


def draw_seams(image: Plane, legs: Plane) -> None:
    """Side seams, and the inseams with their double row of stitches."""
    for line in both(INSEAM):
        toward = 1 if line[0, 0] < CENTRE else -1
        for offset in (4.0, 7.0):
            stitches(image, moved(line, -toward * offset, 0), ORANGE * 0.92, legs, 1.1)
    for line in both(OUTSEAM):
        toward = 1 if line[0, 0] < CENTRE else -1
        seam(image, moved(line, toward * 4.5, 0), legs, 0.22)


def draw_pockets(image: Plane, legs: Plane, cloth: Plane) -> None:
    """Curved front pockets with rivets, and the coin pocket inside the left one."""
    for side, line in enumerate(both(POCKET)):
        corners = np.array([(150, 167), (150, 60), (229, 60)])
        bag = legs * fill(np.vstack([line, corners]) if side == 0 else np.vstack([mirrored(corners), line]))
        lay(image, bag, cloth * 0.86, rim=9)
        if side == 0:
            draw_coin_pocket(image, bag, cloth)
        seam(image, line, legs, 0.6)
        outward = 1 if side == 0 else -1
        for offset in (3.0, 6.2):
            stitches(image, moved(line, offset * outward, 0.8 * offset), ORANGE, legs, 1.2)
    for spot in ((234, 113), (182, 172), (2 * CENTRE - 234, 113), (2 * CENTRE - 182, 172)):
        draw_rivet(image, *spot, 2.7)


def draw_coin_pocket(image: Plane, bag: Plane, cloth: Plane) -> None:
    """The small fifth pocket."""
    pouch = bag * fill(np.vstack([COIN, [(232, 180)]]))
    lay(image, pouch, cloth * 0.97, rim=5)
    seam(image, COIN, bag, 0.5)
    for offset in (3.0, 5.6):
        stitches(image, moved(COIN, 0.6 * offset, offset), ORANGE, bag, 1.1)


def draw_rivet(image: Plane, x: float, y: float, radius: float) -> None:
    """A copper rivet or button with a highlight."""
    darken(image, 0.4 * fill(ellipse(x + 0.7, y + 1.1, radius + 0.6, radius + 0.6)))
    paint(image, fill(ellipse(x, y, radius, radius)), COPPER * 0.8)
    paint(image, fill(ellipse(x - 0.25 * radius, y - 0.3 * radius, 0.62 * radius, 0.6 * radius)), COPPER * 1.18)
    paint(image, fill(ellipse(x - 0.35 * radius, y - 0.4 * radius, 0.25 * radius, 0.22 * radius)), rgb("fff1dc"))


def draw_fly(image: Plane, legs: Plane) -> None:
    """The fly with its curved double row, and the front rise below it."""
    seam(image, FLY_EDGE, legs, 0.55)
    for offset in (0.0, 3.4):
        stitches(image, moved(FLY_STITCH, -offset, 0), ORANGE, legs, 1.2)
    for offset in (-3.0, -5.6):
        stitches(image, spline((CENTRE + offset, 214), (CENTRE + offset, 260)), ORANGE, legs, 1.1)
    paint(image, fill(ellipse(CENTRE + 0.5, 213, 1.4, 4.6)), ORANGE * 0.9)


def draw_hems(image: Plane, legs: Plane, cloth: Plane) -> None:
    """Turned-up hems, puckered along the stitching."""
    _, y = grid()
    for line in both(HEM_STITCH):
        low = [(line[-1, 0], 740), (line[0, 0], 740)]
        cuff = legs * fill(np.vstack([line, low]))
        ropes = drape(*(_rope(x, line) for x in np.linspace(line[0, 0] + 8, line[-1, 0] - 8, 11)))
        lay(image, cuff, cloth * 0.97, ropes, rim=6)
        seam(image, line, legs, 0.35)
        stitches(image, moved(line, 0, 2.2), ORANGE, legs, 1.1)
    darken(image, legs * 0.12 * np.clip((y - 704) / 10, 0, 1))


def _rope(x: float, line: Points) -> Fold:
    """One slanted pucker of a hem at `x`."""
    top = float(line[np.argmin(np.abs(line[:, 0] - x)), 1])
    return spline((x - 3, top), (x, top + 8), (x + 4, top + 17)), 3.0, 0.7


def draw_waistband(image: Plane, legs: Plane, cloth: Plane) -> None:
    """The waistband with stitched edges, belt loops and the button."""
    band = legs * fill(symmetric(np.vstack([moved(WAIST[::-1], 0, -3), BAND])))
    lay(image, band, cloth * 0.95, rim=7)
    seam(image, symmetric(BAND)[:-1], legs, 0.5)
    for offset, line in ((3.2, WAIST), (-3.2, BAND)):
        stitches(image, symmetric(moved(line, 0, offset))[:-1], ORANGE, legs, 1.2)
    seam(image, spline((CENTRE + 14, 80), (CENTRE + 14, 107)), legs, 0.45)
    for x in (196, 244):
        for line in both(spline((x, 0), (x - 1, 1))):
            draw_loop(image, float(line[0, 0]), cloth)
    draw_rivet(image, CENTRE + 1, 95, 6.4)


def draw_loop(image: Plane, x: float, cloth: Plane) -> None:
    """A belt loop over the waistband."""
    top = float(np.interp(CENTRE - abs(x - CENTRE), WAIST[:, 0], WAIST[:, 1]))
    corners = [(x - 4.5, top - 3), (x + 4.5, top - 3), (x + 4.5, top + 33), (x - 4.5, top + 33)]
    strip = fill(np.array(corners))
    cast_shadow(image, strip, 0.35, 0.8)
    lay(image, strip, cloth * 1.04, rim=4)
    for offset in (-2.4, 2.4):
        stitches(image, spline((x + offset, top - 2), (x + offset, top + 32)), ORANGE, strip, 1.0)
