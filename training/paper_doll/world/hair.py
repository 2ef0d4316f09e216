# SPDX-License-Identifier: GPL-3.0-or-later
"""Hair: what falls behind the body, and what falls over it."""

from __future__ import annotations

import numpy as np

from .body import SIDES, Head, Skeleton
from .canvas import Canvas, moved
from .colours import Colour, darker, lighter
from .strips import curve, paint_limb, paint_line

HAIR_STYLES: dict[str, tuple[str, ...]] = {
    "woman": ("long", "wavy", "bob", "bun", "ponytail", "braided", "short", "curly"),
    "man": ("short", "short", "curly", "bob", "bun", "bald"),
}
ALL_STYLES = tuple(dict.fromkeys(style for styles in HAIR_STYLES.values() for style in styles))


def paint_back_hair(canvas: Canvas, skeleton: Skeleton, style: str, colour: Colour, parting: float, hat: bool) -> None:
    """Paint the hair behind head and shoulders; a hat hides what stands up.

    parting: -1 to 1, the side that the hair parts on.
    """
    head, shade = skeleton.head, darker(colour, 0.2)
    end = skeleton.neck[0]
    if style in ("long", "wavy"):
        line = curve([*head.at([(0, -0.02), (0, 0.06)]), (end, 0.255 + 0.02 * parting)], 8)
        paint_limb(canvas, line, [(0, 0.062), (0.5, 0.070), (1, 0.058)], shade)
    elif style == "bob":
        paint_limb(canvas, head.at([(0, -0.02), (0, 0.062)]), [(0, 0.063), (1, 0.066)], shade)
    elif style == "ponytail":
        side = 1 if parting > 0 else -1
        line = curve(
            [
                *head.at([(side * 0.03, -0.05), (side * 0.074, -0.03), (side * 0.080, 0.04)]),
                (end + side * 0.066, 0.195),
            ],
            9,
        )
        paint_limb(canvas, line, [(0, 0.013), (0.35, 0.022), (0.7, 0.021), (1, 0.004)], shade)
    elif style == "curly":
        _paint_curls(canvas, head, shade, np.linspace(0.80, 2.20, 11) * np.pi, 0.060, 0.064, 0.024)
    elif style == "bun" and not hat:
        canvas.fill(head.ellipse(0.004 * parting, -0.090, 0.0285, 0.0255), darker(colour, 0.05), "person")
        canvas.fill(
            head.ellipse(0.004 * parting - 0.006, -0.097, 0.0150, 0.0090, -0.4), lighter(colour, 0.16), "person", 0.5
        )


def paint_front_hair(canvas: Canvas, skeleton: Skeleton, style: str, colour: Colour, parting: float, hat: bool) -> None:
    """Paint the hair around the face, and the locks that fall over the chest; a hat hides what stands up."""
    if style == "bald":
        return
    head, colour = skeleton.head, lighter(colour, 0.05)
    if style == "curly":
        reach = np.linspace(1.06, 1.94, 8) * np.pi
        _paint_curls(canvas, head, colour, reach, 0.047, 0.050 if not hat else 0.040, 0.019)
        return
    angle = np.linspace(1.02, 1.98, 18) * np.pi
    crown = np.stack([0.0575 * np.cos(angle), -0.012 + 0.066 * np.sin(angle)], axis=1)
    apart = 0.022 * parting
    fringe = curve([(0.050, -0.008), (0.041, -0.027), (apart + 0.004, -0.044), (-0.041, -0.025), (-0.050, -0.008)], 16)
    canvas.fill(head.at(np.vstack([crown, fringe])), colour, "person")
    shine = np.vstack([crown[4:9], (crown[4:9] * 0.85)[::-1]])
    canvas.fill(head.at(shine), lighter(colour, 0.35), "person", 0.4)
    for strand in (-0.024, 0.002, 0.026):
        line = head.at(curve([(apart, -0.045), (apart + 0.5 * strand, -0.063), (apart + 1.3 * strand, -0.070)], 5))
        paint_line(canvas, line, [(0, 0.0007), (1, 0.0012)], darker(colour, 0.25))
    if style in ("long", "wavy", "bob"):
        _paint_locks(canvas, skeleton, style, colour)
    elif style == "braided":
        _paint_braids(canvas, skeleton, colour)
    elif style == "short":
        for side in SIDES:  # sideburns
            line = head.at([(side * 0.050, -0.012), (side * 0.0505, 0.008)])
            paint_limb(canvas, line, [(0, 0.0065), (1, 0.0022)], colour, outline=0.2)


def _paint_locks(canvas: Canvas, skeleton: Skeleton, style: str, colour: Colour) -> None:
    head, neck = skeleton.head, skeleton.neck
    for side in SIDES:
        points = list(head.at([(side * 0.050, -0.03), (side * 0.060, 0.03)]))
        if style == "bob":
            points.append(head.at([(side * 0.052, 0.072)])[0])
            widths = [(0, 0.010), (0.6, 0.0145), (1, 0.009)]
        elif style == "long":
            points.append(moved(neck, side * 0.058, 0.075))
            widths = [(0, 0.010), (0.5, 0.015), (0.85, 0.013), (1, 0.005)]
        else:
            points += [
                moved(neck, side * 0.066, 0.010),
                moved(neck, side * 0.050, 0.045),
                moved(neck, side * 0.062, 0.085),
            ]
            widths = [(0, 0.010), (0.5, 0.016), (0.85, 0.014), (1, 0.006)]
        line = curve(points, 10)
        paint_limb(canvas, line, widths, colour, volume=0.16)
        paint_line(canvas, moved(line[2:8], side * 0.003, 0), [(0, 0.0008), (1, 0.0014)], darker(colour, 0.2))


def _paint_braids(canvas: Canvas, skeleton: Skeleton, colour: Colour) -> None:
    for side in SIDES:
        start = skeleton.head.at([(side * 0.052, -0.005)])[0]
        line = curve([start, skeleton.head.at([(side * 0.062, 0.04)])[0], moved(skeleton.neck, side * 0.056, 0.075)], 8)
        for index, (x, y) in enumerate(line):
            size = 0.0135 - 0.0007 * index
            knot = curve([(x, y - 0.006), (x, y + 0.006)], 3)
            paint_limb(canvas, knot, [(0, size), (1, 0.85 * size)], colour, volume=0.2)
        x, y = line[-1]
        canvas.fill(
            [(x - 0.006, y + 0.014), (x + 0.006, y + 0.014), (x + 0.005, y + 0.020), (x - 0.005, y + 0.020)],
            darker(colour, 0.6),
            "person",
        )


def _paint_curls(
    canvas: Canvas, head: Head, colour: Colour, angles: np.ndarray, across: float, down: float, size: float
) -> None:
    for index, angle in enumerate(angles):
        x, y = across * np.cos(angle), -0.014 + down * np.sin(angle)
        grown = size * (1 + 0.14 * np.sin(5 * index))
        canvas.fill(head.ellipse(x, y, grown, grown), colour, "person")
        canvas.fill(
            head.ellipse(x - 0.25 * grown, y - 0.3 * grown, 0.45 * grown, 0.35 * grown),
            lighter(colour, 0.2),
            "person",
            0.4,
        )
