# SPDX-License-Identifier: GPL-3.0-or-later
"""Textures: what cloth looks like before it is cut, as square tiles that repeat without a seam."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .canvas import Plane, Points, blurred, ellipse, ink_polygon, moved
from .colours import CLOTH_COLOURS, Colour, darker, lighter, luminance

TILE = 256  # pixels
PERIOD = 0.25  # units of cloth that a tile covers
AXIS = (np.arange(TILE, dtype=np.float32) + np.float32(0.5)) / TILE
X, Y = np.broadcast_to(AXIS[None], (TILE, TILE)), np.broadcast_to(AXIS[:, None], (TILE, TILE))


@dataclass(frozen=True)
class Dye:
    """What a texture is woven from.

    inks: primary, secondary and accent colour. count: repeats in a tile. duty: share of the secondary colour, 0 to 1.
    seed: of everything irregular.
    """

    inks: tuple[Colour, Colour, Colour]
    count: int
    duty: float
    seed: int

    @property
    def rng(self) -> np.random.Generator:
        """A fresh generator: the same irregularities each time."""
        return np.random.default_rng(self.seed)


def mixed(base: Plane | Colour, ink: Colour, amount: Plane) -> Plane:
    """Lay an ink over a base where `amount` (h, w) in [0, 1] says so."""
    return base + (ink - base) * amount[..., None]


def bars(phase: Plane, duty: float, count: float) -> Plane:
    """A soft-edged square wave: 1 in the middle `duty` of every whole step of `phase`, `count` steps to a tile."""
    softness = count / TILE * 1.3
    return np.clip((duty / 2 - np.abs(phase % 1 - 0.5)) / softness + 0.5, 0, 1)


def triangle(phase: Plane) -> Plane:
    """A triangle wave between 0 and 1."""
    return np.abs(phase % 1 - 0.5) * 2


def plain(dye: Dye) -> Plane:
    """One colour."""
    return np.broadcast_to(dye.inks[0], (TILE, TILE, 3)).copy()


def striped(dye: Dye) -> Plane:
    """Stripes around the body."""
    return mixed(dye.inks[0], dye.inks[1], bars(Y * dye.count, dye.duty, dye.count))


def pinstriped(dye: Dye) -> Plane:
    """Thin stripes down the body."""
    count = 2 * dye.count
    return mixed(dye.inks[0], dye.inks[1], bars(X * count, 0.12 + 0.3 * dye.duty, count))


def checked(dye: Dye) -> Plane:
    """Gingham: two half-tones that add up where they cross."""
    across, down = bars(X * dye.count, 0.5, dye.count), bars(Y * dye.count, 0.5, dye.count)
    return mixed(dye.inks[0], dye.inks[1], 0.5 * across + 0.5 * down)


def plaid(dye: Dye) -> Plane:
    """Tartan: broad bands, and thin lines of the accent colour between them."""
    count = max(2, dye.count // 2)
    band = 0.45 * bars(X * count, 0.45, count) + 0.45 * bars(Y * count, 0.45, count)
    line = np.maximum(bars(X * count + 0.5, 0.1, count), bars(Y * count + 0.5, 0.1, count))
    fine = np.maximum(bars(X * count, 0.07, count), bars(Y * count, 0.07, count))
    cloth = mixed(mixed(dye.inks[0], dye.inks[1], band), dye.inks[2], 0.8 * line)
    return mixed(cloth, dye.inks[0], 0.55 * fine)


def staggered(dye: Dye, count: int) -> tuple[Plane, Plane]:
    """Coordinates around the nearest of `count` x `count` places (count even), odd rows moved by half a step."""
    row = np.floor(Y * count)
    return (X * count + 0.5 * (row % 2)) % 1 - 0.5, (Y * count) % 1 - 0.5


def polka_dot(dye: Dye) -> Plane:
    """Dots in staggered rows."""
    count = dye.count + dye.count % 2
    x, y = staggered(dye, count)
    dots = np.clip((0.16 + 0.25 * dye.duty - np.hypot(x, y)) / (count / TILE * 1.3) + 0.5, 0, 1)
    return mixed(dye.inks[0], dye.inks[1], dots)


def argyle(dye: Dye) -> Plane:
    """Tall diamonds with a thin lattice of the accent colour over them."""
    count = max(2, dye.count - 2)
    u, v = np.abs((X * count) % 1 - 0.5), np.abs((Y * max(1, round(0.6 * count))) % 1 - 0.5)
    diamonds = np.clip((0.5 - u - v) * TILE / count / 2.2 + 0.5, 0, 1)
    lattice = np.clip((0.04 - np.abs(u - v)) * TILE / count / 1.6 + 0.5, 0, 1)
    return mixed(mixed(dye.inks[0], dye.inks[1], diamonds), dye.inks[2], 0.9 * lattice)


def zigzag(dye: Dye) -> Plane:
    """Stripes that go up and down."""
    phase = Y * dye.count + 0.8 * triangle(X * max(2, dye.count - 1))
    return mixed(dye.inks[0], dye.inks[1], bars(phase, 0.35 + 0.3 * dye.duty, dye.count))


def houndstooth(dye: Dye) -> Plane:
    """Broken checks: four dark and four light threads each way, in a two-by-two twill."""
    repeats = dye.count + 1
    column, row = (np.floor(axis * 8 * repeats).astype(int) for axis in (X, Y))
    warp_on_top = (column + row) % 4 < 2
    dark = np.where(warp_on_top, column % 8 < 4, row % 8 < 4)
    return mixed(dye.inks[0], dye.inks[1], wrapped_blur(dark.astype(np.float32), 0.9))


def camouflage(dye: Dye) -> Plane:
    """Large soft-cornered patches in three colours."""
    rng, cloth = dye.rng, plain(dye)
    for ink in dye.inks[1:]:
        noise = wrapped_blur(rng.standard_normal((TILE, TILE)).astype(np.float32), TILE / (4.5 * dye.count))
        cloth = mixed(cloth, ink, np.clip((noise / noise.std() - 0.45) * 7 + 0.5, 0, 1))
    return cloth


def knit(dye: Dye) -> Plane:
    """Rows of V-shaped stitches between cables."""
    stitches = 4 * dye.count
    furrow = triangle(Y * stitches + triangle(X * stitches) * 0.9)
    cables = dye.count // 2
    place = (X * cables) % 1 - 0.5
    twist = np.sin(2 * np.pi * 2 * cables * Y)
    strands = np.maximum(*(np.exp(-(((place - sign * 0.13 * twist) / 0.085) ** 2)) for sign in (-1, 1)))
    gap = np.exp(-(((np.abs(place) - 0.3) / 0.045) ** 2))
    light = 0.88 + 0.1 * furrow + 0.16 * strands - 0.2 * gap
    strength = 1.0 if luminance(dye.inks[0]) > 0.25 else 1.7
    return np.clip(dye.inks[0] * (1 + strength * (light - 0.95))[..., None], 0, 1)


def denim(dye: Dye) -> Plane:
    """A twill, worn unevenly along its threads."""
    noise = dye.rng.standard_normal((TILE, TILE)).astype(np.float32)
    threads = wrapped_blur(noise, 0.7, 5)
    clouds = wrapped_blur(noise, 10, 14)
    twill = np.sin(2 * np.pi * (X + Y) * 32)
    light = 0.055 * threads / threads.std() + 0.04 * clouds / clouds.std() + 0.035 * twill
    return np.clip(lighter(dye.inks[0], 0.06) * (1 + light)[..., None], 0, 1)


def wrapped_blur(plane: Plane, across: float, down: float | None = None) -> Plane:
    """Blur a tile as if it repeated in all directions."""
    down = across if down is None else down
    frequency = np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None]
    response = np.exp(-2 * np.pi**2 * ((frequency[0] * down) ** 2 + (frequency[1] * across) ** 2))
    return np.fft.irfft2(np.fft.rfft2(plane) * response, plane.shape).astype(np.float32)


class Stamp:
    """A tile to stamp shapes on; what crosses an edge comes in again on the other side."""

    def __init__(self, base: Colour) -> None:
        """Start from one colour."""
        self.picture: NDArray[np.uint8] = np.empty((TILE, TILE, 3), np.uint8)
        self.picture[:] = np.round(base * 255)

    def shape(self, outline: Points, ink: Colour) -> None:
        """Fill an outline (n, 2) in pixels."""
        colour = tuple(int(255 * value) for value in ink)
        low, high = outline.min(axis=0).tolist(), outline.max(axis=0).tolist()
        across, along = (
            [shift for shift in (-TILE, 0, TILE) if high[axis] + shift > 0 and low[axis] + shift < TILE]
            for axis in (0, 1)
        )
        for right in across:
            for down in along:
                ink_polygon(self.picture, moved(outline, right, down), colour)

    def tile(self) -> Plane:
        """The tile in [0, 1]."""
        return self.picture.astype(np.float32) / 255


def scattered(dye: Dye, count: int, unrest: float) -> list[tuple[float, float, float]]:
    """Places (x, y, angle) on a staggered grid of `count` x `count`, moved about by `unrest` of a step; in pixels."""
    rng, step = dye.rng, TILE / count
    return [
        (
            (column + 0.5 + 0.5 * (row % 2) + unrest * rng.uniform(-1, 1)) * step,
            (row + 0.5 + unrest * rng.uniform(-1, 1)) * step,
            rng.uniform(0, 2 * np.pi),
        )
        for row in range(count)
        for column in range(count)
    ]


def floral(dye: Dye) -> Plane:
    """Five-petalled flowers with two leaves each."""
    stamp, count = Stamp(dye.inks[0]), 4 if dye.count < 6 else 6
    radius = TILE / count * (0.2 + 0.12 * dye.duty)
    leaf = CLOTH_COLOURS["green"] if luminance(dye.inks[0]) > 0.4 else CLOTH_COLOURS["mint"]
    for x, y, turn in scattered(dye, count, 0.18):
        for angle in (turn + 0.9, turn + 2.9):
            place = x + 1.5 * radius * np.cos(angle), y + 1.5 * radius * np.sin(angle)
            stamp.shape(ellipse(*place, 0.8 * radius, 0.34 * radius, angle, 14), leaf)
        for petal in range(5):
            angle = turn + petal * 2 * np.pi / 5
            place = x + 0.66 * radius * np.cos(angle), y + 0.66 * radius * np.sin(angle)
            stamp.shape(ellipse(*place, 0.62 * radius, 0.48 * radius, angle, 14), dye.inks[1])
        stamp.shape(ellipse(x, y, 0.36 * radius, 0.36 * radius, count=12), dye.inks[2])
    return stamp.tile()


def leopard(dye: Dye) -> Plane:
    """Broken rings around darker spots."""
    stamp, count = Stamp(dye.inks[0]), max(4, dye.count)
    count += count % 2
    radius, inside = TILE / count * 0.34, 0.5 * dye.inks[0] + 0.5 * dye.inks[1]
    for x, y, turn in scattered(dye, count, 0.16):
        stamp.shape(ellipse(x, y, 0.75 * radius, 0.6 * radius, turn, 14), inside)
        for part in range(3):
            angle = turn + part * 2.1 + 0.25 * np.sin(7 * turn + part)
            place = x + 0.72 * radius * np.cos(angle), y + 0.72 * radius * np.sin(angle)
            stamp.shape(ellipse(*place, 0.3 * radius, 0.58 * radius, angle, 14), dye.inks[1])
    return stamp.tile()


def star_outline(x: float, y: float, radius: float, turn: float = 0.0, points: int = 5, depth: float = 0.42) -> Points:
    """A star standing on two of its points."""
    angle = np.arange(2 * points) * np.pi / points - np.pi / 2 + turn
    reach = np.where(np.arange(2 * points) % 2 == 0, 1, depth) * radius
    return np.stack([x + reach * np.cos(angle), y + reach * np.sin(angle)], axis=1).astype(np.float32)


def starry(dye: Dye) -> Plane:
    """Stars of two sizes."""
    stamp, count = Stamp(dye.inks[0]), 4 if dye.count < 6 else 6
    for index, (x, y, turn) in enumerate(scattered(dye, count, 0.1)):
        radius = TILE / count * (0.38 if index % 2 else 0.24)
        stamp.shape(star_outline(x, y, radius, 0.4 * np.sin(turn)), dye.inks[1])
    return stamp.tile()


TEXTURES: dict[str, Callable[[Dye], Plane]] = {
    "plain": plain,
    "striped": striped,
    "pinstriped": pinstriped,
    "checked": checked,
    "plaid": plaid,
    "polka dot": polka_dot,
    "floral": floral,
    "argyle": argyle,
    "zigzag": zigzag,
    "houndstooth": houndstooth,
    "camouflage": camouflage,
    "leopard": leopard,
    "starry": starry,
    "knit": knit,
    "denim": denim,
    "gradient": plain,  # changes along the whole garment, which `cloth` knows
    "colour block": plain,
}
ONE_COLOUR = frozenset({"plain", "knit", "denim"})
CALM = frozenset({"plain", "striped", "gradient", "colour block"})  # a print can be read on these


def soft_tile(dye: Dye, texture: str) -> Plane:
    """The tile of a texture, (TILE, TILE, 3), with the finest detail taken off so that it does not shimmer."""
    tile = TEXTURES[texture](dye)
    return tile if texture in ("plain", "gradient", "colour block") else blurred(tile, 0.6)


def shadow_ink(colour: Colour) -> Colour:
    """The colour of seams on cloth of this colour."""
    return darker(colour, 0.45)
