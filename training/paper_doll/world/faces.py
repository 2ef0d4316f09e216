# SPDX-License-Identifier: GPL-3.0-or-later
"""Faces: friendly ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .body import SIDES, Head
from .canvas import Canvas, Points
from .colours import WHITE, Colour, darker, rgb
from .strips import curve, paint_limb, paint_line

EYES = tuple(rgb(code) for code in ("3a2c2a", "4a3222", "3f5d46", "37557d"))
LASH, BLUSH, LIPS = rgb("2b2224"), rgb("f08080"), rgb("c8585c")
GLASSES = tuple(rgb(code) for code in ("2b2a30", "8a3b3b", "b58a3a"))
MOUTHS = ("smile", "laugh", "calm")


@dataclass(frozen=True)
class Face:
    """What a face shows; `glasses` is the colour of their frame, None without."""

    person: str
    eyes: Colour
    gaze: float
    mouth: str
    glasses: Colour | None
    freckles: bool
    beard: bool


def draw_face(rng: np.random.Generator, person: str) -> Face:
    """Draw a face."""
    return Face(
        person,
        eyes=EYES[rng.integers(len(EYES))],
        gaze=float(rng.uniform(-0.004, 0.004)),
        mouth=MOUTHS[rng.integers(len(MOUTHS))],
        glasses=GLASSES[rng.integers(len(GLASSES))] if rng.random() < 0.18 else None,
        freckles=bool(rng.random() < 0.15),
        beard=bool(person == "man" and rng.random() < 0.25),
    )


def paint_face(canvas: Canvas, head: Head, face: Face, skin: Colour, hair: Colour) -> None:
    """Paint the head without its hair."""
    for side in SIDES:
        canvas.fill(head.ellipse(side * 0.050, 0.010, 0.0090, 0.0130), darker(skin, 0.12), "person")
        canvas.fill(head.ellipse(side * 0.0505, 0.010, 0.0045, 0.0080), darker(skin, 0.22), "person")
    skull = head.at(curve([(0, -0.034), (0, 0.010), (0, 0.056)], 5))
    widths = [(0, 0.047), (0.4, 0.0515), (0.72, 0.042), (1, 0.0175)]
    paint_limb(canvas, skull, widths, skin, outline=0.45, volume=0.1)
    if face.beard:
        _paint_beard(canvas, head, hair)
    for side in SIDES:
        _paint_eye(canvas, head, face, side, hair)
        canvas.fill(head.ellipse(face.gaze + side * 0.030, 0.030, 0.0095, 0.0060), BLUSH, "person", 0.3)
    if face.freckles:
        for x, y in ((-0.024, 0.022), (-0.018, 0.026), (-0.029, 0.027), (0.024, 0.022), (0.018, 0.026), (0.029, 0.027)):
            canvas.fill(head.ellipse(x, y, 0.0013, 0.0013), darker(skin, 0.35), "person", 0.7)
    nose = head.at(curve([(face.gaze + 0.001, 0.014), (face.gaze + 0.0045, 0.0265), (face.gaze - 0.001, 0.0285)], 6))
    paint_line(canvas, nose, [(0, 0.0008), (1, 0.0016)], darker(skin, 0.26))
    _paint_mouth(canvas, head, face, skin)
    if face.glasses is not None:
        _paint_glasses(canvas, head, face, face.glasses)


def _paint_eye(canvas: Canvas, head: Head, face: Face, side: int, hair: Colour) -> None:
    x, y = face.gaze + side * 0.0195, 0.011
    canvas.fill(head.ellipse(x, y, 0.0082, 0.0074), WHITE, "person")
    canvas.fill(head.ellipse(x + 0.3 * face.gaze, y + 0.0006, 0.0054, 0.0064), face.eyes, "person")
    canvas.fill(head.ellipse(x + 0.3 * face.gaze, y + 0.0010, 0.0028, 0.0036), LASH, "person")
    canvas.fill(head.ellipse(x + 0.0018, y - 0.0020, 0.0018, 0.0018), WHITE, "person")
    lid = head.at(curve([(x - side * 0.0078, y - 0.0035), (x, y - 0.0080), (x + side * 0.0098, y - 0.0045)], 7))
    lash = 0.0022 if face.person == "woman" else 0.0014
    paint_line(canvas, lid, [(0, 0.0010), (1, lash)], LASH)
    brow = head.at(curve([(x - side * 0.010, y - 0.0165), (x, y - 0.0200), (x + side * 0.0115, y - 0.0160)], 7))
    thick = 0.0029 if face.person == "man" else 0.0020
    paint_line(canvas, brow, [(0, thick), (1, 0.5 * thick)], darker(hair, 0.25))


def _paint_mouth(canvas: Canvas, head: Head, face: Face, skin: Colour) -> None:
    lips = LIPS if face.person == "woman" else darker(skin, 0.38)
    x, y = face.gaze, 0.0415
    if face.mouth == "laugh":
        angle = np.linspace(0, np.pi, 14)
        smile = np.stack([x + 0.0140 * np.cos(angle), y - 0.002 + 0.0105 * np.sin(angle)], axis=1)
        canvas.fill(head.at(smile), rgb("8c3038"), "person")
        canvas.fill(head.at(smile * (0.82, 0.34) + (0.18 * x, 0.66 * (y - 0.002))), WHITE, "person")
        return
    rise = 0.0058 if face.mouth == "smile" else 0.0022
    line = head.at(curve([(x - 0.0125, y - 0.4 * rise), (x, y + 0.6 * rise), (x + 0.0125, y - 0.4 * rise)], 7))
    paint_line(canvas, line, [(0, 0.0010), (0.5, 0.0026), (1, 0.0010)], lips)


def _paint_beard(canvas: Canvas, head: Head, hair: Colour) -> None:
    cheek = [(-0.0505, 0.004), (-0.047, 0.030), (-0.036, 0.055), (-0.018, 0.073), (0, 0.077)]
    inner = [(0, 0.030), (-0.016, 0.032), (-0.030, 0.028), (-0.044, 0.004)]
    half = np.array(cheek + inner)
    outline = np.vstack([half[:5], (half * (-1, 1))[4::-1], (half * (-1, 1))[:4:-1], half[5:]])
    canvas.fill(head.at(outline), darker(hair, 0.12), "person")


def _paint_glasses(canvas: Canvas, head: Head, face: Face, frame: Colour) -> None:
    def rim(x: float) -> Points:
        angle = np.linspace(0, 2 * np.pi, 17)
        return head.at(np.stack([x + 0.0145 * np.cos(angle), 0.0115 + 0.0135 * np.sin(angle)], axis=1))

    for side in SIDES:
        middle = face.gaze + side * 0.0195
        canvas.fill(rim(middle), WHITE, "person", 0.18)
        paint_line(canvas, rim(middle), [(0, 0.0013), (1, 0.0013)], frame)
        temple = head.at([(middle + side * 0.0145, 0.010), (side * 0.050, 0.006)])
        paint_line(canvas, temple, [(0, 0.0012), (1, 0.0012)], frame)
    bridge = head.at([(face.gaze - 0.005, 0.010), (face.gaze + 0.005, 0.010)])
    paint_line(canvas, bridge, [(0, 0.0013), (1, 0.0013)], frame)
