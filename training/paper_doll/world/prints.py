# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints: the emblem or the word on a chest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .canvas import Plane, Points, ellipse, ink_line, ink_polygon
from .colours import Colour
from .textures import star_outline

DENSITY = 1024  # pixels per unit of a print's picture
SHEET = (0.2, 0.3)  # width and height in units of the part of the chest that can be printed on

WORDS = (
    "NEO",
    "SUN",
    "LUX",
    "ART",
    "SKY",
    "GO",
    "ICE",
    "WOW",
    "JAM",
    "OAK",
    "ZEN",
    "FOX",
    "YES",
    "HEY",
    "MOON",
    "PLAY",
    "LOVE",
    "WILD",
    "07",
    "88",
    "23",
    "64",
    "NYC",
    "MIA",
    "RIO",
    "SEA",
    "BEE",
    "OWL",
    "KIWI",
    "TEA",
    "POP",
    "JAZZ",
    "K9",
    "HI",
    "OK",
    "TEN",
    "ONE",
    "BIG",
)

# Strokes on a grid five columns wide (0-4) and seven rows tall (0-6); a blank between points lifts the pen.
LETTERS = {
    "A": "062046 1434",
    "B": "000636454433 3303 0030414233",
    "C": "4130100105163645",
    "D": "00062645412000",
    "E": "40000646 0333",
    "F": "400006 0333",
    "G": "41301001051636454323",
    "H": "0006 4046 0343",
    "I": "2026",
    "J": "4045361605",
    "K": "0006 4003 0346",
    "L": "000646",
    "M": "0600234046",
    "N": "06004640",
    "O": "100105163645413010",
    "P": "06003041423303",
    "R": "06003041423303 2346",
    "S": "413010010213334445361605",
    "T": "0040 2026",
    "U": "000516364540",
    "V": "002640",
    "W": "0016233640",
    "X": "0046 4006",
    "Y": "002340 2326",
    "Z": "00400646",
    "0": "100105163645413010",
    "1": "012026",
    "2": "01103041420646",
    "3": "01103041423313 334445361605",
    "4": "36300444",
    "6": "413010010516364544331304",
    "7": "004016",
    "8": "100102133342413010 130405163645443313",
    "9": "423313020110304145361605",
}


@dataclass(frozen=True)
class Print:
    """What is printed, where and how large.

    motif: a key of MOTIFS, or "text". centre: (u, v) on the chest in units, v counted down from the collar.
    size: half its height in units, or half its width for a word.
    """

    motif: str
    word: str
    centre: tuple[float, float]
    size: float


class Plate:
    """The printing plate: shapes in a square from -1 to 1, inked into an (h, w, 4) picture of bytes."""

    def __init__(self, centre: tuple[float, float], size: float, inks: tuple[Colour, Colour, Colour]) -> None:
        """Lay a clean plate; `inks` are the print's colour, a second one, and the cloth's own."""
        width, height = (round(side * DENSITY) for side in SHEET)
        self.picture: NDArray[np.uint8] = np.zeros((height, width, 4), np.uint8)
        self.middle = np.array([(centre[0] + SHEET[0] / 2) * DENSITY, centre[1] * DENSITY])
        self.unit = size * DENSITY
        self.inks = inks

    def _ink(self, ink: int) -> tuple[int, ...]:
        return (*(int(255 * value) for value in self.inks[ink]), 255)

    def shape(self, outline: Points | list[tuple[float, float]], ink: int = 0) -> None:
        """Fill an outline with ink number `ink`."""
        ink_polygon(self.picture, np.asarray(outline) * self.unit + self.middle, self._ink(ink))

    def line(self, points: Points | list[tuple[float, float]], width: float, ink: int = 0) -> None:
        """Draw a line of that width through points."""
        ink_line(self.picture, np.asarray(points) * self.unit + self.middle, self._ink(ink), width * self.unit)


def star(plate: Plate) -> None:
    """A star."""
    plate.shape(star_outline(0, 0.06, 1.05))


def heart(plate: Plate) -> None:
    """A heart."""
    t = np.linspace(0, 2 * np.pi, 40)
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    plate.shape(np.stack([np.sin(t) ** 3, (y - 2) / 16], axis=1))


def bolt(plate: Plate) -> None:
    """A stroke of lightning."""
    plate.shape([(0.15, -1), (-0.6, 0.15), (-0.05, 0.15), (-0.2, 1), (0.6, -0.2), (0.05, -0.2), (0.45, -1)])


def target(plate: Plate) -> None:
    """Rings around a disc."""
    for radius, ink in ((1.0, 0), (0.72, 2), (0.46, 1)):
        plate.shape(ellipse(0, 0, radius, radius), ink)


def moon(plate: Plate) -> None:
    """A crescent with a small star in its arm."""
    outer = np.linspace(-0.35 * np.pi, -1.65 * np.pi, 30)
    inner = np.linspace(-1.55 * np.pi, -0.45 * np.pi, 24)
    rim = np.stack([0.95 * np.cos(outer), 0.95 * np.sin(outer)], axis=1)
    bite = np.stack([0.4 + 0.75 * np.cos(inner), 0.75 * np.sin(inner)], axis=1)
    plate.shape(np.vstack([rim, bite]).astype(np.float32))
    plate.shape(star_outline(0.5, 0, 0.38), 1)


def flower(plate: Plate) -> None:
    """A daisy."""
    for petal in range(8):
        angle = petal * np.pi / 4
        plate.shape(ellipse(0.6 * np.cos(angle), 0.6 * np.sin(angle), 0.4, 0.22, angle, 18))
    plate.shape(ellipse(0, 0, 0.34, 0.34), 1)


def cat(plate: Plate) -> None:
    """The face of a cat."""
    for side in (-1, 1):
        plate.shape([(side * 0.85, -0.9), (side * 0.9, 0.1), (side * 0.15, -0.5)])
    plate.shape(ellipse(0, 0.15, 0.92, 0.75))
    for side in (-1, 1):
        plate.shape(ellipse(side * 0.38, 0.02, 0.12, 0.17), 2)
        plate.line([(side * 0.45, 0.4), (side * 0.95, 0.32)], 0.06, 2)
    plate.shape([(-0.12, 0.3), (0.12, 0.3), (0, 0.46)], 1)


def mountain(plate: Plate) -> None:
    """Two peaks under a sun."""
    plate.shape(ellipse(0.42, -0.55, 0.3, 0.3), 1)
    plate.shape([(-1.1, 0.8), (-0.35, -0.65), (0.1, 0.2), (0.4, -0.15), (1.1, 0.8)])
    plate.shape([(-0.35, -0.65), (-0.57, -0.2), (-0.38, -0.32), (-0.25, -0.14), (-0.1, -0.2)], 2)


def smiley(plate: Plate) -> None:
    """A smiling face."""
    plate.shape(ellipse(0, 0, 1, 1))
    for side in (-1, 1):
        plate.shape(ellipse(side * 0.34, -0.25, 0.12, 0.2), 2)
    angle = np.linspace(0.12 * np.pi, 0.88 * np.pi, 16)
    plate.line(np.stack([0.62 * np.cos(angle), 0.05 + 0.58 * np.sin(angle)], axis=1), 0.15, 2)


def tree(plate: Plate) -> None:
    """A fir."""
    plate.shape([(-0.14, 0.5), (0.14, 0.5), (0.14, 1), (-0.14, 1)], 1)
    for top, width in ((-1, 0.5), (-0.6, 0.68), (-0.15, 0.86)):
        plate.shape([(0, top), (width, top + 0.8), (-width, top + 0.8)])


def band(plate: Plate) -> None:
    """A broad bar from side to side with a thin one below it."""
    for top, bottom, ink in ((-0.55, 0.35, 0), (0.5, 0.72, 1)):
        plate.shape([(-9, top), (9, top), (9, bottom), (-9, bottom)], ink)


MOTIFS: dict[str, Callable[[Plate], None]] = {
    "star": star,
    "heart": heart,
    "bolt": bolt,
    "target": target,
    "moon": moon,
    "flower": flower,
    "cat": cat,
    "mountain": mountain,
    "smiley": smiley,
    "tree": tree,
    "band": band,
}
PRINTS = ("none", "text", *MOTIFS)


def write_word(plate: Plate, word: str) -> None:
    """Write a word in round pen strokes, two plate units wide."""
    advance = 6.0
    pen = 2 / (advance * len(word))
    left = -1 + 0.5 * pen * (advance - 4)
    for index, letter in enumerate(word):
        for stroke in LETTERS[letter].split():
            grid = np.array([(int(x), int(y)) for x, y in zip(stroke[::2], stroke[1::2], strict=True)], float)
            plate.line((grid - (0, 3)) * pen + (left + index * advance * pen, 0), 1.25 * pen)


def print_picture(what: Print, inks: tuple[Colour, Colour, Colour]) -> Plane:
    """The print on its sheet, (h, w, 4): colours multiplied with their opacity, and the opacity."""
    plate = Plate(what.centre, what.size, inks)
    if what.motif == "text":
        write_word(plate, what.word)
    else:
        MOTIFS[what.motif](plate)
    picture = plate.picture.astype(np.float32) / 255
    picture[..., :3] *= picture[..., 3:]
    return picture
