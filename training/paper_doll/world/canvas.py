# SPDX-License-Identifier: GPL-3.0-or-later
"""The sheet that dolls are painted on: pixels, and for every pixel whose it is.

Everything is drawn at its final size. Lengths are *doll units*: a doll is about 0.85 units tall, x grows to the right
from its middle line, y grows downwards from the crown of its head. The canvas alone knows about pixels. This module is
also the only one that talks to OpenCV.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .colours import Colour

Plane: TypeAlias = NDArray[np.floating[Any]]  # (h, w), or (h, w, channels)
Points: TypeAlias = NDArray[np.floating[Any]]  # (n, 2), x and y
Box: TypeAlias = tuple[slice, slice]  # rows, columns

OWNERS = ("background", "person", "upper", "lower", "hat")  # skin, hair and shoes are the person's


class Canvas:
    """A picture being painted, with the share of every owner in every pixel.

    image: (H, W, 3) in [0, 1]. shares: (owners, H, W), summing to 1 in every pixel, so that whatever is painted later
    takes its pixels away from what lies below: that is how masks of *visible* garments come about.
    """

    def __init__(
        self, background: Plane, scale: float, origin: tuple[float, float], owners: tuple[str, ...] = OWNERS
    ) -> None:
        """Start from a background (H, W, 3), which is the first owner's.

        scale: pixels per unit. origin: the pixel (x, y) of unit (0, 0).
        """
        self.image, self.owners = background, owners
        self.height, self.width = background.shape[:2]
        self.shares = np.zeros((len(owners), self.height, self.width), np.float32)
        self.shares[0] = 1
        self.scale = scale
        self.origin = np.array(origin, np.float32)

    def pixels(self, points: ArrayLike) -> Points:
        """Turn doll units into pixels."""
        return np.asarray(points, np.float32) * np.float32(self.scale) + self.origin

    def paint(self, box: Box, colour: Plane | Colour, cover: Plane, owner: str) -> None:
        """Lay a colour, or a picture of colours (h, w, 3), over a box where `cover` (h, w) in [0, 1] says so."""
        part, rest = self.image[box], 1 - cover
        part *= threefold(rest)
        part += colour * threefold(cover)
        shares = self.shares[(slice(None), *box)]
        shares *= rest
        shares[self.owners.index(owner)] += cover

    def fill(self, outline: ArrayLike, colour: Colour, owner: str, opacity: float = 1.0) -> None:
        """Fill the outline (n, 2), in units, with one colour."""
        points = self.pixels(outline)
        box = self.box_around(points, 1)
        if box is None:
            return
        cover = polygon_cover(points - (box[1].start, box[0].start), (box_size(box)))
        self.paint(box, colour, cover * np.float32(opacity), owner)

    def shade(self, outline: ArrayLike, amount: float) -> None:
        """Darken what lies under an outline (n, 2) by `amount`, without changing whose it is."""
        points = self.pixels(outline)
        box = self.box_around(points, 1)
        if box is not None:
            cover = polygon_cover(points - (box[1].start, box[0].start), box_size(box))
            self.image[box] *= 1 - np.float32(amount) * cover[..., None]

    def box_around(self, points: Points, margin: float) -> Box | None:
        """The part of the canvas around some pixels; None if they lie outside."""
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        left, top = max(0, math.floor(left - margin)), max(0, math.floor(top - margin))
        right, bottom = min(self.width, math.ceil(right + margin) + 1), min(self.height, math.ceil(bottom + margin) + 1)
        return (slice(top, bottom), slice(left, right)) if right > left and bottom > top else None

    def mask(self, owner: str) -> NDArray[np.bool_]:
        """Where a pixel belongs mostly to `owner`, (H, W). Masks of different owners never overlap."""
        return self.share(owner) > 0.5

    def share(self, owner: str) -> Plane:
        """How much of each pixel belongs to `owner`, (H, W)."""
        return self.shares[self.owners.index(owner)]

    def bytes(self) -> NDArray[np.uint8]:
        """The picture as (H, W, 3) bytes."""
        return as_bytes(self.image)


def box_size(box: Box) -> tuple[int, int]:
    """Height and width of a box."""
    return box[0].stop - box[0].start, box[1].stop - box[1].start


def as_bytes(image: Plane) -> NDArray[np.uint8]:
    """Colours in [0, 1], or a little above, as bytes."""
    import cv2

    return cv2.convertScaleAbs(image, alpha=255).reshape(image.shape)  # type: ignore[return-value]


def moved(points: ArrayLike, x: float, y: float) -> Points:
    """The points, further to the right and down."""
    return (np.asarray(points) + np.array([x, y])).astype(np.float32)


def ellipse(x: float, y: float, across: float, down: float, turn: float = 0.0, count: int = 32) -> Points:
    """The outline of an ellipse with half-axes `across` and `down`, turned clockwise by `turn` radians."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    dx, dy = across * np.cos(angle), down * np.sin(angle)
    cos, sin = np.cos(turn), np.sin(turn)
    return np.stack([x + dx * cos - dy * sin, y + dx * sin + dy * cos], axis=1).astype(np.float32)


def _fixed(points: Points) -> NDArray[np.int32]:
    """Points as OpenCV's fixed-point numbers with four binary places; pixel centres have whole numbers there."""
    return np.round((np.asarray(points) - 0.5) * 16).astype(np.int32)


def polygon_cover(points: Points, size: tuple[int, int]) -> Plane:
    """How much of each pixel of a picture of `size` (h, w) an outline covers."""
    import cv2

    cover: Any = np.zeros(size, np.uint8)
    cv2.fillPoly(cover, [_fixed(points)], (255,), cv2.LINE_AA, 4)
    return cover.astype(np.float32) / 255


def ink_polygon(picture: NDArray[np.uint8], points: Points, ink: tuple[int, ...]) -> None:
    """Fill an outline, in pixels, in a picture of bytes."""
    import cv2

    cv2.fillPoly(picture, [_fixed(points)], ink, cv2.LINE_AA, 4)


def ink_line(picture: NDArray[np.uint8], points: Points, ink: tuple[int, ...], width: float) -> None:
    """Draw a line through points, in pixels, with a round pen, in a picture of bytes."""
    import cv2

    cv2.polylines(picture, [_fixed(points)], False, ink, max(1, round(width)), cv2.LINE_AA, 4)


def threefold(plane: Plane) -> Plane:
    """A plane (h, w) for each of three channels, (h, w, 3): numpy multiplies that much faster than (h, w, 1)."""
    import cv2

    return cv2.merge((plane, plane, plane))  # type: ignore[return-value]


def resized(picture: Plane, height: int, width: int) -> Plane:
    """The picture at another size, averaged over areas where it shrinks."""
    import cv2

    shrinks = height < picture.shape[0]
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)  # type: ignore[return-value]


def looked_up(picture: Plane, columns: Plane, rows: Plane, repeats: bool = False) -> Plane:
    """The picture's values at fractional places, counted from the centre of the first pixel.

    Outside the picture is 0, or the picture once more if it `repeats`.
    """
    import cv2

    border = cv2.BORDER_WRAP if repeats else cv2.BORDER_CONSTANT
    return cv2.remap(picture, columns, rows, cv2.INTER_LINEAR, borderMode=border)  # type: ignore[return-value]


def blurred(plane: Plane, radius: float) -> Plane:
    """A copy blurred by a Gaussian of standard deviation `radius` pixels."""
    import cv2

    return cv2.GaussianBlur(plane, (0, 0), radius)  # type: ignore[return-value]
