# SPDX-License-Identifier: GPL-3.0-or-later
"""Bodies: a build, a pose, the joints that follow from both, and skin over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .canvas import Canvas, Points, ellipse, moved
from .colours import CLOTH_COLOURS, WHITE, Colour, darker, luminance
from .strips import curve, paint_limb, paint_line

PEOPLE = ("woman", "man")
SIDES = (-1, 1)  # the viewer's left and right
UPPER_ARM, FOREARM = 0.138, 0.126

# What each arm does, viewer's left then right; a doll may be mirrored.
POSES: dict[str, tuple[str, str]] = {
    "standing": ("hang", "hang"),
    "walking": ("swing", "swing"),
    "waving": ("hang", "wave"),
    "hand on hip": ("hang", "hip"),
    "hands on hips": ("hip", "hip"),
    "arms crossed": ("cross", "cross"),
    "arms out": ("spread", "spread"),
    "cheering": ("raise", "raise"),
}


@dataclass(frozen=True)
class Build:
    """The measures of a body, in units. shoulder, hip: half widths. stout: 0 slender to 1 sturdy."""

    person: str
    shoulder: float
    hip: float
    stout: float


@dataclass(frozen=True)
class Arm:
    """Shoulder, elbow and wrist of one arm."""

    side: int
    joints: Points

    @property
    def line(self) -> Points:
        """Its centre line, from the shoulder to the wrist."""
        return curve(self.joints, 9)

    @property
    def along(self) -> Points:
        """The direction of its forearm and hand, (2,), of length 1."""
        forearm = self.joints[2] - self.joints[1]
        return forearm / np.linalg.norm(forearm)

    @property
    def hand(self) -> Points:
        """The middle of its hand, (2,)."""
        return self.joints[2] + 0.020 * self.along


@dataclass(frozen=True)
class Leg:
    """Hip, knee and ankle of one leg."""

    side: int
    joints: Points

    @property
    def line(self) -> Points:
        """Its centre line, from the hip to the ankle."""
        return curve(self.joints, 7)


@dataclass(frozen=True)
class Head:
    """Where the head is; its own coordinates start in the middle of the face and tilt with it."""

    x: float
    y: float
    tilt: float

    def at(self, points: ArrayLike) -> Points:
        """Turn places of the head, (n, 2) in units around its middle, into places of the doll."""
        turn = np.array([[np.cos(self.tilt), np.sin(self.tilt)], [-np.sin(self.tilt), np.cos(self.tilt)]])
        return moved(np.asarray(points, np.float64) @ turn, self.x, self.y)

    def ellipse(self, x: float, y: float, across: float, down: float, turn: float = 0.0) -> Points:
        """The outline of an ellipse on the head."""
        return self.at(ellipse(x, y, across, down, turn))


@dataclass(frozen=True)
class Skeleton:
    """The joints of a posed body; points are (2,) in units."""

    build: Build
    head: Head
    neck: Points
    chest: Points
    waist: Points
    pelvis: Points
    arms: tuple[Arm, Arm]
    legs: tuple[Leg, Leg]

    @property
    def spine(self) -> Points:
        """The centre line of the torso, from the base of the neck to between the legs."""
        return curve([self.neck, self.chest, self.waist, self.pelvis], 7)


def draw_build(rng: np.random.Generator, person: str) -> Build:
    """Draw the measures of a body."""
    stout = float(rng.uniform(0, 1))
    shoulder, hip = (0.088, 0.080) if person == "man" else (0.080, 0.082)
    return Build(
        person,
        shoulder + 0.006 * stout + rng.uniform(-0.002, 0.002),
        hip + 0.010 * stout + rng.uniform(-0.003, 0.003),
        stout,
    )


def draw_skeleton(rng: np.random.Generator, build: Build, pose: str) -> Skeleton:
    """Draw the joints of a body of this build in this pose."""
    lean, sway = rng.uniform(-0.016, 0.016), rng.uniform(-0.015, 0.015)
    arms, mirrored = POSES[pose], rng.random() < 0.5
    if mirrored:
        arms = arms[::-1]
    head = Head(1.5 * lean + rng.uniform(-0.005, 0.005), 0.080, rng.uniform(-0.09, 0.09) + 2 * lean)
    return Skeleton(
        build,
        head,
        neck=np.array([lean, 0.162], np.float32),
        chest=np.array([0.7 * lean + 0.2 * sway, 0.250], np.float32),
        waist=np.array([0.2 * lean + 0.8 * sway, 0.352], np.float32),
        pelvis=np.array([sway, 0.446], np.float32),
        arms=tuple(_arm(rng, arm, side, lean, sway, build) for arm, side in zip(arms, SIDES, strict=True)),  # type: ignore[arg-type]
        legs=_legs(rng, pose, sway, build, mirrored),
    )


def _towards(start: Points, side: int, angle: float, length: float) -> Points:
    """The point `length` away; the angle is counted outwards from straight down."""
    return start + np.array([side * np.sin(angle), np.cos(angle)]) * length


def _arm(rng: np.random.Generator, arm: str, side: int, lean: float, sway: float, build: Build) -> Arm:
    shoulder = np.array([0.9 * lean + side * (build.shoulder - 0.008), 0.203])
    if arm == "hip":
        elbow = _towards(shoulder, side, 0.80, UPPER_ARM)
        wrist = np.array([sway + side * (build.hip + 0.008), 0.388])
    elif arm == "cross":
        elbow = _towards(shoulder, side, 0.26, UPPER_ARM)
        wrist = np.array([0.5 * lean - side * 0.052, 0.292 if side > 0 else 0.276])
    else:
        upper, bend = {
            "hang": (rng.uniform(0.12, 0.32), rng.uniform(-0.26, -0.02)),
            "swing": (rng.uniform(0.2, 0.42), rng.uniform(-0.8, -0.3)),
            "wave": (rng.uniform(1.2, 1.75), rng.uniform(1.0, 1.5)),
            "spread": (rng.uniform(0.8, 1.05), rng.uniform(-0.3, 0.05)),
            "raise": (rng.uniform(2.15, 2.45), rng.uniform(0.15, 0.5)),
        }[arm]
        elbow = _towards(shoulder, side, upper, UPPER_ARM)
        wrist = _towards(elbow, side, upper + bend, FOREARM)
    return Arm(side, np.stack([shoulder, elbow, wrist]).astype(np.float32))


def _legs(rng: np.random.Generator, pose: str, sway: float, build: Build, mirrored: bool) -> tuple[Leg, Leg]:
    apart = rng.uniform(0.016, 0.032) if pose in ("walking", "cheering") else rng.uniform(0.0, 0.02)
    legs = []
    for side in SIDES:
        lifted = pose == "walking" and (side < 0) == mirrored
        lift = 0.032 if lifted else 0.0
        bend = rng.uniform(-0.006, 0.010)
        thigh = 0.043 + 0.3 * (build.hip - 0.08)
        hip = np.array([sway + side * thigh, 0.428])
        knee = np.array([0.6 * sway + side * (thigh + 0.003 + apart + bend), 0.632 - 0.3 * lift])
        ankle = np.array([side * (0.047 + 1.9 * apart + 0.5 * lift), 0.812 - lift])
        legs.append(Leg(side, np.stack([hip, knee, ankle]).astype(np.float32)))
    return legs[0], legs[1]


def paint_legs(canvas: Canvas, skeleton: Skeleton, skin: Colour, shoes: Colour, socks: Colour | None) -> None:
    """Paint bare legs, and shoes."""
    thick = 1 + 0.12 * skeleton.build.stout
    widths = [(0.0, 0.043), (0.25, 0.040), (0.5, 0.029), (0.62, 0.030), (1.0, 0.0175)]
    for leg in skeleton.legs:
        paint_limb(canvas, leg.line, [(place, thick * width) for place, width in widths], skin)
        if socks is not None:
            line = np.stack([leg.joints[2] - (0, 0.034), moved(leg.joints[2], 0, 0.006)])
            paint_limb(canvas, line, [(0, 0.0205), (1, 0.019)], socks, rounded=(False, True))
        _paint_shoe(canvas, leg, shoes)


def _paint_shoe(canvas: Canvas, leg: Leg, colour: Colour) -> None:
    x, y = leg.joints[2]
    toe = x + leg.side * 0.016
    sole = WHITE * 0.93 if luminance(colour) < 0.75 else CLOTH_COLOURS["grey"]
    line = curve([(x, y + 0.003), (x + leg.side * 0.003, y + 0.016), (toe, y + 0.023)], 5)
    paint_limb(canvas, line, [(0, 0.0185), (1, 0.0205)], colour * 0.97)
    left, right = sorted((x - leg.side * 0.017, toe + leg.side * 0.023))
    canvas.fill(
        [(left, y + 0.035), (right, y + 0.035), (right - 0.002, y + 0.044), (left + 0.002, y + 0.044)], sole, "person"
    )
    for step in (0.0, 0.35):  # laces
        lace = [
            (x - 0.008 + leg.side * 0.016 * step, y + 0.010 + 0.016 * step),
            (x + 0.008 + leg.side * 0.016 * step, y + 0.012 + 0.016 * step),
        ]
        paint_line(canvas, np.array(lace, np.float32), [(0, 0.0016), (1, 0.0016)], sole)


def paint_torso(canvas: Canvas, skeleton: Skeleton, skin: Colour) -> None:
    """Paint the bare torso."""
    build = skeleton.build
    widths = [
        (0.0, 0.034),
        (0.09, build.shoulder - 0.010),
        (0.3, build.shoulder - 0.016),
        (0.62, 0.056 + 0.012 * build.stout),
        (1.0, build.hip - 0.008),
    ]
    paint_limb(canvas, skeleton.spine, widths, skin, rounded=(False, False))


def paint_neck(canvas: Canvas, skeleton: Skeleton, skin: Colour) -> None:
    """Paint the neck, from under the chin to its base."""
    build = skeleton.build
    chin = skeleton.head.at([(0, 0.045)])[0]
    line = np.stack([chin, moved(skeleton.neck, 0, 0.014)])
    thick = 0.023 if build.person == "man" else 0.0205
    paint_limb(
        canvas,
        line,
        [(0, thick), (1, thick + 0.003)],
        darker(skin, 0.08),
        rounded=(False, True),
        outline=0.2,
        volume=0.1,
    )


def paint_arm(canvas: Canvas, arm: Arm, build: Build, skin: Colour) -> None:
    """Paint a bare arm and its hand."""
    thick = 0.92 + 0.16 * build.stout + (0.06 if build.person == "man" else 0)
    widths = [(0.0, 0.026 * thick), (0.5, 0.0205 * thick), (1.0, 0.0150)]
    paint_limb(canvas, arm.line, widths, skin)
    wrist, along = arm.joints[2], arm.along
    # The thumb is on the side of the body for a hanging arm, on the side of the head for a raised one.
    beside = np.array([along[1], -along[0]]) * (-arm.side if along[1] > 0 else arm.side)
    thumb = curve([wrist + along * 0.006 + beside * 0.010, wrist + along * 0.020 + beside * 0.019], 3)
    paint_limb(canvas, thumb, [(0, 0.0062), (1, 0.0052)], skin, outline=0.4)
    palm = curve([wrist, wrist + along * 0.027], 3)
    paint_limb(canvas, palm, [(0, 0.0155), (0.6, 0.0170), (1, 0.0130)], skin)


def paint_shadow(canvas: Canvas, skeleton: Skeleton) -> None:
    """Darken the ground under the feet."""
    feet = [leg.joints[2][0] for leg in skeleton.legs]
    reach = 0.5 * (max(feet) - min(feet)) + 0.085
    for part, amount in ((1.0, 0.10), (0.88, 0.10), (0.74, 0.08)):
        canvas.shade(ellipse(float(np.mean(feet)), 0.851, part * reach, part * 0.018), amount)
