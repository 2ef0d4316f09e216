# SPDX-License-Identifier: GPL-3.0-or-later
"""A small vector canvas in numpy: splines, anti-aliased fills and strokes, blur and paint.

Points are (x, y) in pixels of the finished picture. Planes are float64 at SS times that size, so a last bit that
differs between two machines is rounded away long before it could reach a stored byte.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 576, 768
SS = 2  # planes hold SS x SS samples per pixel
LINES = 4  # scan lines per sample row in `fill`
CENTRE = WIDTH / 2

Plane: TypeAlias = NDArray[np.float64]
Points: TypeAlias = NDArray[np.float64]
Box: TypeAlias = tuple[slice, slice]
SHAPE = (HEIGHT * SS, WIDTH * SS)


def blank() -> Plane:
    """A pure white picture (3, rows, columns)."""
    return np.ones((3, *SHAPE))


def grid() -> tuple[Plane, Plane]:
    """The x and y of every sample, in pixels."""
    rows, columns = np.indices(SHAPE, dtype=np.float64)
    return (columns + 0.5) / SS, (rows + 0.5) / SS


def rgb(code: str) -> Plane:
    """The colour of a six-digit hex code, channels in [0, 1], (3, 1, 1)."""
    return np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)])[:, None, None] / 255


def spline(*points: tuple[float, float], samples: int = 8) -> Points:
    """A smooth (Catmull-Rom) line through `points`; two points give a straight one."""
    knots = np.array(points, dtype=np.float64)
    knots = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
    t = np.linspace(0, 1, samples, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(knots, knots[1:], knots[2:], knots[3:], strict=False):
        pieces.append(b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))))
    return np.vstack([*pieces, knots[-2:-1]])


def ellipse(x: float, y: float, rx: float, ry: float, start: float = 0, end: float = 360) -> Points:
    """An arc from `start` to `end` degrees, clockwise on screen from the right-hand side."""
    angle = np.radians(np.linspace(start, end, 73))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def moved(points: Points, right: float, down: float) -> Points:
    """The same line somewhere else."""
    return points + np.array((right, down))


def mirrored(points: Points) -> Points:
    """The same line on the other side of the picture, walked backwards so that outlines can be closed with it."""
    return (points * (-1, 1) + (WIDTH, 0))[::-1]


def symmetric(left: Points) -> Points:
    """The closed outline whose left half is `left`."""
    return np.vstack([left, mirrored(left)])


def box_around(points: Points, reach: float) -> Box:
    """The rows and columns of the samples within `reach` pixels of some points, cut at the picture's rim."""
    limits = np.array([SHAPE[1], SHAPE[0]])
    low = np.floor((points.min(axis=0) - reach) * SS).clip(0, limits).astype(int)
    high = np.ceil((points.max(axis=0) + reach) * SS).clip(0, limits).astype(int)
    return slice(low[1], high[1]), slice(low[0], high[0])


def box_of(coverage: NDArray[Any], margin: int = 0) -> Box:
    """The rows and columns that a coverage touches, and `margin` samples more."""
    rows, columns = np.flatnonzero(coverage.any(axis=1)), np.flatnonzero(coverage.any(axis=0))
    if rows.size == 0:
        return slice(0, 0), slice(0, 0)
    low, high = (max(rows[0] - margin, 0), max(columns[0] - margin, 0)), (rows[-1] + margin, columns[-1] + margin)
    return slice(low[0], high[0] + 1), slice(low[1], high[1] + 1)


def fill(outline: Points) -> Plane:
    """Coverage in [0, 1] of the inside of a closed outline, exact along x and sampled by scan lines along y."""
    box = box_around(outline, 2)
    plane = np.zeros(SHAPE)
    height, width = plane[box].shape
    ends = (outline * SS - (box[1].start, box[0].start)) * (1, LINES)
    cells: list[NDArray[np.int64]] = []
    weights: list[Plane] = []
    for (x0, y0), (x1, y1) in zip(ends, np.roll(ends, -1, axis=0), strict=True):
        lines = np.arange(np.ceil(min(y0, y1) - 0.5), np.ceil(max(y0, y1) - 0.5))
        if lines.size == 0:
            continue
        crossing = x0 + (lines + 0.5 - y0) * (x1 - x0) / (y1 - y0)
        column = np.floor(crossing)
        cell = ((lines // LINES) * width + column).astype(np.int64)
        part = crossing - column
        sign = 1.0 if y1 > y0 else -1.0
        cells += [cell, cell + 1]
        weights += [sign * (1 - part), sign * part]
    steps = np.bincount(np.concatenate(cells), np.concatenate(weights), height * width)
    plane[box] = np.clip(np.abs(np.cumsum(steps.reshape(height, width), axis=1)) / LINES, 0, 1)
    return plane


def near(line: Points, reach: float) -> tuple[Box, Plane, Plane]:
    """The box around an open line, and for its samples the distance to the line and how far along it they lie.

    Both in pixels; beyond `reach` the distance is infinite.
    """
    box = box_around(line, reach)
    top, left = box[0].start, box[1].start
    distance = np.full((box[0].stop - top, box[1].stop - left), np.inf)
    along = np.zeros_like(distance)
    walked = 0.0
    for start, end in pairwise(line):
        length = float(np.hypot(*(end - start)))
        if length == 0:
            continue
        rows, columns = box_around(np.stack([start, end]), reach)
        part = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
        x = (np.arange(columns.start, columns.stop)[None, :] + 0.5) / SS - start[0]
        y = (np.arange(rows.start, rows.stop)[:, None] + 0.5) / SS - start[1]
        step = (end - start) / length
        here = np.clip(x * step[0] + y * step[1], 0, length)
        away = np.hypot(x - here * step[0], y - here * step[1])
        closer = away < np.minimum(distance[part], reach)
        distance[part] = np.where(closer, away, distance[part])
        along[part] = np.where(closer, walked + here, along[part])
        walked += length
    return box, distance, along


def placed(box: Box, values: Plane) -> Plane:
    """A plane that holds `values` in a box and zero elsewhere."""
    plane = np.zeros(SHAPE)
    plane[box] = values
    return plane


def length_of(line: Points) -> float:
    """The length of a line in pixels."""
    return float(np.hypot(*np.diff(line, axis=0).T).sum())


def within(distance: Plane, radius: float) -> Plane:
    """Anti-aliased coverage of the samples less than `radius` pixels away."""
    return np.clip((radius - distance) * SS + 0.5, 0, 1)


def stroke(line: Points, width: float) -> Plane:
    """Coverage of a line drawn with a round pen."""
    box, distance, _ = near(line, width + 1)
    return placed(box, within(distance, width / 2))


def dashes(line: Points, width: float, dash: float, gap: float) -> Plane:
    """Coverage of a dashed line, such as a row of stitches."""
    box, distance, along = near(line, width + 1)
    middle = (along + gap / 2) % (dash + gap) - (dash + gap) / 2
    return placed(box, within(distance, width / 2) * within(np.abs(middle), dash / 2))


def blur(plane: Plane, radius: float) -> Plane:
    """A soft copy of a plane: three box averages, close to a Gaussian of standard deviation `radius` pixels."""
    half = max(1, round(radius * SS))
    box = box_of(plane, 3 * half)
    part = plane[box]
    for _ in range(3):
        total = np.cumsum(np.pad(part, ((half + 1, half), (0, 0)), mode="edge"), axis=0)
        part = (total[2 * half + 1 :] - total[: -2 * half - 1]) / (2 * half + 1)
        total = np.cumsum(np.pad(part, ((0, 0), (half + 1, half)), mode="edge"), axis=1)
        part = (total[:, 2 * half + 1 :] - total[:, : -2 * half - 1]) / (2 * half + 1)
    soft = np.zeros_like(plane)
    soft[box] = part
    return soft


def paint(image: Plane, coverage: Plane, colour: Plane) -> None:
    """Lay a colour (3, 1, 1), or a picture of colours, over `image` where `coverage` says so."""
    rows, columns = box_of(coverage)
    ink = colour[:, rows, columns] if colour.shape[1] > 1 else colour
    image[:, rows, columns] += (ink - image[:, rows, columns]) * coverage[rows, columns]


def finished(image: Plane, step: int = 3) -> NDArray[np.uint8]:
    """The picture at its final size in bytes, with the garment half-way down.

    step: distance between the levels used. Coarser levels make soft shading compress; white stays white. Odd, so that
    no plain colour lies half-way between two levels, where a last bit would decide.
    """
    small = image.reshape(3, HEIGHT, SS, WIDTH, SS).mean(axis=(2, 4)).transpose(1, 2, 0)
    levels = np.clip(255 - step * np.floor((1 - np.clip(small, 0, 1)) * 255 / step + 0.5), 0, 255).astype(np.uint8)
    rows, _ = box_of((levels < 255).any(axis=2))
    return np.roll(levels, (HEIGHT - rows.stop - rows.start) // 2, axis=0)
