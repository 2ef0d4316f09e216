# SPDX-License-Identifier: GPL-3.0-or-later
"""Photographs of garments as artists upload them, drawn, each with its exact mask: the judge of a cut-out."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from .garment_cloth import Field, Place, blurred, clouds_of, filled, folds_of, garment_at, rounded
from .garment_cuts import Piece, Points, Rng, disc, pair, pieces_of, strip

Kind = Literal["plain", "gradient", "shadow", "hard"]


@dataclass(frozen=True)
class Photograph:
    """One photograph; of two garments the mask shows both, and what hides cloth (a hanger, a neck) is not in it.

    What else a wearer has on is not the garment. `hard` is what a cut-out may decline, never what it may get wrong.
    """

    name: str
    picture: NDArray[np.uint8]  # (H, W, 3) RGB
    mask: NDArray[np.bool_]  # (H, W), where the garment covers at least half of a pixel
    kind: Kind


def photograph(shot: str) -> Photograph:
    """One of `SHOTS`; each has the seed of its own name, so a new row changes no other."""
    return _taken(*shot.split())


# kind, cut, cloth, ground (a colour or a texture, and perhaps its light), troubles
SHOTS = """
plain    tee      red        white
plain    polo     navy       paper
plain    dress    floral     white
plain    trousers denim      grey
plain    skirt    beige      mint
plain    hat      black      paper
plain    scarf    tartan     silver
plain    coat     camel      sky
plain    tee      white      grey
plain    camisole rose       black
plain    jumper   breton     white
plain    trousers cream      charcoal
plain    tee      logo       lemon
plain    polo     cutout     mint
gradient tee      green      silver.fade
gradient polo     striped    white.vignette
gradient dress    blue       paper.rise
gradient trousers black      silver.spot
gradient skirt    denim      white.slant
gradient hat      beige      grey.fade
gradient scarf    red        cream.warm
gradient coat     navy       silver.sweep
gradient jumper   heather    paper.vignette
gradient camisole white      grey.spot
gradient dress    dotted     sky.fade
gradient tee      cutout     silver.slant
gradient coat     tartan     grey.rise
shadow   tee      logo       white          drop
shadow   polo     pink       paper          soft
shadow   dress    green      silver         wide
shadow   trousers denim      white          contact
shadow   skirt    floral     cream          side
shadow   hat      camel      white          left
shadow   scarf    striped    paper.vignette drop
shadow   coat     black      white.fade     soft
shadow   jumper   cream      blush          contact
shadow   camisole red        grey.slant     side
shadow   tee      breton     sky.spot       wide
shadow   trousers grey       cream.warm     left
shadow   polo     gingham    white.sweep    contact
shadow   hat      heather    mint           wide
hard     tee      optic      white          hairline
hard     polo     optic      paper          hairline
hard     dress    cream      white.vignette contact
hard     trousers black      black
hard     coat     ink        charcoal.spot  soft
hard     tee      heather    silver         hanger   side
hard     dress    blue       white          hanger
hard     camisole black      cream          hanger   soft
hard     dress    green      room           person
hard     tee      striped    room           person
hard     jumper   red        bricks         drop
hard     trousers denim      wood           contact
hard     polo     pink       grass          drop
hard     scarf    floral     sheet          contact
hard     tee      navy       white          cropped
hard     coat     camel      paper.fade     cropped  soft
hard     polo     green      cream          cast
hard     skirt    blue       paper          passing
hard     tee      tartan     white          two      drop
""".strip().splitlines()

GROUNDS = {
    "white": (255, 255, 255), "paper": (246, 246, 246), "silver": (206, 207, 210), "grey": (140, 140, 142),
    "charcoal": (44, 44, 48), "black": (14, 14, 15), "cream": (240, 230, 212), "mint": (205, 230, 216),
    "sky": (198, 218, 240), "blush": (243, 214, 216), "lemon": (247, 240, 190),
}  # fmt: skip
# What a lamp leaves of the ground, at most 60 levels less; x, y in -1..1 over the picture.
LIGHTS: dict[str, Callable[[Field, Field], Field]] = {
    "fade": lambda x, y: 1 - 0.115 * (1 + y),
    "rise": lambda x, y: 1 - 0.1 * (1 - y),
    "slant": lambda x, y: 1 - 0.055 * (2 + x + y),
    "spot": lambda x, y: 0.78 + 0.24 * np.exp(-1.2 * (x**2 + (y + 0.2) ** 2)),
    "vignette": lambda x, y: 1 - 0.095 * (x**2 + y**2) ** 1.3,
    "sweep": lambda x, y: 0.91 - 0.08 * np.tanh(6 * (y - 0.45)) - 0.02 * x,
    "warm": lambda x, y: 1 - 0.05 * (1 + y),
}
Shade = tuple[float, float, float, float]  # right, down and sigma in pixels of a picture 640 long; strength
SHADOWS: dict[str, tuple[Shade, ...]] = {
    "drop": ((5, 9, 8, 0.32),),
    "soft": ((4, 14, 20, 0.42),),
    "wide": ((-6, 14, 38, 0.45),),
    "contact": ((1, 3, 3, 0.36), (0, 5, 24, 0.16)),
    "side": ((34, 6, 15, 0.36),),
    "left": ((-28, 12, 10, 0.3), (-2, 3, 4, 0.2)),
    "hairline": ((0, 1.5, 2, 0.16),),
    "cast": ((32, 24, 1.2, 0.38),),
}
SIZES = [(400, 300), (480, 360), (512, 512), (560, 420), (600, 480), (640, 480), (720, 540), (700, 600), (900, 700)]
# What a frame must also show, left and up of a garment, in its units.
ROOM = {"hanger": np.array([0, -0.13]), "person": np.array([-0.5, -0.36])}
PASSING: Points = [  # the outline of the photographer's own shadow, in shares of the picture
    (-0.1, 0.62),
    (0.25, 0.5),
    (0.4, 0.55),
    (0.48, 0.75),
    (0.7, 0.8),
    (0.75, 1.1),
    (-0.1, 1.1),
]
STEEL, BEECH, SKIN, HAIR, TROUSERS = (150, 152, 156), (188, 150, 104), (214, 164, 136), (62, 44, 34), (58, 66, 84)


def _taken(kind: str, cut: str, cloth: str, ground: str, *troubles: str) -> Photograph:
    """The photograph of a row: ground, what stands behind, shadows, garments, then the camera."""
    name = "-".join((cut, cloth, ground, *troubles))
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    worn = [(cut, cloth), ("trousers", "beige")] if "two" in troubles else [(cut, cloth)]
    garments = [pieces_of(each, rng) for each, _ in worn]
    places = _places(garments, troubles, rng)
    scene = _ground(ground, places[0].size, rng)
    colour = scene.reshape(-1, 3).mean(0)
    lamp = blurred(scene.mean(2), len(scene) / 8)
    lamp = np.sqrt(lamp / lamp.max())[..., None]
    mask = np.zeros(places[0].size, bool)
    for (_, each), pieces, place in zip(worn, garments, places, strict=True):
        garment, coverage, inner = garment_at(pieces, place, each, colour, rng)
        behind, hidden = _behind(place, troubles)
        for trouble in troubles:
            scene = _shaded(scene, np.maximum(coverage, hidden), SHADOWS.get(trouble, ()))
        scene += hidden[..., None] * (behind - scene)
        coverage = coverage * (1 - hidden * inner)
        scene += coverage[..., None] * (garment * lamp - scene)
        mask |= coverage >= 0.5
    if "passing" in troubles:  # the photographer's own shadow falls over ground and garment
        scene = _shaded(scene, filled([rounded(PASSING) * scene.shape[1::-1]], scene.shape[:2]), ((0, 0, 4, 0.34),))
    return Photograph(name, _camera(scene, rng), mask, cast(Kind, kind))


def _places(garments: list[list[Piece]], troubles: tuple[str, ...], rng: Rng) -> list[Place]:
    """A picture's size that suits its garments, and where in it each lies."""
    boxes = []
    for pieces in garments:
        points = np.concatenate([piece.points for piece in pieces])
        low, high = points.min(0), points.max(0)
        boxes.append((np.minimum(low, next((ROOM[each] for each in troubles if each in ROOM), low)), high))
    wide = sum((high - low)[0] / (high - low)[1] for low, high in boxes)
    size = sorted(SIZES[rng.integers(len(SIZES))], reverse=bool(wide < rng.uniform(0.8, 1.2)))
    height, width = size[0], size[1] / len(boxes)
    places = []
    for i, (low, high) in enumerate(boxes):
        scale = rng.uniform(0.72, 0.87) * min(width / (high - low)[0], height / (high - low)[1])
        scale *= 1.5 if "cropped" in troubles else 1
        off = rng.uniform(-0.03, 0.03, 2) + ((0.1, 0.2) if "cropped" in troubles else 0)
        origin = (i + 0.5 + off[0], 0.5 + off[1]) * np.array((width, height)) - scale * (low + high) / 2
        angle = rng.uniform(-0.08, 0.08) * (0.15 if {"hanger", "person"} & {*troubles} else 1)
        places.append(Place((size[0], size[1]), origin, scale, angle, rng.uniform(0, 6.3, (2, 5))))
    return places


def _behind(place: Place, troubles: tuple[str, ...]) -> tuple[Field, Field]:
    """What a garment hangs on or who wears it, (H, W, 3), and where that is seen, (H, W)."""
    things: list[tuple[tuple[int, int, int], Points]] = []
    if "hanger" in troubles:
        hook = [(0, 0.04), (0, -0.03), (0.005, -0.05), (0.04, -0.08), (0.02, -0.12), (-0.03, -0.115), (-0.035, -0.085)]
        things = [
            (STEEL, strip(hook, 0.009)),
            (BEECH, strip([(-0.2, 0.105), (-0.04, 0.04), (0.04, 0.04), (0.2, 0.105)], 0.022)),
        ]
    if "person" in troubles:
        arms = [
            piece.points for piece in pair("cloth", strip([(0.08, 0.1), (0.2, 0.09), (0.32, 0.28), (0.39, 0.6)], 0.07))
        ]
        legs = [piece.points for piece in pair("cloth", strip([(0.12, 0.66), (0.13, 1.7)], 0.2))]
        things = [
            (HAIR, disc(0, -0.17, 0.115, 0.17)),
            *((SKIN, arm) for arm in arms),
            *((TROUSERS, leg) for leg in legs),
        ]
        things += [(SKIN, strip([(0, 0.2), (0, -0.1)], 0.13)), (SKIN, disc(0, -0.15, 0.085, 0.12))]
    picture, seen = np.zeros((*place.size, 3), np.float32), np.zeros(place.size, np.float32)
    for colour, points in things:
        alpha = filled([place.line(Piece("cloth", points, 0.004))], place.size)
        blend = np.where(seen > 0, alpha, alpha > 0)
        seen = np.maximum(seen, alpha)
        lit = 0.8 + 0.25 * blurred(alpha, place.scale / 50)
        picture += blend[..., None] * (lit[..., None] * colour - picture)
    return picture, seen


def _shaded(scene: Field, shape: Field, shades: tuple[Shade, ...]) -> Field:
    """A scene in the shadows of a shape; shadows are a little blue."""
    for right, down, sigma, strength in shades:
        ratio = max(scene.shape) / 640
        moved = cv2.warpAffine(shape, np.float32([[1, 0, right * ratio], [0, 1, down * ratio]]), shape.shape[::-1])
        soft = blurred(moved, sigma * ratio)[..., None]
        scene = scene * (1 - strength * soft * np.array([1.04, 1, 0.94], np.float32))
    return scene


def _ground(name: str, size: tuple[int, int], rng: Rng) -> Field:
    """A ground by its name in `SHOTS`, (H, W, 3)."""
    base, _, light = name.partition(".")
    scene = TEXTURES[base](size, rng) if base in TEXTURES else np.full((*size, 3), GROUNDS[base], np.float32)
    if light:
        y, x = (each.astype(np.float32)[..., None] for each in np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j])
        tint = np.array((0, 0.03, 0.09) if light == "warm" else (0, 0, 0), np.float32)
        scene = scene * LIGHTS[light](x, y) * (1 - tint * (1 + x) / 2)
    return scene.astype(np.float32)


def _grain(size: tuple[int, int], along: float, across: float, rng: Rng) -> Field:
    """Noise of unit size, drawn out sideways."""
    noise = cv2.GaussianBlur(rng.standard_normal(size, np.float32), (0, 0), along, sigmaY=across)
    return (noise / noise.std())[..., None]


def _bricks(size: tuple[int, int], rng: Rng) -> Field:
    """A wall of bricks in light mortar."""
    high, long = size[0] // 16, size[1] // 6
    rows, columns = np.mgrid[: size[0], : size[1]]
    course = rows // high
    columns = columns + course % 2 * (long // 2)
    tone = rng.normal(0, 16, (20, 10))[course % 20, columns // long % 10] + 7 * _grain(size, 1, 1, rng)[..., 0]
    mortar = np.minimum(rows % high, columns % long) < max(3, high // 9)
    tone = np.where(mortar, 0.4, 1) * tone
    wall = np.where(mortar[..., None], (196.0, 188, 178), (158.0, 84, 64)) + tone[..., None]
    return cv2.GaussianBlur(wall.astype(np.float32), (0, 0), 1)


def _wood(size: tuple[int, int], rng: Rng) -> Field:
    """A floor of planks with their grain."""
    plank = size[0] // 5
    rows = np.arange(size[0])[:, None, None]
    tone = rng.normal(0, 12, 6)[rows // plank] + 9 * _grain(size, 40, 0.8, rng) + 8 * _grain(size, 60, 5, rng)
    gap = np.exp(-(((rows % plank) / 1.6) ** 2))
    return ((np.array((172, 128, 86)) + tone) * (1 - 0.6 * gap)).astype(np.float32)


def _grass(size: tuple[int, int], rng: Rng) -> Field:
    """A lawn, blade by blade."""
    lawn = np.full((*size, 3), (58, 84, 36), np.float32)
    for x, y, lean, tone in rng.uniform((0, 0, -1, 0), (size[1], size[0] + 20, 1, 1), (size[0] * size[1] // 40, 4)):
        blade = (40 + 100 * tone, 70 + 110 * tone, 24 + 50 * tone)
        cv2.line(lawn, (int(x), int(y)), (int(x + 10 * lean), int(y - 8 - 10 * tone)), blade, 1, cv2.LINE_AA)
    return lawn


def _sheet(size: tuple[int, int], rng: Rng) -> Field:
    """A bed's crumpled sheet."""
    folds = folds_of(size, 24, rng) + 0.6 * clouds_of(size, (3, 3), rng)
    return (np.array((226, 224, 220)) * (1 + 0.06 * folds.clip(-3, 1.6)[..., None])).clip(0, 255).astype(np.float32)


def _room(size: tuple[int, int], rng: Rng) -> Field:
    """A room out of focus."""
    scene = np.full((*size, 3), (206, 198, 186), np.float32)
    scene[int(0.72 * size[0]) :] = (140, 112, 88)
    for _ in range(14):
        x, y, wide, high = rng.uniform((-0.1, -0.1, 0.08, 0.1), (1, 0.8, 0.3, 0.5)) * np.tile(size[::-1], 2)
        tone = rng.uniform(40, 235) + rng.normal(0, 18, 3)
        cv2.rectangle(scene, (int(x), int(y)), (int(x + wide), int(y + high)), tone.clip(0, 255).tolist(), -1)
    return cv2.GaussianBlur(scene, (0, 0), size[0] / 90)


TEXTURES = {"bricks": _bricks, "wood": _wood, "grass": _grass, "sheet": _sheet, "room": _room}


def _camera(scene: Field, rng: Rng) -> NDArray[np.uint8]:
    """What a camera makes of a scene: softness, sharpening, a sensor's noise of up to 4 levels, a JPEG of 60 to 95."""
    picture = cv2.GaussianBlur(scene.astype(np.float32).clip(0, 255), (0, 0), rng.uniform(0.5, 0.8))
    picture += rng.uniform(0, 0.8) * (picture - cv2.GaussianBlur(picture, (0, 0), 1.2))
    picture += rng.choice([0.4, 1, 2, 3, 4]) * rng.standard_normal(picture.shape, np.float32)
    encoded = picture.round().clip(0, 255).astype(np.uint8)[..., ::-1]
    _, content = cv2.imencode(".jpg", encoded, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 96))])
    return np.ascontiguousarray(cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1])
