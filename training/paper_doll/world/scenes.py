# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenes: where the dolls stand. Lengths here are parts of the picture's height, from its upper left corner."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .canvas import Plane, as_bytes, ellipse, ink_line, ink_polygon
from .colours import WHITE, Colour, darker, lighter, rgb
from .strips import curve


class Backdrop:
    """A painted backdrop: a sky or wall down to the horizon, a ground below it, and things in between."""

    def __init__(self, size: tuple[int, int], rng: np.random.Generator) -> None:
        """Hang an empty backdrop of `size` (H, W) pixels; its horizon is drawn at random."""
        self.size, self.rng = size, rng
        self.picture: NDArray[np.uint8] = np.empty((*size, 3), np.uint8)
        self.width = size[1] / size[0]
        self.horizon = float(rng.uniform(0.62, 0.70))

    def uniform(self, low: float, high: float) -> float:
        """A random number."""
        return float(self.rng.uniform(low, high))

    def choice(self, *colours: str) -> Colour:
        """One of some colours."""
        return rgb(colours[self.rng.integers(len(colours))])

    def wash(self, *stops: tuple[float, Colour]) -> None:
        """Fill the whole backdrop from top to bottom through colours at heights."""
        heights, colours = zip(*stops, strict=True)
        rows = (np.arange(self.size[0]) + 0.5) / self.size[0]
        column = np.stack([np.interp(rows, heights, [colour[i] for colour in colours]) for i in range(3)], axis=1)
        self.picture[:] = as_bytes(column.astype(np.float32))[:, None]

    def shape(self, outline: ArrayLike, colour: Colour) -> None:
        """Fill an outline."""
        ink_polygon(self.picture, np.asarray(outline) * self.size[0], self._ink(colour))

    def line(self, points: ArrayLike, width: float, colour: Colour) -> None:
        """Draw a line."""
        ink_line(self.picture, np.asarray(points) * self.size[0], self._ink(colour), width * self.size[0])

    def disc(self, x: float, y: float, radius: float, colour: Colour, flat: float = 1.0) -> None:
        """Fill a circle, or an ellipse `flat` times as tall as wide."""
        self.shape(ellipse(x, y, radius, flat * radius, count=28), colour)

    def block(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """Fill a rectangle."""
        self.shape([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def ridge(self, height: float, swing: float, waves: float, colour: Colour) -> None:
        """Fill everything below a wavy line."""
        x = np.linspace(0, self.width, 24)
        a, b = self.rng.uniform(0, 6.3, 2)
        y = height + swing * np.sin(waves * x / self.width + a) + 0.5 * swing * np.sin(2.3 * waves * x / self.width + b)
        self.shape(np.vstack([np.stack([x, y], axis=1), [(self.width, 1.1), (0, 1.1)]]), colour)

    def cloud(self, x: float, y: float, size: float, colour: Colour) -> None:
        """Draw a small cloud."""
        for dx, dy, radius in ((-0.9, 0.1, 0.5), (0, -0.15, 0.75), (0.8, 0.1, 0.55)):
            self.disc(x + dx * size, y + dy * size, radius * size, colour, 0.72)
        self.shape(ellipse(x, y + 0.32 * size, 1.45 * size, 0.28 * size), colour)

    def clouds(self, colour: Colour) -> None:
        """Draw a few clouds in the upper part of the sky."""
        for _ in range(self.rng.integers(1, 4)):
            self.cloud(self.uniform(0, self.width), self.uniform(0.06, 0.26), self.uniform(0.025, 0.05), colour)

    @staticmethod
    def _ink(colour: Colour) -> tuple[int, ...]:
        return tuple(min(255, round(255 * value)) for value in np.asarray(colour).tolist())


def studio(sheet: Backdrop) -> None:
    """A paper backdrop that rolls out onto the floor."""
    base = sheet.choice("e9dfd6", "d9e2ea", "e8d9e3", "dfe6d8", "d8d6e8", "e6e6e6", "f0dcc8")
    edge = sheet.horizon + 0.06
    sheet.wash(
        (0, darker(base, 0.06)),
        (0.45, lighter(base, 0.25)),
        (edge, lighter(base, 0.1)),
        (edge + 0.09, darker(base, 0.08)),
        (1, darker(base, 0.15)),
    )


def park(sheet: Backdrop) -> None:
    """Hills, round trees, a path."""
    sky, y = rgb("d9f0f7"), sheet.horizon
    sheet.wash((0, rgb("8fcdf0")), (y, sky), (1, sky))
    sheet.clouds(WHITE * 0.99)
    sheet.ridge(y - 0.10, 0.03, 5, rgb("9bcf96"))
    for _ in range(sheet.rng.integers(3, 6)):
        x, base, size = sheet.uniform(0, sheet.width), y + sheet.uniform(-0.03, 0.02), sheet.uniform(0.09, 0.15)
        sheet.block(x - 0.08 * size, base - 0.6 * size, x + 0.08 * size, base, rgb("7b5a3e"))
        leaf = rgb("4f9a58") * sheet.uniform(0.88, 1.1)
        for dx, dy, radius in ((-0.38, -0.85, 0.42), (0.38, -0.85, 0.42), (0, -1.15, 0.55)):
            sheet.disc(x + dx * size, base + dy * size, radius * size, leaf * (1 - 0.12 * (dy + 1)))
        sheet.disc(x - 0.15 * size, base - 1.3 * size, 0.22 * size, lighter(leaf, 0.14))
    sheet.ridge(y, 0.010, 4, rgb("79b85f"))
    middle = sheet.uniform(0.35, 0.65) * sheet.width
    path = [
        (middle - 0.02, y + 0.012),
        (middle + 0.02, y + 0.012),
        (0.93 * sheet.width, 1.01),
        (0.07 * sheet.width, 1.01),
    ]
    sheet.shape(path, rgb("e6d7b4"))
    for _ in range(14):
        x, flower_y = sheet.uniform(0, sheet.width), sheet.uniform(y + 0.05, 0.98)
        sheet.disc(x, flower_y, 0.005, sheet.choice("f6e27a", "f3a6c0", "fdfbf4"))


def beach(sheet: Backdrop) -> None:
    """Sea, sand, a palm tree."""
    y, sand = sheet.horizon, rgb("f6e3b4")
    top, sea = y - 0.12, rgb("2f9fc4")
    sheet.wash(
        (0, rgb("7cc8f2")),
        (top, rgb("d6f1fb")),
        (top + 0.001, sea),
        (y, rgb("86d6d8")),
        (y + 0.001, sand),
        (1, rgb("e9cf95")),
    )
    sheet.disc(sheet.uniform(0.1, 0.9) * sheet.width, sheet.uniform(0.08, 0.18), 0.048, rgb("fff2b8"))
    if sheet.rng.random() < 0.5:
        x = sheet.uniform(0.08, 0.92) * sheet.width
        sheet.shape(
            [(x - 0.04, top - 0.005), (x + 0.04, top - 0.005), (x + 0.028, top + 0.014), (x - 0.028, top + 0.014)],
            rgb("c65b47"),
        )
        sheet.shape([(x + 0.002, top - 0.085), (x + 0.036, top - 0.014), (x + 0.002, top - 0.014)], WHITE * 0.98)
    x = np.linspace(0, sheet.width, 30)
    foam = np.stack([x, y + 0.007 * np.sin(14 * x + sheet.uniform(0, 6))], axis=1)
    sheet.line(foam, 0.010, WHITE)
    if sheet.rng.random() < 0.75:
        _palm(sheet, y)


def _palm(sheet: Backdrop, y: float) -> None:
    side = 1 if sheet.rng.random() < 0.5 else -1
    foot, head = sheet.width * (0.5 + 0.42 * side), sheet.uniform(0.20, 0.30)
    trunk = curve([(foot, y + 0.07), (foot + 0.01 * side, 0.5 * (y + head)), (foot - 0.045 * side, head)], 10)
    sheet.line(trunk, 0.018, rgb("a9794f"))
    x, top = trunk[-1]
    for index in range(7):
        angle, reach = np.pi * (1.05 + 0.9 * index / 6) + sheet.uniform(-0.1, 0.1), 0.16
        tip = x + reach * np.cos(angle), top + 0.5 * reach * np.sin(angle) + 0.05
        rib = curve([(x, top), (x + 0.55 * reach * np.cos(angle), top + 0.5 * reach * np.sin(angle) - 0.02), tip], 8)
        swell = 0.022 * np.sin(np.linspace(0.15, np.pi, 8))[:, None] * np.array([[0, 1]])
        sheet.shape(np.vstack([rib, (rib + swell)[::-1]]), rgb("3f8f55") * sheet.uniform(0.85, 1.1))


def _houses(sheet: Backdrop, walls: tuple[str, ...], lit: Colour, share: float, dark: float) -> None:
    x = -sheet.uniform(0, 0.06)
    while x < sheet.width:
        width, top, wall = sheet.uniform(0.10, 0.17), sheet.uniform(0.16, 0.42), sheet.choice(*walls)
        sheet.block(x, top, x + width, sheet.horizon, wall)
        sheet.block(x, top, x + width, top + 0.010, darker(wall, 0.12))
        step = width / 3.6
        for row in np.arange(top + 0.032, sheet.horizon - 0.05, 0.052):
            for column in range(3):
                left = x + step * (0.42 + column)
                glass = lit if sheet.rng.random() < share else darker(wall, dark)
                sheet.block(left, row, left + 0.6 * step, row + 0.028, glass)
        x += width + sheet.uniform(0, 0.008)


def _street(sheet: Backdrop, kerb: Colour, road: Colour, mark: Colour) -> None:
    y = sheet.horizon
    sheet.block(0, y, sheet.width, y + 0.05, kerb)
    sheet.block(0, y + 0.05, sheet.width, y + 0.058, darker(kerb, 0.2))
    sheet.block(0, y + 0.058, sheet.width, 1.01, road)
    for x in np.arange(-0.05, sheet.width, 0.21):
        sheet.shape([(x + 0.015, 0.93), (x + 0.12, 0.93), (x + 0.11, 0.953), (x, 0.953)], mark)


def city(sheet: Backdrop) -> None:
    """A street by day."""
    sheet.wash((0, rgb("a9d4ee")), (sheet.horizon, rgb("f4ead8")), (1, rgb("f4ead8")))
    sheet.clouds(WHITE * 0.98)
    _houses(sheet, ("b7b3bd", "c9b59d", "a3b4c4", "c79f8d", "d8c7a8"), rgb("e8f4fa"), 0.55, 0.2)
    _street(sheet, rgb("cfc8c0"), rgb("8f9299"), rgb("e9e6df"))


def night(sheet: Backdrop) -> None:
    """The same street under the moon."""
    sheet.wash((0, rgb("1d2150")), (sheet.horizon, rgb("6a4f8f")), (1, rgb("6a4f8f")))
    for _ in range(28):
        sheet.disc(sheet.uniform(0, sheet.width), sheet.uniform(0, 0.35), sheet.uniform(0.0012, 0.0028), rgb("ebebff"))
    x, y = sheet.uniform(0.15, 0.85) * sheet.width, sheet.uniform(0.07, 0.14)
    sheet.disc(x, y, 0.038, rgb("f7f0cf"))
    sheet.disc(x + 0.012, y - 0.006, 0.008, rgb("e8ddb2"))
    _houses(sheet, ("39406e", "4b3f72", "2c3560"), rgb("ffd98a"), 0.5, 0.3)
    _street(sheet, rgb("4a4668"), rgb("2f2d48"), rgb("6a6890"))


def living_room(sheet: Backdrop) -> None:
    """A wall with a window or a picture, a wooden floor, a plant."""
    y, wall = sheet.horizon, sheet.choice("e8cfc0", "c9d8d0", "d6cfe3", "e9dcb8", "c8d6e4")
    wood, edge = rgb("b98a60"), rgb("f7f2ea")
    sheet.wash((0, wall), (y, darker(wall, 0.05)), (y + 0.001, wood), (1, darker(wood, 0.15)))
    for index in range(-3, 4):
        middle = 0.5 * sheet.width
        sheet.line([(middle + 0.11 * index, y), (middle + 0.26 * index, 1.01)], 0.002, darker(wood, 0.22))
    sheet.block(0, y - 0.02, sheet.width, y, edge)
    left_side = sheet.rng.random() < 0.5
    left = sheet.uniform(0.02, 0.07) if left_side else sheet.width - sheet.uniform(0.26, 0.31)
    top = sheet.uniform(0.08, 0.14)
    _window(sheet, left, top, edge)
    other = sheet.width - 0.09 if left_side else 0.09
    _plant(sheet, other, y + 0.05)
    sheet.block(other - 0.055, 0.17, other + 0.055, 0.31, rgb("6b5140"))
    sheet.block(other - 0.046, 0.18, other + 0.046, 0.30, edge)
    sheet.disc(other, 0.24, 0.028, sheet.choice("e79a6b", "7fa6c9", "d98ba0", "9dbb84"))


def _window(sheet: Backdrop, left: float, top: float, edge: Colour) -> None:
    right, bottom = left + 0.23, top + 0.30
    sheet.block(left, top, right, bottom, edge)
    sheet.block(left + 0.011, top + 0.011, right - 0.011, bottom - 0.011, rgb("a9dcf2"))
    sheet.disc(left + 0.07, bottom - 0.03, 0.05, rgb("8cc48a"), 0.36)
    sheet.disc(left + 0.16, bottom - 0.028, 0.055, rgb("79b85f"), 0.32)
    sheet.block(left, bottom - 0.011, right, bottom, edge)
    sheet.block(0.5 * (left + right) - 0.004, top, 0.5 * (left + right) + 0.004, bottom, edge)
    sheet.block(left, top + 0.145, right, top + 0.153, edge)
    sheet.block(left - 0.012, bottom, right + 0.012, bottom + 0.014, darker(edge, 0.06))


def _plant(sheet: Backdrop, x: float, y: float) -> None:
    for index in range(7):
        angle, reach = -np.pi * (0.1 + 0.8 * index / 6), 0.11
        stem = curve(
            [
                (x, y - 0.07),
                (x + 0.5 * reach * np.cos(angle), y - 0.07 + 0.8 * reach * np.sin(angle)),
                (x + reach * np.cos(angle), y - 0.07 + 1.1 * reach * np.sin(angle)),
            ],
            8,
        )
        swell = 0.012 * np.sin(np.linspace(0.1, np.pi, 8))[:, None] * np.array([[np.sin(angle), -np.cos(angle)]])
        sheet.shape(np.vstack([stem + swell, (stem - swell)[::-1]]), rgb("4d9360") * sheet.uniform(0.85, 1.15))
    pot = rgb("d27b52")
    sheet.shape([(x - 0.036, y - 0.07), (x + 0.036, y - 0.07), (x + 0.028, y + 0.01), (x - 0.028, y + 0.01)], pot)
    sheet.block(x - 0.040, y - 0.078, x + 0.040, y - 0.06, lighter(pot, 0.12))


def snow(sheet: Backdrop) -> None:
    """Mountains, firs, snowfall."""
    y = sheet.horizon
    sheet.wash((0, rgb("9fc3e6")), (y, rgb("eaf2fa")), (y + 0.001, rgb("f6f9fd")), (1, rgb("dfe8f2")))
    for index in range(4):
        x, peak, half = (
            sheet.width * (0.05 + 0.3 * index) + sheet.uniform(-0.04, 0.04),
            sheet.uniform(0.25, 0.42),
            sheet.uniform(0.20, 0.29),
        )
        sheet.shape([(x - half, y), (x, peak), (x + half, y)], rgb("8aa3c4") * sheet.uniform(0.9, 1.08))
        low, reach = peak + 0.3 * (y - peak), 0.3 * half
        cap = [
            (x - reach, low),
            (x, peak),
            (x + reach, low),
            (x + 0.1 * half, low - 0.03),
            (x - 0.08 * half, low + 0.012),
        ]
        sheet.shape(cap, rgb("fafcff"))
    sheet.ridge(y, 0.006, 4, rgb("eef3f9"))
    for _ in range(4):
        x, foot, size = sheet.uniform(0, sheet.width), y + sheet.uniform(0, 0.03), sheet.uniform(0.1, 0.16)
        sheet.block(x - 0.05 * size, foot - 0.1 * size, x + 0.05 * size, foot + 0.1 * size, rgb("6b4f3d"))
        for step in range(3):
            half, bottom = size * (0.48 - 0.11 * step), foot - 0.36 * size * step
            sheet.shape(
                [(x - half, bottom), (x, bottom - 0.72 * size), (x + half, bottom)], rgb("3f7a66") * (1 + 0.06 * step)
            )
            sheet.shape(
                [
                    (x - 0.3 * half, bottom - 0.5 * size),
                    (x, bottom - 0.72 * size),
                    (x + 0.3 * half, bottom - 0.5 * size),
                ],
                rgb("f4f8fc"),
            )
    for _ in range(45):
        sheet.disc(sheet.uniform(0, sheet.width), sheet.uniform(0, 1), sheet.uniform(0.002, 0.0045), WHITE)


def desert(sheet: Backdrop) -> None:
    """Dunes at sunset, cacti."""
    y = sheet.horizon
    sheet.wash((0, rgb("f0a46c")), (0.6 * y, rgb("f9cf95")), (y, rgb("fbe3b8")), (1, rgb("fbe3b8")))
    sheet.disc(sheet.uniform(0.15, 0.85) * sheet.width, y - 0.16, 0.075, rgb("fff0c4"))
    x = sheet.uniform(0.1, 0.7) * sheet.width
    mesa = [(x - 0.12, y), (x - 0.08, y - 0.13), (x + 0.10, y - 0.13), (x + 0.14, y)]
    sheet.shape(mesa, rgb("c0704f"))
    sheet.ridge(y - 0.03, 0.022, 5, rgb("e0a468"))
    sheet.ridge(y + 0.02, 0.014, 3, rgb("d99557"))
    for side in (0.1, 0.9):
        if sheet.rng.random() < 0.75:
            _cactus(sheet, side * sheet.width, y + sheet.uniform(0.02, 0.06), sheet.uniform(0.12, 0.19))
    sheet.ridge(0.90, 0.012, 4, rgb("d08b4e"))


def _cactus(sheet: Backdrop, x: float, y: float, size: float) -> None:
    green, width = rgb("5d8f5a"), 0.16 * size
    sheet.line([(x, y), (x, y - size)], width, green)
    for side, low, high in ((-1, 0.40, 0.72), (1, 0.55, 0.90)):
        arm = [(x, y - low * size), (x + side * 0.26 * size, y - low * size), (x + side * 0.26 * size, y - high * size)]
        sheet.line(arm, 0.7 * width, green)
    sheet.line([(x - 0.2 * width, y - 0.05 * size), (x - 0.2 * width, y - 0.95 * size)], 0.002, lighter(green, 0.3))


def library(sheet: Backdrop) -> None:
    """Shelves full of books, a carpet."""
    y, wood = sheet.horizon, sheet.choice("7a5540", "8c6a4a", "5f4638")
    sheet.wash((0, darker(wood, 0.45)), (y, darker(wood, 0.35)), (y + 0.001, rgb("c9a77c")), (1, rgb("a88559")))
    shelves = np.linspace(0.02, y - 0.01, 5)
    for top, bottom in pairwise(shelves):
        x = 0.0
        while x < sheet.width:
            width, height = sheet.uniform(0.014, 0.034), sheet.uniform(0.6, 0.88) * (bottom - top)
            if sheet.rng.random() < 0.9:
                cover = sheet.choice("b5524a", "4f7a8c", "d9b25f", "5f8a5a", "8a6a9c", "c98a5a", "e0d6c2", "39506e")
                sheet.block(x, bottom - height, x + 0.92 * width, bottom, darker(cover, 0.08))
                sheet.block(x, bottom - 0.8 * height, x + 0.92 * width, bottom - 0.74 * height, lighter(cover, 0.4))
            x += width
        sheet.block(0, bottom - 0.002, sheet.width, bottom + 0.012, wood)
    for x in (0.0, 0.5 * sheet.width, sheet.width):
        sheet.block(x - 0.010, 0, x + 0.010, y, wood)
    sheet.shape(ellipse(0.5 * sheet.width, 0.93, 0.34, 0.07), sheet.choice("a8484a", "486a8a", "5f7f5a"))
    sheet.shape(ellipse(0.5 * sheet.width, 0.93, 0.30, 0.057), sheet.choice("e6cfa6", "d9dfe2", "e8c9b8"))


SCENES: dict[str, Callable[[Backdrop], None]] = {
    "studio": studio,
    "park": park,
    "beach": beach,
    "city": city,
    "night": night,
    "living room": living_room,
    "snow": snow,
    "desert": desert,
    "library": library,
}


def paint_scene(name: str, size: tuple[int, int], rng: np.random.Generator) -> Plane:
    """Paint a scene, (H, W, 3) in [0, 1]."""
    sheet = Backdrop(size, rng)
    SCENES[name](sheet)
    return sheet.picture.astype(np.float32) / 255
