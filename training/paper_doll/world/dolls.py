# SPDX-License-Identifier: GPL-3.0-or-later
"""Dolls: everything that must be known to paint one person, and the order in which it is painted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from .body import (
    PEOPLE,
    POSES,
    Build,
    Skeleton,
    draw_build,
    draw_skeleton,
    paint_arm,
    paint_legs,
    paint_neck,
    paint_shadow,
    paint_torso,
)
from .canvas import Canvas
from .cloth import Cloth
from .colours import CLOTH_COLOURS, HAIR_COLOURS, SKINS, Colour, darker, jittered
from .faces import Face, draw_face, paint_face
from .garments import DollGarment
from .hair import HAIR_STYLES, paint_back_hair, paint_front_hair
from .hats import paint_hat
from .lowers import Hips, paint_lower
from .scenes import SCENES, paint_scene
from .strips import distances, part_of
from .uppers import Chest, paint_collar, paint_sleeve, paint_torso_panel

T = TypeVar("T")
SHOES = tuple(CLOTH_COLOURS[name] for name in ("white", "black", "brown", "red", "navy", "mustard", "teal"))
TUCKABLE = ("t-shirt", "shirt", "tank top", "polo shirt")
FEET = 0.858  # units from the crown of the head to the ground
GROUND = 0.972  # where the feet stand, as a part of the picture's height
NARROWEST = 0.72  # width of the narrowest picture that still shows a doll at its full size, in heights
HAND = 0.026  # units from the middle of a hand to the farthest fingertip or cuff
MARGIN = 0.015  # what stays free beyond each hand, as a part of the picture's height


@dataclass(frozen=True)
class Doll:
    """One person in one place, undressed. height: of the doll, as a part of the picture's height at FEET units.

    shift: of the doll to the right, in parts of the picture's width. scene_seed: of everything irregular behind it.
    """

    person: str
    pose: str
    scene: str
    skin: int
    hair: str
    hair_colour: str
    build: Build
    skeleton: Skeleton
    face: Face
    parting: float
    shoes: Colour
    socks: Colour | None
    size: float
    shift: float
    scene_seed: int
    tucked: bool
    left_arm_first: bool


def draw_doll(rng: np.random.Generator) -> Doll:
    """Draw a person, a pose and a scene."""

    def one(names: Sequence[T]) -> T:
        return names[int(rng.integers(len(names)))]

    person, pose = one(PEOPLE), one(tuple(POSES))
    build = draw_build(rng, person)
    doll = Doll(
        person=person,
        pose=pose,
        scene=one(tuple(SCENES)),
        skin=int(rng.integers(len(SKINS))),
        hair=one(HAIR_STYLES[person]),
        hair_colour=one(tuple(HAIR_COLOURS)),
        build=build,
        skeleton=draw_skeleton(rng, build, pose),
        face=draw_face(rng, person),
        parting=float(rng.uniform(-1, 1)),
        shoes=jittered(one(SHOES), rng),
        socks=CLOTH_COLOURS["white"] if rng.random() < 0.4 else None,
        size=float(rng.uniform(1.03, 1.09)),
        shift=float(rng.uniform(-0.04, 0.04)),
        scene_seed=int(rng.integers(2**31)),
        tucked=bool(rng.random() < 0.3),
        left_arm_first=bool(rng.random() < 0.5),
    )
    size, shift = _framed(doll.skeleton, doll.size, doll.shift)
    return replace(doll, size=size, shift=shift)


def _framed(skeleton: Skeleton, size: float, shift: float) -> tuple[float, float]:
    """Size and shift of a doll, changed as little as keeps both hands inside the picture."""
    hands = np.stack([arm.hand for arm in skeleton.arms])
    left, top = np.minimum(hands.min(axis=0) - HAND, 0).tolist()
    right = float(hands[:, 0].max()) + HAND
    size = min(size, (GROUND - MARGIN) / (FEET - top), (NARROWEST - 2 * MARGIN) / (right - left))
    leftmost, rightmost = (MARGIN - size * left) / NARROWEST - 0.5, 0.5 - (MARGIN + size * right) / NARROWEST
    return size, min(max(shift, leftmost), rightmost)


def paint_doll(doll: Doll, outfit: Mapping[str, tuple[DollGarment, Cloth]], size: tuple[int, int]) -> Canvas:
    """Paint the person wearing an outfit (slot -> garment and its cloth) in a picture of `size` (H, W)."""
    height, width = size
    scene = paint_scene(doll.scene, size, np.random.default_rng(doll.scene_seed))
    scale = doll.size * min(height, width / NARROWEST)
    owners = ("background", "person", *outfit)
    canvas = Canvas(scene, scale, (width * (0.5 + doll.shift), GROUND * height - FEET * scale), owners)
    skeleton, skin, hair = doll.skeleton, SKINS[doll.skin], HAIR_COLOURS[doll.hair_colour]
    paint_shadow(canvas, skeleton)
    paint_back_hair(canvas, skeleton, doll.hair, hair, doll.parting, "hat" in outfit)
    paint_legs(canvas, skeleton, skin, doll.shoes, doll.socks)
    paint_torso(canvas, skeleton, skin)
    paint_neck(canvas, skeleton, skin)
    _paint_garments(canvas, doll, outfit, skin)
    _paint_arms(canvas, doll, outfit, skin)
    paint_face(canvas, skeleton.head, doll.face, skin, hair)
    paint_front_hair(canvas, skeleton, doll.hair, hair, doll.parting, "hat" in outfit)
    if "hat" in outfit:
        paint_hat(canvas, *outfit["hat"], skeleton.head)
    return canvas


def _paint_garments(canvas: Canvas, doll: Doll, outfit: Mapping[str, tuple[DollGarment, Cloth]], skin: Colour) -> None:
    """Paint torso and legs of the outfit; what is tucked in lies below the waistband."""
    upper, lower = outfit.get("upper"), outfit.get("lower")
    tucked = doll.tucked and upper is not None and upper[0].kind in TUCKABLE
    if lower and not tucked:
        paint_lower(canvas, *lower, hips_of(doll.skeleton))
    if upper:
        chest = chest_of(doll.skeleton, upper[0], darker(skin, 0.06), tucked)
        paint_torso_panel(canvas, *upper, chest)
        paint_collar(canvas, *upper, chest)
        if upper[0].cut != "roll neck":  # every other collar passes behind the neck
            paint_neck(canvas, doll.skeleton, skin)
    if lower and tucked:
        paint_lower(canvas, *lower, hips_of(doll.skeleton))


def _paint_arms(canvas: Canvas, doll: Doll, outfit: Mapping[str, tuple[DollGarment, Cloth]], skin: Colour) -> None:
    arms = doll.skeleton.arms if doll.left_arm_first else doll.skeleton.arms[::-1]
    for arm in arms:
        paint_arm(canvas, arm, doll.build, skin)
        if "upper" in outfit:
            paint_sleeve(canvas, *outfit["upper"], arm.line, arm.side, 0.010)


def chest_of(skeleton: Skeleton, garment: DollGarment, inside: Colour, tucked: bool) -> Chest:
    """What this person offers an upper garment to hang on."""
    spine, build = skeleton.spine, skeleton.build
    walked = distances(spine)[-1]
    if garment.length > walked:
        end = spine[-1] + (0, garment.length - walked)
        spine = np.vstack([spine, end[None]]).astype(np.float32)
    line = part_of(spine, 0, min(garment.length, 0.215) if tucked else garment.length, 6)
    waist = 0.066 + 0.012 * build.stout + (0.006 if build.person == "man" else 0)
    return Chest(line, build.shoulder, waist, build.hip, inside, curl=0.012, tucked=tucked)


def hips_of(skeleton: Skeleton) -> Hips:
    """What this person offers a lower garment to hang on."""
    pelvis = skeleton.pelvis
    waist = np.array([0.85 * pelvis[0] + 0.15 * skeleton.waist[0], 0.368], np.float32)
    left, right = (leg.line for leg in skeleton.legs)
    return Hips(waist, pelvis, (left, right), skeleton.build.hip, curl=0.010)
