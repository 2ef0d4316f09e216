# SPDX-License-Identifier: GPL-3.0-or-later
"""Hats: a dome, and a rim, a peak or a brim below it. All in the coordinates of the head, so that they tilt with it."""

from __future__ import annotations

import numpy as np

from .body import Head
from .canvas import Canvas, moved
from .cloth import Cloth, Panel, paint_cloth, paint_trim, seam_colour
from .colours import Colour, darker, lighter, trim_of
from .garments import DollGarment
from .strips import Profile, curve, paint_limb, paint_line


def paint_hat(canvas: Canvas, garment: DollGarment, cloth: Cloth, head: Head) -> None:
    """Put the hat on a head."""
    HATS[garment.kind](canvas, garment, cloth, head)


def _second(garment: DollGarment) -> Colour:
    dye = garment.fabric.dye
    return dye.inks[1]


def _dome(
    canvas: Canvas, cloth: Cloth, head: Head, across: float, top: float, bottom: float, flatness: float = 2.0
) -> None:
    """Paint the crown of a hat, `across` units half wide between two heights; more `flatness` makes a flatter top."""
    line = head.at([(0, top), (0, 0.5 * (top + bottom)), (0, bottom)])
    part = np.linspace(0, 1, 10)
    width = across * (1 - (1 - np.clip(part / 0.8, 0, 1)) ** flatness) ** (1 / flatness)
    profile: Profile = [(float(p), max(0.004, float(w))) for p, w in zip(part, width, strict=True)]
    panel = Panel([(0, across), (1, across)], bottom - top, folds=0.4, hem=False, curl=0.010, phase=6)
    paint_cloth(canvas, cloth, panel, line, profile)


def _paint_beanie(canvas: Canvas, garment: DollGarment, cloth: Cloth, head: Head) -> None:
    if garment.cut == "pompom":
        for x, y, size in ((0, -0.097, 0.0180), (-0.009, -0.092, 0.010), (0.009, -0.092, 0.010), (0, -0.106, 0.010)):
            canvas.fill(head.ellipse(x, y, size, 0.92 * size), _second(garment), cloth.owner)
        canvas.fill(head.ellipse(-0.004, -0.101, 0.0075, 0.0060), lighter(_second(garment), 0.3), cloth.owner, 0.7)
    _dome(canvas, cloth, head, 0.0605, -0.088, -0.014)
    band = head.at([(0, -0.037), (0, -0.011)])
    colour = _second(garment) if garment.fabric.texture not in ("plain", "knit") else trim_of(cloth.base)
    paint_trim(canvas, band, [(0, 0.0605), (0.5, 0.0625), (1, 0.0600)], cloth, colour, ribs=0.2)


def _paint_cap(canvas: Canvas, garment: DollGarment, cloth: Cloth, head: Head) -> None:
    _dome(canvas, cloth, head, 0.0585, -0.084, -0.016, 2.2)
    seam = seam_colour(cloth)
    for x in (-0.028, 0.028):
        line = head.at(curve([(0.25 * x, -0.083), (0.95 * x, -0.062), (1.1 * x, -0.024)], 7))
        paint_line(canvas, line, [(0, 0.0007), (1, 0.0007)], seam, cloth.owner)
    colour = _second(garment) if garment.fabric.texture not in ("plain", "denim") else trim_of(cloth.base)
    peak = curve([(-0.055, -0.024), (-0.034, -0.013), (0, -0.010), (0.034, -0.013), (0.055, -0.024)], 12)
    paint_limb(canvas, head.at(peak), [(0, 0.0050), (0.5, 0.0115), (1, 0.0050)], colour, cloth.owner, volume=0.14)
    paint_line(canvas, head.at(moved(peak, 0, -0.009)), [(0, 0.0010), (1, 0.0010)], darker(colour, 0.4), cloth.owner)
    canvas.fill(head.ellipse(0, -0.085, 0.0065, 0.0045), colour, cloth.owner)


def _paint_sun_hat(canvas: Canvas, garment: DollGarment, cloth: Cloth, head: Head) -> None:
    brim = head.at(curve([(-0.104, -0.018), (-0.05, -0.024), (0, -0.026), (0.05, -0.024), (0.104, -0.018)], 12))
    paint_limb(
        canvas, brim, [(0, 0.0070), (0.5, 0.0180), (1, 0.0070)], darker(cloth.base, 0.07), cloth.owner, volume=0.16
    )
    for place in (0.35, 0.7):
        ring = head.at(
            curve([(-0.103, -0.018 + 0.008 * place), (0, -0.026 + 0.019 * place), (0.103, -0.018 + 0.008 * place)], 9)
        )
        paint_line(canvas, ring, [(0, 0.0006), (1, 0.0006)], darker(cloth.base, 0.28), cloth.owner)
    _dome(canvas, cloth, head, 0.0555, -0.094, -0.028, 2.6)
    ribbon = head.at(curve([(-0.0555, -0.037), (0, -0.032), (0.0555, -0.037)], 7))
    ink = garment.fabric.dye.inks[2] if garment.fabric.texture == "plain" else _second(garment)
    paint_limb(
        canvas,
        ribbon,
        [(0, 0.0085), (1, 0.0085)],
        ink,
        cloth.owner,
        rounded=(False, False),
        volume=0.1,
    )


def _paint_bucket_hat(canvas: Canvas, garment: DollGarment, cloth: Cloth, head: Head) -> None:
    line = head.at([(0, -0.092), (0, -0.034)])
    panel = Panel([(0, 0.055), (1, 0.055)], 0.058, folds=0.4, hem=False, curl=0.006, phase=6)
    paint_cloth(canvas, cloth, panel, line, [(0, 0.036), (0.12, 0.044), (1, 0.0570)], bow=-0.002)
    brim = head.at([(0, -0.040), (0, -0.004)])
    panel = Panel([(0, 0.057), (1, 0.085)], 0.036, v=0.058, folds=0.8, curl=0.010, phase=2)
    paint_cloth(canvas, cloth, panel, brim, [(0, 0.0560), (1, 0.0820)], bow=0.008)
    for y in (-0.028, -0.019):
        half = 0.0520 + 0.026 * (y + 0.040) / 0.036
        line = head.at(curve([(-half, y - 0.006), (0, y + 0.002), (half, y - 0.006)], 9))
        paint_line(canvas, line, [(0, 0.0006), (1, 0.0006)], seam_colour(cloth), cloth.owner)


HATS = {"beanie": _paint_beanie, "cap": _paint_cap, "sun hat": _paint_sun_hat, "bucket hat": _paint_bucket_hat}
