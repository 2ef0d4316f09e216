# SPDX-License-Identifier: GPL-3.0-or-later
"""Upper garments: a torso, two sleeves, and what happens at the neck."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .body import SIDES
from .canvas import Canvas, Points, ellipse, moved
from .cloth import Cloth, Panel, paint_cloth, paint_trim, seam_colour
from .colours import CLOTH_COLOURS, WHITE, Colour, darker, lighter, trim_of
from .garments import DollGarment
from .strips import Profile, curve, distances, paint_limb, paint_line, part_of

WARM = ("sweater", "hoodie", "turtleneck")  # with ribbed cuffs and hem
RIB = 0.020  # height in units of a ribbed hem
# The right-hand half of a tank top's outlines, (x, y) in units from the base of the neck: outside and inside of the
# strap, and the neck of its back, which shows when it is laid flat.
ARM_HOLE = np.array([(0.057, 0.013), (0.055, 0.034), (0.058, 0.056), (0.068, 0.076), (0.080, 0.088)])
SCOOP = np.array([(0.037, 0.002), (0.034, 0.022), (0.026, 0.044), (0.012, 0.056), (0, 0.059)])
BACK_SCOOP = np.array([(0.037, 0.002), (0.034, 0.012), (0.025, 0.022), (0.012, 0.026), (0, 0.028)])


@dataclass(frozen=True)
class Chest:
    """What an upper garment hangs on.

    spine: its centre line from the base of the neck to its hem. shoulder, waist, hip: half widths. inside: what one
    sees through the neck; None shows the garment's own lining. curl: how much patterns curve around the body. tucked:
    the spine ends at the waistband instead of at the hem.
    """

    spine: Points
    shoulder: float
    waist: float
    hip: float
    inside: Colour | None
    curl: float
    tucked: bool = False

    @property
    def neck(self) -> Points:
        """The base of the neck, (2,)."""
        return self.spine[0]


def trim_colour(garment: DollGarment) -> Colour:
    """The colour of ribbing and collars: the second ink on a ringer, otherwise a shade of the cloth."""
    dye = garment.fabric.dye
    return dye.inks[2] if garment.cut in ("ringer", "bomber") else trim_of(dye.inks[0])


def paint_torso_panel(canvas: Canvas, garment: DollGarment, cloth: Cloth, chest: Chest) -> None:
    """Paint the body of the garment, its hem and what is sewn onto its front."""
    ribbed = garment.kind in WARM or garment.cut == "bomber"
    length = distances(chest.spine)[-1]
    profile = _torso_profile(garment, chest)
    flat = [(0.0, 0.045), (0.11, 0.090), (1.0, 0.090)]
    panel = Panel(flat, length, printed=True, hem=not ribbed, curl=chest.curl)
    paint_cloth(canvas, cloth, panel, chest.spine, profile, bow=0.5 * chest.curl)
    if garment.kind == "hoodie":
        _paint_pouch(canvas, garment, chest, cloth)
    if garment.kind in ("shirt", "polo shirt"):
        _paint_buttons(canvas, garment, chest, cloth)
    if garment.kind == "jacket":
        _paint_zip(canvas, garment, chest, cloth)
    if ribbed:
        line = part_of(chest.spine, length - RIB, length, 3)
        width = profile[-1][1]
        paint_trim(canvas, line, [(0, width + 0.001), (1, width - 0.006)], cloth, trim_colour(garment), ribs=0.16)


def _torso_profile(garment: DollGarment, chest: Chest) -> Profile:
    ease, shoulder = garment.ease, chest.shoulder - 0.002
    if garment.kind == "tank top":
        length = distances(chest.spine)[-1]
        top = [(0.0, 0.042), *((y / length, x) for x, y in _arm_hole(chest))]
    else:
        top = [
            (0.0, 0.040),
            (0.05, shoulder - 0.014),
            (0.11, shoulder + 0.4 * ease),
            (0.22, shoulder - 0.003 + ease),
            (0.32, shoulder - 0.006 + ease),
        ]
    return [
        *top,
        (0.62, chest.waist + 0.014 * garment.fit + ease),
        (1.0, chest.hip + (-0.012 if chest.tucked else 0.003 + 0.008 * garment.fit + ease)),
    ]


def _arm_hole(chest: Chest) -> Points:
    """The edge of a tank top's right-hand arm hole: (n, 2), how far from the spine and how far down it."""
    return ARM_HOLE * (chest.shoulder / 0.088, 1)


def paint_sleeve(canvas: Canvas, garment: DollGarment, cloth: Cloth, arm: Points, side: int, curl: float) -> None:
    """Paint one sleeve along the centre line of an arm. Sleeves of a colour block are cut from its upper colour."""
    if not garment.sleeve:
        return
    line = part_of(arm, 0, garment.sleeve, 7)
    ease, long = garment.ease, garment.sleeve > 0.2
    end = 0.022 + ease + 0.003 * garment.fit if long else 0.034 + 0.5 * ease + 0.006 * garment.fit
    profile = [(0.0, 0.028 + 0.6 * ease), (0.25, 0.032 + ease), (1.0, end)]
    ribbed = garment.kind in WARM or garment.cut == "bomber"
    trimmed = ribbed or garment.cut == "ringer"
    panel = Panel(
        [(0, 0.036), (1, 0.034)],
        0.0 if garment.fabric.texture == "colour block" else garment.sleeve,
        u=0.11 * side,
        v=0.02,
        seamless=0.05,
        hem=not trimmed,
        curl=0.5 * curl,
        phase=2 + side,
    )
    paint_cloth(canvas, cloth, panel, line, profile, round_start=True)
    if trimmed:
        reach = RIB if ribbed else 0.010
        cuff = part_of(line, garment.sleeve - reach, garment.sleeve, 3)
        width = 0.019 + 0.3 * ease if long and ribbed else end
        paint_trim(
            canvas, cuff, [(0, width + 0.002), (1, width)], cloth, trim_colour(garment), ribs=0.14 if ribbed else 0
        )
    elif garment.kind in ("shirt", "jacket") and long:
        cuff = part_of(line, garment.sleeve - 0.024, garment.sleeve, 3)
        paint_trim(canvas, cuff, [(0, end + 0.0015), (1, end + 0.001)], cloth, trim_of(cloth.base))


def _paint_pouch(canvas: Canvas, garment: DollGarment, chest: Chest, cloth: Cloth) -> None:
    top, bottom = 0.62 * garment.length, garment.length - RIB
    start, stop = part_of(chest.spine, top, bottom, 2)
    outline = [
        moved(start, -0.040, 0),
        moved(start, 0.040, 0),
        moved(start, 0.058, 0.045),
        moved(stop, 0.058, 0),
        moved(stop, -0.058, 0),
        moved(start, -0.058, 0.045),
    ]
    paint_line(canvas, np.array([*outline, outline[0]]), [(0, 0.0011), (1, 0.0011)], seam_colour(cloth), cloth.owner)


def _paint_buttons(canvas: Canvas, garment: DollGarment, chest: Chest, cloth: Cloth) -> None:
    seam, button = seam_colour(cloth), lighter(garment.fabric.dye.inks[1], 0.4)
    reach = garment.length - 0.006 if garment.kind == "shirt" else 0.095
    placket = part_of(chest.spine, 0.030, reach, 6)
    for side in (-0.0075, 0.0075) if garment.kind == "polo shirt" else (0.0085,):
        paint_line(canvas, moved(placket, side, 0), [(0, 0.0007), (1, 0.0007)], seam, cloth.owner)
    count = 6 if garment.kind == "shirt" else 2
    for x, y in part_of(chest.spine, 0.055, reach - 0.02, count):
        canvas.fill(ellipse(x, y, 0.0046, 0.0046, count=14), seam, cloth.owner)
        canvas.fill(ellipse(x, y, 0.0036, 0.0036, count=14), button, cloth.owner)
    if garment.kind == "shirt":
        x, y = part_of(chest.spine, 0.085, 0.1, 2)[0] + (0.042, 0)
        pocket = [
            (x - 0.017, y),
            (x + 0.017, y),
            (x + 0.017, y + 0.030),
            (x, y + 0.037),
            (x - 0.017, y + 0.030),
            (x - 0.017, y),
        ]
        paint_line(canvas, np.array(pocket), [(0, 0.0008), (1, 0.0008)], seam, cloth.owner)


def _paint_zip(canvas: Canvas, garment: DollGarment, chest: Chest, cloth: Cloth) -> None:
    line = part_of(chest.spine, 0.060, garment.length - 0.002, 8)
    paint_line(canvas, line, [(0, 0.0042), (1, 0.0042)], seam_colour(cloth), cloth.owner)
    paint_line(canvas, line, [(0, 0.0017), (1, 0.0017)], CLOTH_COLOURS["beige"], cloth.owner)
    x, y = line[0]
    canvas.fill(ellipse(x, y + 0.006, 0.0040, 0.0075, count=14), CLOTH_COLOURS["beige"], cloth.owner)
    middle = part_of(chest.spine, 0.66 * garment.length, garment.length, 2)[0]
    for side in SIDES:
        pocket = middle + np.array([(side * 0.040, 0), (side * 0.062, 0.040)])
        paint_line(canvas, pocket, [(0, 0.0026), (1, 0.0026)], seam_colour(cloth), cloth.owner)


def paint_collar(canvas: Canvas, garment: DollGarment, cloth: Cloth, chest: Chest) -> None:
    """Cut the neck out and sew the collar on."""
    NECKS[garment.kind](canvas, garment, cloth, chest)


def _hole(canvas: Canvas, outline: Points, cloth: Cloth, chest: Chest) -> None:
    """Show what lies inside the neck: skin on a person, the darker lining when laid flat."""
    if chest.inside is None:
        canvas.fill(outline, darker(cloth.base, 0.42), cloth.owner)
    else:
        canvas.fill(outline, chest.inside, "person")


def _paint_round_neck(canvas: Canvas, garment: DollGarment, cloth: Cloth, chest: Chest) -> None:
    x, y = chest.neck
    wide, deep = 0.040, 0.028
    if garment.cut == "v-neck":
        wings = np.array([(-0.040, -0.016), (0.040, -0.016), (0.038, -0.002), (0, 0.060), (-0.038, -0.002)])
        canvas.fill(moved(wings * (1.14, 1.18), x, y), trim_colour(garment), cloth.owner)
        _hole(canvas, moved(wings, x, y), cloth, chest)
        return
    canvas.fill(ellipse(x, y, wide + 0.0065, deep + 0.0075), trim_colour(garment), cloth.owner)
    canvas.fill(ellipse(x, y - 0.001, wide + 0.001, deep + 0.0015), seam_colour(cloth), cloth.owner, 0.5)
    _hole(canvas, ellipse(x, y - 0.002, wide, deep), cloth, chest)


def _paint_scoop_neck(canvas: Canvas, garment: DollGarment, cloth: Cloth, chest: Chest) -> None:
    front, back = (moved(curve(_mirrored(half), 21), *chest.neck) for half in (SCOOP, BACK_SCOOP))
    opening = np.vstack([front, moved(front[[-1, 0]], 0, -0.005)])
    trim = trim_colour(garment)
    if chest.inside is None:
        canvas.fill(opening, WHITE, "background")
        _hole(canvas, np.vstack([front, back[::-1]]), cloth, chest)
        _paint_binding(canvas, back, darker(trim, 0.25), cloth)
    else:
        _hole(canvas, opening, cloth, chest)
    _paint_binding(canvas, front, trim, cloth)
    for side in SIDES:
        edge = [part_of(chest.spine, y, y, 2)[0] + (side * (x - 0.0035), 0) for x, y in _arm_hole(chest)]
        _paint_binding(canvas, curve(edge, 13), trim, cloth)


def _mirrored(half: Points) -> Points:
    """A line that ends on the middle line, followed by its mirror image back to the start's height."""
    return np.vstack([half, half[-2::-1] * (-1, 1)])


def _paint_binding(canvas: Canvas, line: Points, colour: Colour, cloth: Cloth) -> None:
    paint_line(canvas, line, [(0, 0.0034), (1, 0.0034)], seam_colour(cloth), cloth.owner)
    paint_line(canvas, line, [(0, 0.0026), (1, 0.0026)], colour, cloth.owner)


def _paint_roll_neck(canvas: Canvas, garment: DollGarment, cloth: Cloth, chest: Chest) -> None:
    x, y = chest.neck
    if chest.inside is None:
        canvas.fill(ellipse(x, y - 0.028, 0.0315, 0.010), darker(cloth.base, 0.42), cloth.owner)
    line = np.array([(x, y - 0.028), (x, y + 0.012)], np.float32)
    profile = [(0, 0.0320), (0.5, 0.0345), (1, 0.041)]
    panel = Panel([(0, 0.045), (1, 0.045)], 0.04, v=-0.04, hem=False, folds=0.4, volume=0.26, curl=0.006)
    paint_cloth(canvas, cloth, panel, line, profile, bow=-0.004)
    roll = np.array([(x - 0.030, y - 0.006), (x, y + 0.001), (x + 0.030, y - 0.006)])
    paint_line(canvas, curve(roll, 7), [(0, 0.0010), (1, 0.0010)], seam_colour(cloth), cloth.owner)


def _paint_hood(canvas: Canvas, garment: DollGarment, cloth: Cloth, chest: Chest) -> None:
    x, y = chest.neck
    base = cloth.base
    canvas.fill(ellipse(x, y + 0.002, 0.063, 0.034), darker(base, 0.42), cloth.owner)
    canvas.fill(ellipse(x, y - 0.001, 0.058, 0.030), darker(base, 0.10), cloth.owner)
    canvas.fill(ellipse(x, y - 0.003, 0.046, 0.025), darker(base, 0.42), cloth.owner)
    _hole(canvas, ellipse(x, y + 0.002, 0.034, 0.022), cloth, chest)
    cord = trim_of(base) if garment.fabric.texture == "plain" else garment.fabric.dye.inks[1]
    cord = lighter(cord, 0.45)
    for side, reach in ((-1, 0.074), (1, 0.062)):
        line = curve([(x + side * 0.016, y + 0.022), (x + side * 0.019, y + 0.045), (x + side * 0.018, y + reach)], 6)
        paint_limb(canvas, line, [(0, 0.0021), (1, 0.0021)], cord, cloth.owner, outline=0.5, volume=0)


def _paint_shirt_collar(canvas: Canvas, garment: DollGarment, cloth: Cloth, chest: Chest) -> None:
    x, y = chest.neck
    _hole(canvas, np.array([(x - 0.036, y - 0.010), (x + 0.036, y - 0.010), (x, y + 0.045)], np.float32), cloth, chest)
    wing = np.array([(0.036, -0.016), (0.048, 0.018), (0.022, 0.045), (0.0015, 0.030), (0.025, 0.004)])
    top = (
        garment.fabric.dye.inks[1] if garment.kind == "polo shirt" and garment.fabric.texture != "plain" else cloth.base
    )
    for side in SIDES:
        edge = wing * (side * 1.0, 1) + (x, y)
        middle = edge.mean(axis=0)
        canvas.fill((edge - middle) * 1.10 + middle, seam_colour(cloth), cloth.owner)
        canvas.fill(edge, lighter(top, 0.10), cloth.owner)


def _paint_jacket_collar(canvas: Canvas, garment: DollGarment, cloth: Cloth, chest: Chest) -> None:
    x, y = chest.neck
    opening = np.array([(x - 0.036, y - 0.010), (x + 0.036, y - 0.010), (x, y + 0.066)], np.float32)
    if chest.inside is None:
        _hole(canvas, opening, cloth, chest)
    else:
        canvas.fill(opening, WHITE * 0.96, "person")  # a T-shirt underneath, which is nobody's garment
        canvas.fill(ellipse(x, y - 0.004, 0.031, 0.024), chest.inside, "person")
    if garment.cut == "bomber":
        for side in SIDES:
            line = curve(
                [(x + side * 0.038, y - 0.016), (x + side * 0.034, y + 0.012), (x + side * 0.002, y + 0.064)], 6
            )
            paint_limb(canvas, line, [(0, 0.009), (1, 0.006)], trim_colour(garment), cloth.owner)
        return
    wing = np.array([(0.034, -0.016), (0.051, 0.014), (0.034, 0.048), (0.002, 0.068), (0.014, 0.030)])
    for side in SIDES:
        edge = wing * (side, 1) + (x, y)
        middle = edge.mean(axis=0)
        canvas.fill((edge - middle) * 1.08 + middle, seam_colour(cloth), cloth.owner)
        canvas.fill(edge, trim_of(cloth.base), cloth.owner)


NECKS = {
    "t-shirt": _paint_round_neck,
    "tank top": _paint_scoop_neck,
    "sweater": _paint_round_neck,
    "polo shirt": _paint_shirt_collar,
    "shirt": _paint_shirt_collar,
    "turtleneck": _paint_roll_neck,
    "hoodie": _paint_hood,
    "jacket": _paint_jacket_collar,
}
