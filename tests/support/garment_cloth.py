# SPDX-License-Identifier: GPL-3.0-or-later
"""Cloth, drawn: a garment's pieces with their pattern, seams, folds and shade, and exactly what they cover."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .garment_cuts import Piece, Points, Rng

Field = NDArray[np.float32]

COLOURS = {
    "red": (182, 28, 40), "green": (36, 112, 74), "blue": (38, 84, 186), "navy": (30, 40, 78), "pink": (226, 112, 150),
    "rose": (224, 168, 176), "camel": (186, 142, 92), "beige": (216, 200, 174), "cream": (240, 234, 222),
    "white": (244, 244, 242), "optic": (250, 250, 250), "grey": (120, 122, 126), "black": (26, 26, 29),
    "ink": (40, 41, 47), "denim": (66, 92, 134),
}  # fmt: skip
PRINTS = {  # pattern, its two colours; None is the ground's own colour
    "striped": ("stripes", COLOURS["blue"], None), "breton": ("stripes", (238, 236, 230), COLOURS["navy"]),
    "gingham": ("checks", (236, 234, 236), (176, 44, 62)), "tartan": ("checks", (150, 34, 38), (28, 46, 58)),
    "dotted": ("dots", (168, 32, 74), None), "floral": ("floral", (232, 220, 206), (196, 54, 92)),
    "logo": ("logo", (34, 36, 44), (244, 214, 60)), "cutout": ("logo", (206, 66, 36), None),
    "denim": ("twill", COLOURS["denim"], (150, 168, 196)), "heather": ("melange", (150, 152, 158), (96, 98, 106)),
}  # fmt: skip
WAVES = np.array([(4, 0.01), (7, 0.008), (13, 0.005), (29, 0.002), (61, 0.0006)]).T  # how cloth is pulled askew


@dataclass(frozen=True)
class Place:
    """Where a garment lies: its units' origin (x, y) and length in pixels, its turn, and how it is pulled askew."""

    size: tuple[int, int]
    origin: Field
    scale: float
    angle: float
    phases: Field  # (2, 5)

    @property
    def axes(self) -> Field:
        """The directions of a garment's x and y in the picture, in pixels, (2, 2)."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        return np.array([[c, s], [-s, c]], np.float32) * self.scale

    def line(self, piece: Piece) -> Field:
        """A piece's outline in pixels, (n, 2), as a hand lays it down."""
        closed = piece.role not in ("seam", "crease")
        points = rounded(piece.points, piece.radius) if closed else np.array(piece.points)
        ends = np.concatenate([points[1:], points[:1]])[: None if closed else -1]
        points = np.concatenate([np.linspace(a, b, 8, endpoint=False) for a, b in zip(points, ends, strict=False)])
        crossed = points[:, ::-1, None] + 0.4 * points[:, :, None]
        points = points + (WAVES[1] * np.sin(WAVES[0] * crossed + self.phases)).sum(-1)
        return (points @ self.axes + self.origin).astype(np.float32)

    def units(self) -> Field:
        """Every pixel's place on the garment, (H, W, 2)."""
        rows, columns = np.mgrid[: self.size[0], : self.size[1]].astype(np.float32)
        return (np.stack([columns, rows], -1) - self.origin) @ np.linalg.inv(self.axes)


def rounded(points: Points, radius: float = 0.02) -> Field:
    """A closed outline with rounded corners."""
    corner = np.array(points, np.float32)
    ends = []
    for way in (np.roll(corner, 1, 0), np.roll(corner, -1, 0)):
        length = np.linalg.norm(way - corner, axis=1, keepdims=True)
        ends.append(corner + (way - corner) / length * np.minimum(radius, 0.45 * length))
    t = np.linspace(0, 1, 6)[None, :, None]
    bent = (1 - t) ** 2 * ends[0][:, None] + 2 * t * (1 - t) * corner[:, None] + t**2 * ends[1][:, None]
    return bent.reshape(-1, 2)


def garment_at(pieces: list[Piece], place: Place, cloth: str, ground: Field, rng: Rng) -> tuple[Field, Field, Field]:
    """A garment (H, W, 3), the share of every pixel that it covers, and where one looks into its neck, (H, W) each."""
    lines = [(piece.role, place.line(piece)) for piece in pieces]
    coverage = filled([line for role, line in lines if role in ("cloth", "trim")], place.size)
    units, pixel = place.units(), place.scale / 600
    units = units + 0.006 * np.stack([clouds_of(place.size, (9, 7), rng) for _ in range(2)], -1)
    outline = 0.04 + 0.16 * (2.5 * blurred(coverage, 5 * pixel) - 1.5).clip(0, 1)  # an edge upon cloth, not upon ground
    shade, inner, trimmed = (np.full(place.size, value, np.float32) for value in (1, 0, 0))
    for role, line in lines:
        if role in ("seam", "crease"):
            drawn = np.zeros(place.size, np.uint8)
            cv2.polylines(drawn, [(line * 16).round().astype(np.int32)], False, 255, 1, cv2.LINE_AA, 4)
            sigma = 0.8 * pixel if role == "seam" else 7 * pixel
            drawn = blurred(drawn / np.float32(255), max(sigma, 0.5)) * sigma * 2.5  # about 1 along its middle
            shade *= 1 - np.minimum(drawn, 1) * (0.3 if role == "seam" else 0.11)
            continue
        alpha = np.zeros(place.size, np.uint8)
        cv2.fillPoly(alpha, [(line * 16).round().astype(np.int32)], 255, cv2.LINE_AA, 4)
        alpha = alpha / np.float32(255)
        rim = blurred(alpha, 5 * pixel)
        if role == "inner":
            shade += alpha * (0.62 - 0.3 * rim - shade)
            inner = alpha
            continue
        shade *= 1 - 0.4 * rim * (1 - alpha)  # a piece throws a shade on what lies below it
        shade += alpha * (1 - outline * (rim < 0.62) - shade)
        inner, trimmed = inner * (1 - alpha), trimmed + alpha * ((role == "trim") - trimmed)
        middle = units[alpha > 0.5].mean(0) if (alpha > 0.5).any() else np.zeros(2)
        if role == "cloth" and abs(middle[0]) > 0.15:  # a sleeve's pattern follows the sleeve
            units = np.where(alpha[..., None] > 0.5, _along(line, units, middle), units)
    colour, trim = _woven(units, cloth, ground, rng)
    colour += trimmed[..., None] * (trim - colour)
    return _lit(colour, shade, coverage, cloth, rng), coverage, inner


def _woven(units: Field, cloth: str, ground: Field, rng: Rng) -> tuple[Field, Field]:
    """The cloth's pattern at every place of the garment, (H, W, 3), and the colour of its collar and cuffs."""
    pattern, first, second = PRINTS.get(cloth, ("plain", COLOURS.get(cloth), None))
    first, trim = np.array(first, np.float32), np.array(first if second is None else second, np.float32)
    second = ground if second is None else np.array(second, np.float32)
    u, v = np.moveaxis(units, -1, 0)
    size = u.shape
    if pattern in ("plain", "twill", "melange", "dots"):
        trim = 0.93 * first + 5
    share = {
        "plain": lambda: 0 * u,
        "stripes": lambda: 0.5 + 3 * np.sin(2 * np.pi * 11 * v),
        "checks": lambda: sum((0.25 + 2 * np.sin(2 * np.pi * 8 * each)).clip(0, 0.5) for each in (u, v)),
        "dots": lambda: 8 * (np.cos(2 * np.pi * 13 * u) + np.cos(2 * np.pi * 13 * v) - 1.2),
        "floral": lambda: 4 * clouds_of(size, (size[0] // 14, size[1] // 14), rng) - 2.2,
        "logo": lambda: np.maximum(
            4 - 220 * abs(np.hypot(u, v - 0.4) - 0.075), 4 - 260 * np.maximum(abs(v - 0.54), abs(u) / 6)
        ),
        "twill": lambda: 0.14 + 0.12 * np.sin(2 * np.pi * 80 * (u + v)) + 0.14 * clouds_of(size, (6, 5), rng),
        "melange": lambda: 0.4 + 0.35 * clouds_of(size, (size[0], size[1] // 3), rng),
    }[pattern]()
    colour = first + np.clip(share, 0, 1)[..., None].astype(np.float32) * (second - first)
    if pattern == "floral":
        leaves = np.clip(4 * clouds_of(size, (size[0] // 11, size[1] // 11), rng) - 3.4, 0, 1)[..., None]
        colour += leaves * (np.array((70, 110, 72), np.float32) - colour)
    return colour, trim


def _along(line: Field, units: Field, middle: Field) -> Field:
    """The places of a sleeve in its own directions, far from the body's, so that no print falls on it."""
    _, _, (axis, _) = np.linalg.svd(line - line.mean(0), full_matrices=False)
    x, y = axis * np.sign(axis[1])
    return (units - middle) @ np.array([[y, x], [-x, y]], np.float32) + 5


def _lit(colour: Field, shade: Field, coverage: Field, cloth: str, rng: Rng) -> Field:
    """Cloth in the light: folds, the round of its edges, its grain; an optic white hardly shows them."""
    depth = 0.3 if cloth == "optic" else 1
    folds = folds_of(colour.shape[:2], 16, rng)
    edge = blurred(coverage, max(colour.shape) / 110)
    grain = cv2.GaussianBlur(rng.standard_normal(coverage.shape, np.float32), (0, 0), 0.7)
    light = (0.11 * folds).clip(-0.3, 0.12) - rng.uniform(0.05, 0.18) * (2 - 2 * edge).clip(0, 1) ** 2 + 0.025 * grain
    sheen = 7 * folds.clip(0, 1.5)  # dark cloth shows its folds by what they reflect
    return (colour * (shade * (1 + light) * depth + 1 - depth)[..., None] + depth * sheen[..., None]).clip(0, 255)


def filled(lines: list[Field], size: tuple[int, int]) -> Field:
    """The share of every pixel that lies within any of the outlines, from 16 samples."""
    fine = np.zeros((4 * size[0], 4 * size[1]), np.uint8)
    for line in lines:
        cv2.fillPoly(fine, [((4 * line + 1.5) * 16).round().astype(np.int32)], 255, shift=4)
    return cv2.resize(fine, size[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def clouds_of(size: tuple[int, int], cells: tuple[int, int], rng: Rng) -> Field:
    """Smooth noise of about unit size with so many cells down and across."""
    return cv2.resize(rng.standard_normal(cells, np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)


def folds_of(size: tuple[int, int], count: int, rng: Rng) -> Field:
    """Light and shade of folded cloth, about -1..1, (H, W): soft ridges, mostly upright, lit from the left."""
    height, width = size[0] // 3, size[1] // 3  # folds are soft
    rows, columns = np.mgrid[:height, :width].astype(np.float32) / max(height, width)
    light = 0.4 * clouds_of((height, width), (5, 4), rng)
    for _ in range(count):
        turn, bend = rng.normal(0, 0.5), rng.uniform(-0.4, 0.4)
        spread, length = rng.uniform(0.008, 0.03), rng.uniform(0.08, 0.3)
        x, y = columns - rng.uniform(0.1, 0.9) * columns.max(), rows - rng.uniform(0.1, 0.9) * rows.max()
        along, across = x * np.sin(turn) + y * np.cos(turn), x * np.cos(turn) - y * np.sin(turn)
        across = (across + bend * along**2) / spread
        light += rng.uniform(0.5, 1.3) * across * np.exp(-(across**2) / 2 - (along / length) ** 2)
    return cv2.resize(light, size[::-1], interpolation=cv2.INTER_CUBIC)


def blurred(field: Field, sigma: float) -> Field:
    """A Gaussian blur by `sigma` pixels; a wide one is taken on a coarser grid."""
    coarse = max(1, int(sigma / 3))
    height, width = field.shape
    small = cv2.resize(field, (-(-width // coarse), -(-height // coarse)), interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / coarse), (width, height), interpolation=cv2.INTER_LINEAR)
