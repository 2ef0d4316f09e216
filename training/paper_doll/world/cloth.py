# SPDX-License-Identifier: GPL-3.0-or-later
"""Cloth: a fabric laid over a strip, following its bends, with folds, light, seams and hems."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Plane, Points, looked_up, resized, threefold
from .colours import Colour
from .fabrics import Fabric
from .prints import DENSITY, SHEET, print_picture
from .strips import Profile, Strip, at_fraction, make_strip, outline_width
from .textures import PERIOD, TILE, shadow_ink, soft_tile


class Cloth:
    """A fabric at the scale of one canvas: pixels of its tile are as large as pixels of the picture.

    length: of the whole garment in units, which a gradient spreads over. folds: phases of its folds, (8,) radians.
    """

    def __init__(self, fabric: Fabric, length: float, folds: np.ndarray, owner: str) -> None:
        """Weave the tile and ink the print, once for all canvases."""
        self.fabric, self.length, self.folds, self.owner = fabric, length, folds, owner
        self.base = fabric.dye.inks[0]
        self.tile = soft_tile(fabric.dye, fabric.texture)
        ink = fabric.dye.inks[2]
        inks = ink, 0.55 * ink + 0.45 * self.base, self.base
        self.print = print_picture(fabric.motif, inks) if fabric.motif else None
        self._scaled: tuple[float, Plane, Plane | None] | None = None

    def at_scale(self, scale: float) -> tuple[Plane, Plane | None]:
        """The tile and the print for `scale` pixels per unit."""
        if self._scaled is None or self._scaled[0] != scale:
            size = max(12, min(TILE, round(PERIOD * scale)))
            tile = resized(self.tile, size, size)
            picture = self.print
            if picture is not None and scale < DENSITY:
                shape = (max(2, round(side * scale / DENSITY)) for side in picture.shape[:2])
                picture = resized(picture, *shape)
            self._scaled = scale, tile, picture
        return self._scaled[1:]

    def colours(self, u: Plane, v: Plane, scale: float, printed: bool) -> Plane:
        """The colours (h, w, 3) at places of the garment: u across from its middle, v down from its top, in units."""
        tile, picture = self.at_scale(scale)
        if self.fabric.texture == "plain":
            colours = np.broadcast_to(self.base, (*u.shape, 3)).copy()
        elif self.fabric.texture in ("gradient", "colour block"):
            part = v / np.float32(self.length)
            sharpness = 1.15 if self.fabric.texture == "gradient" else self.length * scale
            part = np.clip((part - np.float32(0.5)) * np.float32(sharpness) + np.float32(0.5), 0, 1)
            colours = self.base + (self.fabric.dye.inks[1] - self.base) * threefold(part)
        else:
            step, half = np.float32(tile.shape[0] / PERIOD), np.float32(0.5)
            colours = looked_up(tile, u * step - half, v * step - half, repeats=True)
        if printed and picture is not None:
            density = picture.shape[1] / SHEET[0]
            left, top = np.float32(SHEET[0] / 2), np.float32(0)
            ink = looked_up(picture, (u + left) * np.float32(density) - 0.5, (v + top) * np.float32(density) - 0.5)
            colours = colours * threefold(1 - ink[..., 3]) + ink[..., :3]
        return colours


@dataclass(frozen=True)
class Panel:
    """How a piece of a garment was cut from the cloth, and how it hangs.

    u, v: where on the cloth its start lies. flat: its half width when laid flat, which the pattern is stretched over.
    length: its length when laid flat. printed: whether the print is on it. folds: how deep they are. volume: how
    round it looks. seamless: units at its start over which outline and shading fade in, where it is sewn to another.
    hem: stitched at its end. curl: how much the pattern curves around the body.
    """

    flat: Profile
    length: float
    u: float = 0.0
    v: float = 0.0
    printed: bool = False
    folds: float = 1.0
    volume: float = 0.2
    seamless: float = 0.0
    hem: bool = True
    curl: float = 0.0
    phase: int = 0


def paint_cloth(
    canvas: Canvas,
    cloth: Cloth,
    panel: Panel,
    line: Points,
    profile: Profile,
    *,
    round_start: bool = False,
    round_end: bool = False,
    bow: float = 0.0,
) -> None:
    """Sew a panel along a line."""
    strip = make_strip(canvas, line, profile, round_start=round_start, round_end=round_end, bow=bow)
    if strip is None:
        return
    part = strip.along / np.float32(strip.length)
    u = strip.across * at_fraction(panel.flat, part) + np.float32(panel.u)
    v = part * np.float32(panel.length) + np.float32(panel.v)
    if panel.curl:
        v = v - np.float32(panel.curl) * (strip.across**2) * np.clip(part * 4, 0, 1)
    colours = cloth.colours(u, v, canvas.scale, panel.printed)
    light, rim = _light(cloth, panel, strip), _rim(canvas, cloth, panel, strip)
    colours *= threefold(light * (1 - np.float32(0.5) * rim))
    canvas.paint(strip.box, np.clip(colours, 0, 1), strip.cover, cloth.owner)


def _light(cloth: Cloth, panel: Panel, strip: Strip) -> Plane:
    """How bright each pixel is: round towards the edges, lit from the upper left, with a few soft folds."""
    along, across = strip.along, strip.across
    first, second, third = (float(cloth.folds[(panel.phase + step) % 8]) for step in (0, 3, 5))
    steep = np.abs(across)
    folds = np.sin(along * 36 + first + 3.2 * across) * (0.3 + 0.7 * steep)
    folds += 0.8 * np.sin(across * 5.2 + second + along * 9) * np.clip(along * 4, 0, 1)
    folds += 0.6 * np.sin(along * 17 - 4 * across + third) * steep
    light = -panel.volume * steep * steep * np.sqrt(steep) - 0.06 * across + 0.04 * panel.folds * folds
    if panel.seamless:
        light *= 0.2 + 0.8 * np.clip(along / panel.seamless, 0, 1)
    return (1 + light).astype(np.float32)


def _rim(canvas: Canvas, cloth: Cloth, panel: Panel, strip: Strip) -> Plane:
    """How dark the outline and the hem's stitches are."""
    width = outline_width(canvas)
    edge = strip.inside if panel.hem else strip.beside
    rim = np.clip(width - edge, 0, 1)
    if panel.seamless:
        sewn = np.clip(1.4 - strip.along / panel.seamless, 0, 1) * canvas.share(cloth.owner)[strip.box]
        rim = rim * (1 - sewn)
    if panel.hem:
        stitch = np.clip(1 - np.abs((np.float32(strip.length - 0.011) - strip.along) * canvas.scale), 0, 1)
        rim = np.maximum(rim, 0.45 * stitch)
    return rim


def paint_trim(canvas: Canvas, line: Points, profile: Profile, cloth: Cloth, colour: Colour, ribs: float = 0.0) -> None:
    """Sew on a band of one colour: a cuff, a waistband, a collar; `ribs` is how deep its ribbing is."""
    strip = make_strip(canvas, line, profile)
    if strip is None:
        return
    light = 1 - 0.18 * strip.across**2 - 0.05 * strip.across
    if ribs:
        half = max(width for _, width in profile)
        light = light - ribs * (0.5 + 0.5 * np.cos(strip.across * np.float32(half / 0.0035 * np.pi)))
    rim = np.clip(outline_width(canvas) - strip.inside, 0, 1)
    colours = colour * threefold(light * (1 - 0.45 * rim))
    canvas.paint(strip.box, np.clip(colours, 0, 1), strip.cover, cloth.owner)


def seam_colour(cloth: Cloth) -> Colour:
    """The colour of seams and stitches on this cloth."""
    return shadow_ink(cloth.base)
