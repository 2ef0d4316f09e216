# SPDX-License-Identifier: GPL-3.0-or-later
"""A mustard T-shirt with a print: a paper dress on a hanger, and the word PAPER."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .canvas import (
    CENTRE,
    SHAPE,
    Plane,
    Points,
    blank,
    dashes,
    ellipse,
    fill,
    finished,
    mirrored,
    moved,
    paint,
    rgb,
    spline,
    stroke,
    symmetric,
)
from .cloth import drape, ground_shadow, lay, ribbing, seam, stitches, waves

MUSTARD, THREAD = rgb("dba530"), rgb("b98618")
NAVY, CREAM, TOMATO = rgb("253254"), rgb("fbf1dc"), rgb("d94f3d")

SHOULDER_SEAM = spline((228, 92), (196, 104), (158, 122))
ARMHOLE = spline((158, 122), (167, 160), (168, 205), (160, 244), (147, 268))
SIDE = spline((147, 268), (151, 340), (153, 430), (151, 530), (148, 606))
HEM = spline((148, 606), (216, 613), (CENTRE, 615))
NECK_FRONT = spline((228, 92), (238, 116), (256, 133), (274, 140), (CENTRE, 141))
NECK_BACK = spline((228, 92), (254, 101), (CENTRE, 104))
RIB_EDGE = spline((215, 97), (226, 125), (249, 147), (271, 155), (CENTRE, 156))
SLEEVE_TOP = spline((158, 122), (128, 140), (100, 182), (78, 230), (58, 284))
SLEEVE_HEM = spline((58, 284), (92, 303), (130, 312))
SLEEVE_UNDER = spline((130, 312), (140, 288), (147, 268))

MIDDLE_Y = 302.0  # of the emblem

LETTERS: dict[str, list[Points]] = {
    "P": [spline((0, 30), (0, 0), samples=1), spline((0, 0), (9, 0), (17, 3), (19, 9), (17, 15), (9, 18), (0, 18))],
    "A": [spline((0, 30), (10.5, 0), samples=1), spline((10.5, 0), (21, 30)), spline((4, 20.5), (17, 20.5))],
    "E": [spline((0, 30), (0, 0)), spline((0, 0), (17, 0)), spline((0, 15), (14, 15)), spline((0, 30), (17, 30))],
}
LETTERS["R"] = [*LETTERS["P"], spline((9, 18), (19, 30))]
ADVANCE = {"P": 31, "A": 34, "E": 31, "R": 0}


def print_word(cloth: Plane, word: str, left: float, top: float) -> None:
    """Print a word in round pen strokes."""
    for letter in word:
        for line in LETTERS[letter]:
            paint(cloth, stroke(moved(line, left, top), 7), NAVY)
        left += ADVANCE[letter]


def print_emblem(cloth: Plane) -> None:
    """Print the emblem: a disc, a dashed line to cut along, a hanger, and a dress with paper tabs."""
    paint(cloth, fill(ellipse(CENTRE, MIDDLE_Y, 76, 76)), NAVY)
    paint(cloth, dashes(ellipse(CENTRE, MIDDLE_Y, 69, 69), 2.2, 7.0, 5.04), CREAM)
    hook = np.vstack([ellipse(0, -45, 7.5, 7.5, 180, 430), spline((0, -36), (0, -27))])
    for line in (hook, spline((0, -27), (34, -8)), spline((0, -27), (-34, -8))):
        paint(cloth, stroke(moved(line, CENTRE, MIDDLE_Y), 4), CREAM)
    for tab in ([(10, -33), (21, -31), (21, -14), (10, -16)], [(11, 8), (28, 3), (29, 16), (12, 17)]):
        shape = np.array(tab, dtype=np.float64)
        for half in (shape, shape * (-1, 1)):
            paint(cloth, fill(moved(half, CENTRE, MIDDLE_Y)), CREAM)
    bodice = spline((0, -6), (-6, -9), (-9, -20))
    side = spline((-22, -17), (-17, -6), (-15, 4), (-12, 13))
    skirt = spline((-12, 13), (-22, 32), (-38, 50))
    half = np.vstack([bodice, side, skirt, spline((-38, 50), (-20, 56), (0, 58))])
    paint(cloth, fill(symmetric(moved(half, CENTRE, MIDDLE_Y))), TOMATO)
    for y in (14.0, 47.0):
        reach = 11 if y < 20 else 31
        paint(cloth, stroke(moved(spline((-reach, y), (0, y + 2.5), (reach, y)), CENTRE, MIDDLE_Y), 3.0), CREAM)


def drapery() -> Plane:
    """Soft folds: pulls from the armholes, slack towards the hem."""
    return drape(
        (spline((160, 264), (196, 300), (226, 316)), 11, 1.8),
        (spline((168, 226), (206, 236), (240, 222)), 10, 1.2),
        (spline((418, 266), (380, 304), (346, 318)), 11, 1.8),
        (spline((408, 224), (370, 236), (336, 226)), 10, 1.2),
        (spline((192, 360), (210, 480), (198, 620)), 14, 2.2),
        (spline((384, 390), (368, 500), (386, 620)), 14, 2.2),
        (spline((280, 450), (296, 540), (282, 620)), 17, 1.8),
        (spline((156, 470), (198, 502), (250, 506)), 11, 1.2),
        (spline((420, 440), (376, 470), (326, 474)), 11, 1.2),
        (spline((142, 160), (116, 220), (98, 296)), 9, 1.3),
        (spline((150, 214), (136, 258), (118, 300)), 7, 1.1),
        (spline((436, 164), (462, 226), (482, 296)), 9, 1.3),
        (spline((428, 220), (442, 262), (460, 304)), 7, 1.1),
    )


def draw() -> NDArray[np.uint8]:
    """Draw the T-shirt."""
    image = blank()
    body = fill(symmetric(np.vstack([NECK_FRONT[::-1], SHOULDER_SEAM, ARMHOLE, SIDE, HEM])))
    back = fill(symmetric(np.vstack([NECK_BACK[::-1], NECK_FRONT])))
    sleeve = np.vstack([SLEEVE_TOP, SLEEVE_HEM, SLEEVE_UNDER, ARMHOLE[::-1]])
    sleeves = fill(sleeve) + fill(mirrored(sleeve))
    ground_shadow(image, np.clip(body + back + sleeves, 0, 1))
    lay(image, back, MUSTARD * 0.78)
    ribbing(image, symmetric(NECK_BACK)[:-1], 3.2, 0.15, back * fill(symmetric(moved(NECK_BACK, 0, 11))), 14)
    relief = drapery() + 0.5 * waves(12, 28)
    cloth = np.broadcast_to(MUSTARD, (3, *SHAPE)).copy()
    print_emblem(cloth)
    print_word(cloth, "PAPER", CENTRE - 73, 396)
    lay(image, sleeves, MUSTARD, relief, rim=12)
    lay(image, body, cloth, relief, rim=14)
    draw_trims(image, body, sleeves)
    return finished(image)


def draw_trims(image: Plane, body: Plane, sleeves: Plane) -> None:
    """Neck ribbing, armhole seams, and the double-stitched hems."""
    edge = symmetric(RIB_EDGE)
    band = body * fill(np.vstack([edge, [(CENTRE + 62, 60), (CENTRE - 62, 60)]]))
    ribbing(image, symmetric(NECK_FRONT)[:-1], 3.2, 0.13, band, 22)
    seam(image, edge[:-1], body, 0.35)
    for armhole in (ARMHOLE, mirrored(ARMHOLE)):
        seam(image, armhole, np.clip(body + sleeves, 0, 1), 0.32)
    for offset in (16, 19.5):
        stitches(image, symmetric(moved(HEM, 0, -offset))[:-1], THREAD, body, 1.1)
        for hem in (SLEEVE_HEM, mirrored(SLEEVE_HEM)):
            toward = 0.3 if hem[0, 0] < CENTRE else -0.3
            stitches(image, moved(hem, toward * offset, -0.85 * offset), THREAD, sleeves, 1.1)
