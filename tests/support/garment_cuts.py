# SPDX-License-Identifier: GPL-3.0-or-later
"""The cuts of the drawn garments: outlines, collars, seams, in units of a garment's height."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

Role = Literal["cloth", "trim", "inner", "seam", "crease"]
Points = list[tuple[float, float]]
Rng = np.random.Generator


class Piece(NamedTuple):
    """One piece of cloth, or a line on it, in units of the garment's height: x from its middle, y down."""

    role: Role
    points: Points
    radius: float = 0.02  # of its corners


def pieces_of(cut: str, rng: Rng) -> list[Piece]:
    """The pieces of a cut from the lowest to the uppermost."""
    return {**_shirts(), **_warm(), **_lower(rng), **_hung(), **_small(rng)}[cut]


def _mirrored(half: Points) -> Points:
    """A closed outline from its right half, from top to bottom."""
    return half + [(-x, y) for x, y in reversed(half) if x]


def pair(role: Role, points: Points) -> list[Piece]:
    """A piece on the right and the same on the left."""
    return [Piece(role, points), Piece(role, [(-x, y) for x, y in points])]


def strip(points: Points, width: float) -> Points:
    """A band of one width along a line whose corners are smoothed away."""
    line = np.array(points)
    for _ in range(2):
        cut = np.stack([0.75 * line[:-1] + 0.25 * line[1:], 0.25 * line[:-1] + 0.75 * line[1:]], 1).reshape(-1, 2)
        line = np.concatenate([line[:1], cut, line[-1:]])
    along = np.gradient(line, axis=0)
    across = along[:, ::-1] * (-1, 1) / np.linalg.norm(along, axis=1, keepdims=True) * width / 2
    return [(float(x), float(y)) for x, y in np.concatenate([line + across, (line - across)[::-1]])]


def disc(x: float, y: float, across: float, down: float) -> Points:
    """An ellipse around (x, y) by its half axes."""
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    return [(x + across * float(c), y + down * float(s)) for c, s in zip(np.cos(turn), np.sin(turn), strict=True)]


def _bow(half: Points, width: float) -> Points:
    """A band across the middle, from its right end to the middle."""
    return strip(half + [(-x, y) for x, y in reversed(half[:-1])], width)


def _ragged(rng: Rng) -> Points:
    """The outline of a skirt whose hem is torn."""
    hem = np.linspace(0.33, -0.33, 34) + rng.uniform(-0.006, 0.006, 34)
    depth = 0.8 + rng.uniform(0, 0.05, 34) * np.tile([1, 0.1], 17) + 0.03 * np.cos(hem * 4)
    torn = [(float(x), float(y)) for x, y in zip(hem, depth, strict=True)]
    return [(-0.17, 0), (0, 0.012), (0.17, 0), (0.2, 0.1), *torn, (-0.2, 0.1)]


def _fringe(x: float, y: float, rng: Rng) -> list[Piece]:
    ends = [
        (x + 0.016 * i, y, x + 0.016 * i + rng.uniform(-0.015, 0.015), y + rng.uniform(0.06, 0.09))
        for i in range(-4, 5)
    ]
    return [Piece("cloth", strip([(a, b), (c, d)], 0.008), 0.002) for a, b, c, d in ends]


def _top(body: Points, neck: Points, sleeve: Points) -> list[Piece]:
    """Sleeves, a body and its dark inner neck."""
    return [Piece("cloth", _mirrored(body)), *pair("cloth", sleeve), Piece("inner", _mirrored(neck))]


def _shirts() -> dict[str, list[Piece]]:
    """A tee, and a polo whose cuffs lie on its hips, so that its arms enclose some ground."""
    tee = _top(
        [(0, 0.045), (0.09, 0), (0.24, 0.05), (0.255, 0.27), (0.25, 0.75), (0, 0.76)],
        [(0, 0.045), (0.1, -0.02), (0.075, 0.085), (0.035, 0.125), (0, 0.135)],
        [(0.2, 0.045), (0.26, 0.07), (0.45, 0.28), (0.35, 0.37), (0.235, 0.27)],
    )
    tee += [Piece("trim", _bow([(0.098, 0.012), (0.09, 0.07), (0.05, 0.14), (0, 0.15)], 0.024))]
    tee += [Piece("seam", [(-0.25, 0.72), (0.25, 0.72)]), *pair("seam", [(0.43, 0.26), (0.33, 0.35)])]
    polo = _top(
        [(0, 0.05), (0.08, 0.01), (0.22, 0.07), (0.24, 0.3), (0.235, 0.84), (0, 0.845)],
        [(0, 0.04), (0.09, -0.01), (0.06, 0.07), (0, 0.12)],
        [(0.18, 0.045), (0.26, 0.1), (0.44, 0.45), (0.29, 0.74), (0.21, 0.70), (0.33, 0.45), (0.23, 0.27)],
    )
    polo += [*pair("trim", [(0.08, 0), (0.05, 0.07), (0.005, 0.115), (0.07, 0.175), (0.125, 0.06)])]
    polo += [
        *pair("seam", [(0.022, 0.13), (0.022, 0.31)]),
        *pair("trim", strip([(0.31, 0.715), (0.215, 0.68)], 0.045)),
    ]
    polo += [Piece("trim", disc(0, y, 0.008, 0.008), 0.002) for y in (0.16, 0.22, 0.28)]
    return {"tee": tee, "polo": polo}


def _warm() -> dict[str, list[Piece]]:
    """A coat, whose sleeves lie close to it, and a jumper with its arms spread."""
    coat = _top(
        [(0, 0.04), (0.07, 0), (0.2, 0.06), (0.205, 0.3), (0.19, 0.44), (0.25, 0.97), (0, 0.985)],
        [(0, 0.035), (0.09, -0.01), (0.06, 0.09), (0, 0.2)],
        [(0.16, 0.04), (0.23, 0.09), (0.355, 0.6), (0.27, 0.63), (0.195, 0.28)],
    )
    coat += [*pair("trim", strip([(0.1, 0.59), (0.18, 0.6)], 0.035)), Piece("seam", [(0.012, 0.24), (0.012, 0.98)])]
    coat += [*pair("seam", [(0.35, 0.56), (0.26, 0.59)]), Piece("trim", _bow([(0.195, 0.43), (0, 0.44)], 0.045))]
    coat += [
        *pair(
            "trim",
            [(0.085, -0.01), (0.05, 0.09), (-0.01, 0.27), (0.13, 0.2), (0.105, 0.155), (0.16, 0.13), (0.12, 0.02)],
        )
    ]
    coat += [Piece("trim", disc(x, y, 0.011, 0.011), 0.002) for x in (-0.055, 0.065) for y in (0.33, 0.52, 0.64)]
    jumper = _top(
        [(0, 0.05), (0.1, 0.01), (0.23, 0.06), (0.25, 0.35), (0.24, 0.74), (0, 0.75)],
        [(0, 0.04), (0.11, -0.01), (0.08, 0.06), (0, 0.1)],
        [(0.19, 0.04), (0.27, 0.08), (0.62, 0.62), (0.54, 0.68), (0.24, 0.33)],
    )
    jumper += [
        Piece("trim", _bow([(0.106, 0.022), (0.09, 0.08), (0, 0.12)], 0.04)),
        Piece("trim", _bow([(0.245, 0.72), (0, 0.73)], 0.06)),
    ]
    jumper += [*pair("trim", strip([(0.615, 0.6), (0.53, 0.66)], 0.06))]
    return {"coat": coat, "jumper": jumper}


def _lower(rng: Rng) -> dict[str, list[Piece]]:
    """Trousers, and a skirt with a torn hem."""
    legs = [(0, 0.012), (0.165, 0), (0.185, 0.06), (0.215, 0.25), (0.25, 0.6), (0.275, 0.99), (0.145, 0.995)]
    legs += [(0.11, 0.65), (0.025, 0.34), (0, 0.325)]
    trousers = [Piece("cloth", _mirrored(legs)), Piece("inner", _mirrored([(0, 0), (0.17, -0.01), (0, 0.045)]))]
    trousers += [
        Piece("trim", _bow([(0.18, 0.025), (0, 0.06)], 0.04)),
        *pair("seam", [(0.09, 0.07), (0.12, 0.12), (0.19, 0.14)]),
    ]
    trousers += [Piece("seam", [(0, 0.08), (0, 0.325)]), Piece("seam", [(0.03, 0.08), (0.03, 0.2), (0, 0.24)])]
    trousers += [*pair("seam", [(0.15, 0.965), (0.27, 0.96)]), *pair("crease", [(0.12, 0.3), (0.205, 0.97)])]
    skirt = [Piece("cloth", _ragged(rng), 0.006), Piece("inner", _mirrored([(0, 0), (0.175, -0.01), (0, 0.045)]))]
    skirt += [Piece("trim", _bow([(0.185, 0.025), (0, 0.06)], 0.045))]
    skirt += [Piece("crease", [(x, 0.12), (2 * x, 0.79)]) for x in (-0.13, -0.07, -0.02, 0.04, 0.1)]
    return {"trousers": trousers, "skirt": skirt}


def _hung() -> dict[str, list[Piece]]:
    """What hangs from straps: a dress, and a camisole whose straps are thin."""
    body = [(0, 0.08), (0.06, 0.06), (0.07, 0), (0.125, 0), (0.13, 0.1), (0.17, 0.19), (0.13, 0.38), (0.2, 0.6)]
    body += [(0.3, 0.95), (0.24, 0.985), (0.18, 0.97), (0.1, 0.995), (0.05, 0.98), (0, 0.995)]
    dress = [
        Piece("cloth", _mirrored(body)),
        Piece("inner", _mirrored([(0, 0.07), (0.06, 0.05), (0.08, -0.01), (0.075, 0.1), (0, 0.16)])),
    ]
    dress += [Piece("trim", _bow([(0.136, 0.375), (0, 0.39)], 0.03)), *pair("crease", [(0.04, 0.41), (0.1, 0.98)])]
    dress += [*pair("crease", [(0.09, 0.41), (0.2, 0.96)]), *pair("seam", [(0.085, 0), (0.08, 0.1), (0, 0.172)])]
    camisole = [*pair("cloth", strip([(0.105, 0.22), (0.1, 0.02), (0.075, 0.01), (0.06, 0.24)], 0.014))]
    camisole += [
        Piece("cloth", _mirrored([(0, 0.24), (0.1, 0.17), (0.15, 0.27), (0.17, 0.36), (0.2, 0.95), (0, 0.975)]))
    ]
    camisole += [
        Piece("trim", _bow([(0.145, 0.265), (0.1, 0.19), (0, 0.265)], 0.02)),
        *pair("crease", [(0.08, 0.4), (0.12, 0.95)]),
    ]
    return {"dress": dress, "camisole": camisole}


def _small(rng: Rng) -> dict[str, list[Piece]]:
    """A hat, and a scarf laid in a ring, with fringes."""
    brim = disc(0, 0.38, 0.5, 0.12)
    hat = [
        Piece("cloth", brim),
        Piece("cloth", _mirrored([(0, 0.03), (0.1, 0), (0.2, 0.04), (0.25, 0.36), (0.12, 0.42), (0, 0.43)]), 0.05),
    ]
    hat += [
        Piece("trim", _bow([(0.247, 0.33), (0.12, 0.385), (0, 0.39)], 0.07)),
        Piece("crease", [(-0.02, 0.05), (0.03, 0.2)]),
    ]
    ring = [(-0.01, 0.02), (0.14, 0.03), (0.2, 0.17), (0.13, 0.3), (0, 0.38)]
    scarf = [Piece("cloth", strip([(-x, y) for x, y in ring], 0.11)), Piece("cloth", strip(ring, 0.12))]
    scarf += [Piece("cloth", strip([(0.02, 0.38), (0.05, 0.6), (0.12, 0.82)], 0.15)), *_fringe(0.12, 0.79, rng)]
    scarf += [Piece("cloth", strip([(0, 0.36), (-0.09, 0.6), (-0.09, 0.95)], 0.15)), *_fringe(-0.09, 0.935, rng)]
    scarf += [Piece("cloth", disc(0, 0.38, 0.1, 0.075))]
    return {"hat": hat, "scarf": scarf}
