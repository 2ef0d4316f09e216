# SPDX-License-Identifier: GPL-3.0-or-later
"""A long-sleeved Breton shirt: cream jersey, navy stripes, boat neck."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .canvas import CENTRE, Plane, blank, fill, finished, grid, mirrored, moved, paint, rgb, spline, symmetric, within
from .cloth import darken, drape, ground_shadow, lay, ribbing, seam, stitches, waves

CREAM, NAVY, THREAD = rgb("f7f0e1"), rgb("26345c"), rgb("e3d8c0")
PERIOD, NAVY_WIDTH = 22.0, 9.0
FIRST, LAST = 204.0, 552.0  # the yoke and the hem stay plain

SHOULDER_SEAM = spline((212, 100), (188, 110), (164, 126))
ARMHOLE = spline((164, 126), (175, 158), (178, 200), (171, 236), (156, 262))
SIDE = spline((156, 262), (161, 340), (165, 430), (162, 520), (158, 604))
HEM = spline((158, 604), (222, 611), (CENTRE, 613))
NECK_FRONT = spline((212, 100), (229, 117), (252, 127), (274, 130), (CENTRE, 130))
NECK_BACK = spline((212, 100), (236, 106), (CENTRE, 109))
RIB_EDGE = spline((199, 105), (222, 130), (250, 142), (273, 145), (CENTRE, 145))

SLEEVE_TOP = spline((164, 126), (141, 140), (125, 170), (111, 230), (88, 370), (54, 566))
CUFF = spline((54, 566), (78, 575), (105, 577))
SLEEVE_UNDER = spline((105, 577), (124, 450), (145, 334), (156, 262))
CUFF_SEAM = spline((59, 540), (84, 549), (109, 550))
SLEEVE_AXIS = (-0.152, 0.988)


def stripes(v: Plane) -> Plane:
    """Coverage of the navy stripes at distance `v` down the cloth, where FIRST begins the topmost one."""
    middle = (v - FIRST - NAVY_WIDTH / 2 + PERIOD / 2) % PERIOD - PERIOD / 2
    return within(np.abs(middle), NAVY_WIDTH / 2) * (v > FIRST - 4) * (v < LAST)


def jersey(v: Plane) -> Plane:
    """The striped cloth as a picture of colours."""
    return CREAM + (NAVY - CREAM) * stripes(v)


def body_folds() -> Plane:
    """Drapery of a shirt smoothed by hand: pulls from the armholes, a few long slack folds."""
    return drape(
        (spline((166, 262), (206, 292), (262, 306)), 11, 1.7),
        (spline((176, 236), (222, 242), (266, 226)), 9, 1.2),
        (spline((408, 260), (368, 294), (318, 314)), 11, 1.7),
        (spline((400, 232), (356, 244), (314, 238)), 9, 1.1),
        (spline((198, 340), (216, 450), (206, 612)), 13, 1.9),
        (spline((366, 370), (350, 480), (368, 612)), 13, 2.1),
        (spline((282, 430), (294, 520), (282, 616)), 15, 1.6),
        (spline((166, 450), (204, 480), (252, 486)), 10, 1.1),
        (spline((410, 486), (370, 512), (326, 514)), 10, 1.1),
    )


def sleeve_folds() -> Plane:
    """Creases around the elbows and wrists, a little lower on the right sleeve."""
    lines = (
        (spline((88, 366), (116, 384), (144, 376)), 6, 1.4),
        (spline((84, 394), (112, 416), (138, 414)), 6, 1.3),
        (spline((72, 468), (96, 480), (122, 472)), 5, 1.1),
        (spline((64, 512), (88, 522), (114, 514)), 5, 1.0),
        (spline((126, 190), (130, 280), (112, 352)), 9, 1.4),
    )
    right = ((moved(mirrored(line), 0, 10), width, height) for line, width, height in lines)
    return drape(*lines, *right)


def draw() -> NDArray[np.uint8]:
    """Draw the shirt."""
    image = blank()
    x, y = grid()
    outward = np.abs(x - CENTRE)
    body = fill(symmetric(np.vstack([NECK_FRONT[::-1], SHOULDER_SEAM, ARMHOLE, SIDE, HEM])))
    back = fill(symmetric(np.vstack([NECK_BACK[::-1], NECK_FRONT])))
    sleeve = np.vstack([SLEEVE_TOP, CUFF, SLEEVE_UNDER, ARMHOLE[::-1]])
    sleeves = fill(sleeve) + fill(mirrored(sleeve))
    uneven = waves(2, 26)
    ground_shadow(image, np.clip(body + back + sleeves, 0, 1))
    draw_back(image, back)

    relief = sleeve_folds() + 0.5 * uneven
    v = 126 - (outward - 124) * SLEEVE_AXIS[0] + (y - 126) * SLEEVE_AXIS[1] - 6
    lay(image, sleeves, jersey(v + 1.4 * relief), relief, rim=13)
    draw_cuffs(image, sleeves)

    relief = body_folds() + 0.5 * uneven
    lay(image, body, jersey(y - 5 * (outward / 124) ** 2 + 2.0 * relief), relief, rim=14)
    draw_neck(image, body)
    for armhole in (ARMHOLE, mirrored(ARMHOLE)):
        seam(image, armhole, np.clip(body + sleeves, 0, 1), 0.32)
    for offset in (17, 20):
        stitches(image, symmetric(moved(HEM, 0, -offset))[:-1], THREAD, body, 1.0)
    return finished(image)


def draw_back(image: Plane, back: Plane) -> None:
    """The inside of the back seen through the neck, with a woven label."""
    _, y = grid()
    lay(image, back, CREAM * 0.86)
    darken(image, back * 0.2 * np.clip((y - 106) / 20, 0, 1))
    label = fill(np.array([(272, 110), (304, 110), (304, 123), (272, 123)]))
    paint(image, label * back, NAVY * 1.25)
    for line in (spline((278, 115), (298, 115)), spline((282, 118.5), (294, 118.5))):
        paint(image, 0.8 * fill(np.vstack([moved(line, 0, -0.6), moved(line[::-1], 0, 0.6)])), CREAM)


def draw_neck(image: Plane, body: Plane) -> None:
    """The ribbed band along the boat neck."""
    edge = symmetric(RIB_EDGE)
    band = body * fill(np.vstack([edge, [(CENTRE + 80, 60), (CENTRE - 80, 60)]]))
    ribbing(image, symmetric(NECK_FRONT), 3.2, 0.13, band, 22)
    seam(image, edge, body, 0.35)


def draw_cuffs(image: Plane, sleeves: Plane) -> None:
    """Ribbed cuffs in plain cream."""
    for line, end in ((CUFF_SEAM, CUFF), (mirrored(CUFF_SEAM), mirrored(CUFF))):
        around = np.vstack([line, moved((line[-1:] + end[-1:]) / 2, 3, 0), moved(end[::-1], 0, 2)])
        cuff = sleeves * fill(around)
        lay(image, cuff, CREAM, rim=9)
        ribbing(image, line, 3.4, 0.16, cuff, 34)
        seam(image, line, sleeves, 0.4)
