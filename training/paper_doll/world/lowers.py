# SPDX-License-Identifier: GPL-3.0-or-later
"""Lower garments: trousers and shorts from two legs and a seat, skirts from one bell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .body import SIDES
from .canvas import Canvas, Points, ellipse, moved
from .cloth import Cloth, Panel, paint_cloth, paint_trim, seam_colour
from .colours import CLOTH_COLOURS, lighter, trim_of
from .garments import DollGarment
from .strips import Profile, curve, make_strip, paint_limb, paint_line, part_of

RISE = 0.078  # units from the waistband to where the legs part


@dataclass(frozen=True)
class Hips:
    """What a lower garment hangs on.

    waist: middle of the waistband. crotch: where the legs part. legs: centre lines from the hips to the ankles, the
    viewer's left first. width: half width of the hips. curl: how much patterns curve around the body.
    """

    waist: Points
    crotch: Points
    legs: tuple[Points, Points]
    width: float
    curl: float


def paint_lower(canvas: Canvas, garment: DollGarment, cloth: Cloth, hips: Hips) -> None:
    """Paint the whole garment."""
    if "skirt" in garment.kind:
        _paint_skirt(canvas, garment, cloth, hips)
    else:
        _paint_legs(canvas, garment, cloth, hips)
        _paint_seat(canvas, garment, cloth, hips)
    _paint_waistband(canvas, garment, cloth, hips)


def _leg_profile(garment: DollGarment) -> Profile:
    fit = garment.fit
    if garment.kind == "shorts":
        wide = garment.cut == "wide"
        return [(0, 0.047), (0.4, 0.049 + 0.004 * fit), (1, 0.050 + 0.006 * fit + (0.010 if wide else 0))]
    if garment.kind == "joggers":
        return [(0, 0.047), (0.3, 0.046 + 0.004 * fit), (0.8, 0.036 + 0.006 * fit), (1, 0.027)]
    knee, ankle = {"slim": (0.034, 0.0235), "straight": (0.038, 0.031), "wide": (0.043, 0.046)}[garment.cut]
    return [(0, 0.047), (0.2, 0.047), (0.55, knee + 0.004 * fit), (1, ankle + 0.005 * fit)]


def _paint_legs(canvas: Canvas, garment: DollGarment, cloth: Cloth, hips: Hips) -> None:
    length, profile = garment.length - RISE, _leg_profile(garment)
    for side, leg in zip(SIDES, hips.legs, strict=True):
        line = part_of(leg, 0, length + 0.015, 7)
        joggers = garment.kind == "joggers"
        panel = Panel(
            [(0, 0.047), (1, 0.040)],
            length,
            u=0.048 * side,
            v=RISE,
            hem=not joggers,
            curl=0.5 * hips.curl,
            phase=4 + side,
        )
        paint_cloth(canvas, cloth, panel, line, profile, round_start=True, bow=0.4 * hips.curl)
        if garment.cut == "side stripe":
            _paint_side_stripe(canvas, garment, cloth, line, profile, side)
        if joggers:
            cuff = part_of(line, length - 0.008, length + 0.015, 3)
            paint_trim(canvas, cuff, [(0, 0.0275), (1, 0.021)], cloth, trim_of(cloth.base), ribs=0.15)


def _paint_side_stripe(
    canvas: Canvas, garment: DollGarment, cloth: Cloth, line: Points, profile: Profile, side: int
) -> None:
    strip = make_strip(canvas, line, profile, round_start=True)
    if strip is not None:
        # `across` grows towards the viewer's right of a line that runs down; the stripe is on the outer side.
        band = np.clip((0.10 - np.abs(-side * strip.across + 0.74)) * canvas.scale * 0.035 + 0.5, 0, 1)
        canvas.paint(strip.box, garment.fabric.dye.inks[2], band * strip.cover, cloth.owner)


def _paint_seat(canvas: Canvas, garment: DollGarment, cloth: Cloth, hips: Hips) -> None:
    down = hips.crotch - hips.waist
    down = down / np.linalg.norm(down)
    line = curve([hips.waist, hips.crotch + down * 0.012], 5)
    width = hips.width
    profile = [(0, width - 0.013), (0.45, width - 0.001), (0.85, width + 0.005), (1, width + 0.003)]
    panel = Panel([(0, 0.080), (1, 0.092)], RISE + 0.012, hem=False, curl=hips.curl, phase=1)
    paint_cloth(canvas, cloth, panel, line, profile)
    seam = seam_colour(cloth)
    fly = np.stack([hips.waist + down * 0.016, hips.crotch + down * 0.022])
    paint_line(canvas, fly, [(0, 0.0007), (1, 0.0012)], seam, cloth.owner)
    thread = CLOTH_COLOURS["orange"] if garment.kind == "jeans" else seam
    for side in SIDES:
        pocket = [(side * 0.030, 0.016), (side * 0.043, 0.034), (side * (width - 0.006), 0.040)]
        paint_line(canvas, curve(np.array(pocket) + hips.waist, 7), [(0, 0.0011), (1, 0.0011)], thread, cloth.owner)
    if garment.kind == "jeans":
        stitch = curve(np.array([(0.012, 0.016), (0.012, 0.050), (0.002, 0.066)]) + hips.waist, 7)
        paint_line(canvas, stitch, [(0, 0.0009), (1, 0.0009)], thread, cloth.owner)


def _paint_skirt(canvas: Canvas, garment: DollGarment, cloth: Cloth, hips: Hips) -> None:
    length, width = garment.length, hips.width
    flare = {"a-line": 0.028, "pleated": 0.040, "pencil": 0.002}[garment.cut] + 0.014 * garment.fit
    hem = width + 0.006 + flare * (0.6 + 1.6 * length)
    sway = 0.5 * (hips.crotch[0] - hips.waist[0])
    line = curve([hips.waist, moved(hips.waist, 0.6 * sway, 0.4 * length), moved(hips.waist, sway, length)], 5)
    profile = [(0, width - 0.014), (min(0.5, 0.08 / length), width + 0.004), (1, hem)]
    panel = Panel(
        [(0, 0.075), (1, 0.075 + 0.14 * length)], length, folds=1.5, volume=0.16, curl=1.4 * hips.curl, phase=1
    )
    paint_cloth(canvas, cloth, panel, line, profile, bow=hips.curl)
    if garment.cut == "pleated":
        _paint_pleats(canvas, line, profile)
    if garment.fabric.texture == "denim":
        seam = part_of(line, 0.016, length - 0.004, 5)
        paint_line(canvas, seam, [(0, 0.0010), (1, 0.0010)], CLOTH_COLOURS["orange"], cloth.owner)


def _paint_pleats(canvas: Canvas, line: Points, profile: Profile) -> None:
    strip = make_strip(canvas, line, profile)
    if strip is not None:
        place = (strip.across * 4.5) % 1
        depth = np.clip(strip.along / 0.05, 0.25, 1)
        light = 1 + (0.12 * (place - 0.5) - 0.22 * np.clip(1 - place / 0.14, 0, 1)) * depth
        canvas.image[strip.box] *= (1 + (light - 1) * strip.cover)[..., None]


def _paint_waistband(canvas: Canvas, garment: DollGarment, cloth: Cloth, hips: Hips) -> None:
    down = hips.crotch - hips.waist
    down = down / np.linalg.norm(down)
    line, width = (
        np.stack([hips.waist - 0.001 * down, hips.waist + 0.0165 * down]).astype(np.float32),
        hips.width - 0.0135,
    )
    soft = garment.kind == "joggers"
    paint_trim(canvas, line, [(0, width), (1, width + 0.004)], cloth, trim_of(cloth.base), ribs=0.12 if soft else 0)
    x, y = hips.waist + 0.008 * down
    if soft:
        for side in SIDES:
            cord = curve([(x + side * 0.002, y), (x + side * 0.008, y + 0.022), (x + side * 0.007, y + 0.036)], 5)
            paint_limb(
                canvas, cord, [(0, 0.0016), (1, 0.0016)], lighter(cloth.base, 0.7), cloth.owner, outline=0.4, volume=0
            )
    elif garment.kind in ("jeans", "trousers", "shorts"):
        metal = CLOTH_COLOURS["beige"] if garment.fabric.texture == "denim" else lighter(cloth.base, 0.35)
        canvas.fill(ellipse(x, y, 0.0048, 0.0048, count=14), seam_colour(cloth), cloth.owner)
        canvas.fill(ellipse(x, y, 0.0037, 0.0037, count=14), metal, cloth.owner)
