# SPDX-License-Identifier: GPL-3.0-or-later
"""Strips: the one shape that limbs, sleeves, trouser legs and torsos are made of.

A strip follows a centre line and has a width that changes along it. Each of its pixels knows how far along and how far
across the strip it lies, so cloth painted in these coordinates bends with the arm it covers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from .canvas import Box, Canvas, Plane, Points, threefold
from .colours import Colour

Profile = Sequence[tuple[float, float]]  # (part of the length in [0, 1], half width in units), ascending


@dataclass(frozen=True)
class Strip:
    """The pixels of a strip inside a box of the canvas; every plane is (h, w).

    along: units from the start. across: -1 to 1, positive on the right-hand side of a strip that runs down.
    inside: pixels to the nearest edge, negative outside. beside: the same, but to the two long edges only.
    """

    box: Box
    along: Plane
    across: Plane
    inside: Plane
    beside: Plane
    length: float

    @property
    def cover(self) -> Plane:
        """How much of each pixel the strip covers."""
        return np.clip(self.inside + np.float32(0.5), 0, 1)


def curve(points: ArrayLike, count: int = 8) -> Points:
    """A smooth line (count, 2) through all points: Catmull-Rom."""
    knots = np.asarray(points, np.float32)
    padded = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
    place = np.linspace(0, len(knots) - 1, count)
    index = np.minimum(place.astype(int), len(knots) - 2)
    t = (place - index)[:, None]
    a, b, c, d = (padded[index + i] for i in range(4))
    line = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return line.astype(np.float32)


def distances(line: Points) -> np.ndarray:
    """How far each point lies from the start, measured along the line."""
    return np.r_[0, np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))]


def part_of(line: Points, start: float, stop: float, count: int = 8) -> Points:
    """The piece of a line between two distances from its start, in units."""
    walked = distances(line)
    count = 2 if len(line) == 2 else count  # a straight line stays one segment, which is quick to paint
    place = np.linspace(start, min(stop, walked[-1]), count)
    return np.stack([np.interp(place, walked, line[:, axis]) for axis in (0, 1)], axis=1).astype(np.float32)


def at_fraction(profile: Profile, fraction: Plane) -> Plane:
    """The profile's value at each fraction of the length."""
    places, values = zip(*profile, strict=True)
    return np.interp(fraction, places, values).astype(np.float32)


def make_strip(
    canvas: Canvas,
    line: Points,
    profile: Profile,
    *,
    round_start: bool = False,
    round_end: bool = False,
    bow: float = 0.0,
) -> Strip | None:
    """Lay a strip on the canvas; None if it lies outside.

    line: (n, 2) in units. An end that is not round is cut square; `bow` bends the cut at the end, so that its middle
    hangs that many units lower than its corners.
    """
    pixels = canvas.pixels(line)
    reach = max(width for _, width in profile) * canvas.scale + 2
    box = canvas.box_around(pixels, reach)
    if box is None:
        return None
    nearest, along, right, walked = _nearest_points(canvas, pixels, reach, box, (round_start, round_end))
    half = at_fraction(profile, along / walked) * np.float32(canvas.scale)
    distance = np.sqrt(nearest)
    across = right * np.minimum(distance / np.maximum(half, 1e-3), 1.2)
    beside = half - distance
    inside = beside
    if not round_start:
        inside = np.minimum(inside, along)
    if not round_end:
        inside = np.minimum(inside, walked - along - np.float32(bow * canvas.scale) * across**2)
    return Strip(box, along / np.float32(canvas.scale), across, inside, beside, float(walked) / canvas.scale)


def _nearest_points(
    canvas: Canvas, pixels: Points, reach: float, box: Box, rounded: tuple[bool, bool]
) -> tuple[Plane, Plane, Plane, np.float32]:
    """For every pixel of a box, of the nearest point on a line: its squared distance, how far along the line it lies,
    and on which side of it the pixel does; and the line's length. An end that is not rounded goes on for ever.
    """
    top, left = box[0].start, box[1].start
    rows = np.arange(top, box[0].stop, dtype=np.float32)[:, None] + np.float32(0.5)
    columns = np.arange(left, box[1].stop, dtype=np.float32)[None] + np.float32(0.5)
    shape = rows.shape[0], columns.shape[1]
    nearest, along = np.full(shape, 1e9, np.float32), np.zeros(shape, np.float32)
    right = np.ones(shape, np.float32)
    walked = np.float32(0)
    for index, (start, stop) in enumerate(pairwise(pixels)):
        near = canvas.box_around(np.stack([start, stop]), reach)
        step = stop - start
        length = np.float32(max(float(np.hypot(*step)), 1e-6))
        if near is not None:
            part = slice(near[0].start - top, near[0].stop - top), slice(near[1].start - left, near[1].stop - left)
            dx, dy = step / length
            x, y = columns[:, part[1]] - start[0], rows[part[0]] - start[1]
            lowest = -np.inf if index == 0 and not rounded[0] else 0
            highest = np.inf if index == len(pixels) - 2 and not rounded[1] else length
            forward = x * dx + y * dy
            foot = np.clip(forward, lowest, highest)
            sideways = dx * y - dy * x
            square = sideways**2 + (forward - foot) ** 2
            closer = square < nearest[part]
            np.copyto(nearest[part], square, where=closer)
            np.copyto(along[part], foot + walked, where=closer)
            np.copyto(right[part], np.where(sideways < 0, np.float32(1), np.float32(-1)), where=closer)
        walked += length
    return nearest, along, right, walked


def paint_limb(
    canvas: Canvas,
    line: Points,
    profile: Profile,
    colour: Colour,
    owner: str = "person",
    *,
    rounded: tuple[bool, bool] = (True, True),
    outline: float = 0.55,
    volume: float = 0.2,
) -> None:
    """Paint a strip of one colour, lit from the upper left, with a soft dark outline. rounded: its start and its end."""
    strip = make_strip(canvas, line, profile, round_start=rounded[0], round_end=rounded[1])
    if strip is None:
        return
    shade = 1 - volume * strip.across**2 - 0.06 * strip.across
    rim = np.clip(outline_width(canvas) - strip.inside, 0, 1) * outline
    colours = colour * threefold(shade * (1 - 0.5 * rim))
    canvas.paint(strip.box, np.clip(colours, 0, 1), strip.cover, owner)


def paint_line(canvas: Canvas, line: Points, profile: Profile, colour: Colour, owner: str = "person") -> None:
    """Draw a thin line, such as a seam or a lash, whose half width follows a profile."""
    walked = distances(line)
    half = at_fraction(profile, walked / max(walked[-1], 1e-6))
    along = np.gradient(line, axis=0)
    square = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.maximum(np.linalg.norm(along, axis=1), 1e-6)[:, None]
    outline = np.vstack([line + square * half[:, None], (line - square * half[:, None])[::-1]])
    # OpenCV draws even the thinnest shape a pixel wide: fade it instead.
    canvas.fill(outline, colour, owner, opacity=min(1.0, 2 * float(half.max()) * canvas.scale))


def outline_width(canvas: Canvas) -> float:
    """How wide the dark outline of a shape is, in pixels."""
    return min(2.0, max(0.9, canvas.height / 320))
