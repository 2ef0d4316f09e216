# SPDX-License-Identifier: GPL-3.0-or-later
"""Flat-lays: a garment alone, laid out on pure white, the way a shop shows it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .body import SIDES, Head
from .canvas import Canvas, as_bytes, blurred, threefold
from .cloth import Cloth
from .garments import DollGarment
from .hats import paint_hat
from .lowers import Hips, paint_lower
from .uppers import Chest, paint_collar, paint_sleeve, paint_torso_panel

MARGIN = 0.06  # part of the picture that stays white on every side
SHADOW = 0.16


@dataclass(frozen=True)
class Extent:
    """The box that a garment fills when laid out, in units: half width, top, bottom."""

    half: float
    top: float
    bottom: float


def flat_lay(garment: DollGarment, cloth: Cloth, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The garment on pure white, (H, W, 3) bytes."""
    height, width = size
    extent = EXTENTS[garment.slot](garment)
    room = 1 - 2 * MARGIN
    scale = min(room * height / (extent.bottom - extent.top), room * width / (2 * extent.half))
    origin = 0.5 * width, 0.5 * height - 0.5 * (extent.top + extent.bottom) * scale
    canvas = Canvas(np.ones((height, width, 3), np.float32), scale, origin, ("background", garment.slot))
    PAINTERS[garment.slot](canvas, garment, cloth)
    cover = canvas.share(garment.slot)
    soft = blurred(cover, height / 110)
    down, right = max(1, height // 90), max(1, height // 170)
    shadow = np.zeros_like(soft)
    shadow[down:, right:] = soft[:-down, :-right]
    return as_bytes(canvas.image * threefold(1 - SHADOW * shadow * (1 - cover)))


def _sleeve_angle(garment: DollGarment) -> float:
    return 0.62 if garment.sleeve < 0.2 else 0.34


def _upper_extent(garment: DollGarment) -> Extent:
    angle, sleeve = _sleeve_angle(garment), garment.sleeve
    half = 0.090 + (np.sin(angle) * sleeve + 0.030 * np.cos(angle) if sleeve else 0.012) + garment.ease
    bottom = max(garment.length, 0.036 + np.cos(angle) * sleeve + 0.014)
    return Extent(half, -0.040 if garment.cut == "roll neck" else -0.024, bottom + 0.006)


def _paint_upper(canvas: Canvas, garment: DollGarment, cloth: Cloth) -> None:
    angle = _sleeve_angle(garment)
    spine = np.array([(0, 0), (0, garment.length)], np.float32)
    chest = Chest(spine, shoulder=0.088, waist=0.076, hip=0.083, inside=None, curl=0.0)
    for side in SIDES:
        start = np.array([side * 0.074, 0.036])
        stop = start + np.array([side * np.sin(angle), np.cos(angle)]) * (garment.sleeve + 0.01)
        paint_sleeve(canvas, garment, cloth, np.stack([start, stop]).astype(np.float32), side, 0.0)
    paint_torso_panel(canvas, garment, cloth, chest)
    paint_collar(canvas, garment, cloth, chest)


def _leg_spread(garment: DollGarment) -> float:
    return 0.05 if garment.length > 0.3 else 0.12


def _lower_extent(garment: DollGarment) -> Extent:
    if "skirt" in garment.kind:
        return Extent(0.135 + 0.09 * garment.length, -0.006, garment.length + 0.012)
    return Extent(0.110 + _leg_spread(garment) * (garment.length - 0.078) + 0.012, -0.006, garment.length + 0.012)


def _paint_lower(canvas: Canvas, garment: DollGarment, cloth: Cloth) -> None:
    spread = _leg_spread(garment)
    legs = [np.array([(side * 0.043, 0.062), (side * (0.043 + 0.5 * spread), 0.562)], np.float32) for side in SIDES]
    waist, crotch = np.array([0, 0], np.float32), np.array([0, 0.079], np.float32)
    paint_lower(canvas, garment, cloth, Hips(waist, crotch, (legs[0], legs[1]), width=0.084, curl=0.0))


def _hat_extent(garment: DollGarment) -> Extent:
    half = {"sun hat": 0.118, "bucket hat": 0.092}.get(garment.kind, 0.072)
    return Extent(half, -0.122 if garment.kind == "beanie" else -0.102, 0.008)


def _paint_hat(canvas: Canvas, garment: DollGarment, cloth: Cloth) -> None:
    paint_hat(canvas, garment, cloth, Head(0.0, 0.0, 0.0))


EXTENTS = {"upper": _upper_extent, "lower": _lower_extent, "hat": _hat_extent}
PAINTERS = {"upper": _paint_upper, "lower": _paint_lower, "hat": _paint_hat}
