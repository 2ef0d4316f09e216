# SPDX-License-Identifier: GPL-3.0-or-later
"""Cutting a garment out of a photograph: plain grounds and studio gradients, soft shadows too, without any weights.

The picture's border tells what its ground looks like, as a smooth surface of colour that is fitted again to all that is
found to lie on it. A shadow is the same colour, darker. What is surely ground and what surely is not then grow towards
each other until they meet at the strongest edge (watershed), and along that edge each pixel goes to the side whose
colours nearby it has. Where that would be guessing, the answer is no.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[Any]
"""Colours (h, w, 3), in RGB of 8 bits or in Lab, or one number at each pixel (h, w)."""

Mask = NDArray[np.bool_]

SIDE = 512
"""Pixels of the longer side at which is looked."""

SHARPEST, VAGUEST = 2.0, 7.0
"""Least and most that ground may differ from its surface, in Lab (delta E), whatever its noise."""

PATTERNED = 1.6
"""Ground whose own colours are spread wider than this around its surface is no plain one."""

LEAST_BORDER = 0.5
"""Of the border must be ground."""

LEAST_SHARE, MOST_SHARE = 0.01, 0.92
"""Of the picture that a garment takes."""

DARKEST, BRIGHTEST = 0.12, 1.15
"""Shadow and light: the share of the ground's own brightness that is left."""

STRIPE = 10
"""Half the widest stripe of the ground's colour that still counts as the garment's."""

LEAST_CONTRAST = 3.0
"""Garment and ground differ by as much along their edge, in Lab, or nobody can tell them apart there."""

MOST_WEAK = 0.25
"""Of the edge that may be weaker."""

SOFTEST, MOST_STRAY = 1.5, 2.5
"""Where L changes by more than this in a pixel something has an edge; so many of the outline's length may lie beyond it."""


@dataclass(frozen=True)
class CutOut:
    """mask: (H, W), whether a pixel shows the garment; None when that could not be told. doubt: why not, or what to look at."""

    mask: Mask | None
    doubt: str = ""


@dataclass(frozen=True)
class _Ground:
    """colours: Lab of the ground at every pixel, (h, w, 3). spread: of what is ground around it. distance: of every pixel
    from it, (h, w). near: what is as near as ground is. reached: what of that reaches the border.
    """

    colours: Field
    spread: float
    distance: Field
    near: Mask
    reached: Mask

    @property
    def tolerance(self) -> float:
        return _tolerance(self.spread)

    @property
    def of_border(self) -> float:
        """The share of the border that is ground."""
        return float(self.reached[_ring(self.reached.shape)].mean())


def cut_out(picture: Field) -> CutOut:
    """Tell the one garment of a photograph (H, W, 3) in RGB from its ground."""
    import cv2

    height, width = picture.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    soft = cv2.bilateralFilter(cv2.medianBlur(small, 3), 5, 12, 2)
    lab = _lab(soft)
    ground = _ground_of(lab)
    if ground.of_border < LEAST_BORDER:
        return CutOut(None, "its ground is not plain")
    clues = _clues(ground, _shade(soft, lab, ground))
    markers = _markers(clues)
    if not (markers == _GARMENT).any():
        return CutOut(None, "nothing differs from its ground")
    cv2.watershed(soft, markers)
    mask = _settled(_dilated(markers == _GARMENT, 1) & (markers != _GROUND), _lab(small))
    mask = _whole(_opened(mask, 2), ground.reached | (markers == _GROUND), clues.striped)
    doubt = _doubt(mask, lab, ground.spread)
    if doubt:
        return CutOut(None, doubt)
    full = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    return CutOut(full, clues.remark)


_GROUND, _GARMENT = 1, 2


def _ground_of(lab: Field) -> _Ground:
    """Fit the ground's surface to the border, then to ever more of what lies on it."""
    ring = _ring(lab.shape[:2])
    colours, spread = _surface(lab, 1, ring)
    for degree in (1, 2, 3, 4):
        near = _distance(lab, colours) < 1.5 * _tolerance(spread)
        found = _reaching(near)
        if found.sum() < ring.sum() / 4:
            break
        colours, spread = _surface(lab, degree, found | (ring & near))
    distance, tolerance = _distance(lab, colours), _tolerance(spread)
    near = distance < tolerance
    return _Ground(colours, spread, distance, near, _reaching(near | (ring & (distance < 1.5 * tolerance))))


def _surface(lab: Field, degree: int, known: Mask) -> tuple[Field, float]:
    """A polynomial of colour through what is known, which outliers do not bend, and how far its own lie around it."""
    height, width = lab.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    basis = np.stack([x**i * y**j for i in range(degree + 1) for j in range(degree + 1 - i)], axis=-1)
    where = np.flatnonzero(known)
    where = where[:: len(where) // 6000 + 1]
    terms, colours = basis.reshape(-1, basis.shape[-1])[where], lab.reshape(-1, 3)[where]
    factors, spread, weights = np.zeros((basis.shape[-1], 3), np.float32), 0.0, np.ones(len(where), np.float32)
    for _ in range(8):  # iteratively reweighted least squares
        factors = np.linalg.lstsq(terms * weights[:, None], colours * weights[:, None], rcond=None)[0]
        away = np.linalg.norm(colours - terms @ factors, axis=1)
        spread = max(0.5, 1.4826 * float(np.median(away)))
        weights = (1 / (1 + (away / (2 * spread)) ** 2)).astype(np.float32)
    return basis @ factors, spread


def _shade(picture: Field, lab: Field, ground: _Ground) -> Mask:
    """Where the picture has the ground's own colour, in shadow or in light: it keeps its proportions, and so its hue."""
    import cv2

    own = _linear(np.clip(cv2.cvtColor(ground.colours.astype(np.float32), cv2.COLOR_LAB2RGB), 0, 1))
    seen = _linear(picture.astype(np.float32) / 255)
    light = np.array([0.2126, 0.7152, 0.0722], np.float32)
    left = (seen @ light + 0.004) / (own @ light + 0.004)
    shaded = np.clip(own * left[..., None], 0, 1)
    encoded = np.where(shaded <= 0.0031308, 12.92 * shaded, 1.055 * shaded ** (1 / 2.4) - 0.055)
    expected = cv2.cvtColor(encoded.astype(np.float32), cv2.COLOR_RGB2LAB)
    hue = _distance(lab[..., 1:], expected[..., 1:])
    allowed = max(3.0, 1.2 * ground.tolerance) + 5 * np.clip(1 - left, 0, 1)  # shadows are lit by the sky
    return (hue < allowed) & (left > DARKEST) & (left < BRIGHTEST)


@dataclass(frozen=True)
class _Clues:
    """What colours tell. sure: what is ground. like: what may be, for its hue. other: what has another colour.

    striped: the garment's pattern has the ground's colour, and `other` is closed over it. by_hue: none of it has.
    """

    sure: Mask
    like: Mask
    other: Mask
    striped: bool
    by_hue: bool

    @property
    def is_pale(self) -> bool:
        """Whether colour hardly tells anything: a grey garment on grey, darker or lighter."""
        return bool(self.other.sum() < 0.25 * _opened(~self.sure, 2).sum())

    @property
    def remark(self) -> str:
        """What to look at, told by so little."""
        if self.striped:
            return "its pattern has the ground's own colour: look at its outline"
        return "it has the ground's own hue: look at its outline" if self.is_pale else ""


def _clues(ground: _Ground, shade: Mask) -> _Clues:
    import cv2

    sure, other = ground.reached, _opened(~shade & (ground.distance > 1.5 * ground.tolerance), 2)
    wide = np.pad(other, 2 * STRIPE).astype(np.uint8)
    within = slice(2 * STRIPE, -2 * STRIPE)
    closed = cv2.morphologyEx(wide, cv2.MORPH_CLOSE, _disc(STRIPE))[within, within] > 0
    stripes = closed & shade & ~other
    striped = bool(stripes.sum() > 0.1 * other.sum() and (_areas(stripes)[1] > 0.0003 * shade.size).sum() > 5)
    if striped:
        other, sure = closed, sure & ~_dilated(closed, STRIPE + 2)
    like = (ground.near | shade) & ~other
    body = ~_reaching(~other) & ~_gaps(like & ~sure, sure)
    by_hue = not striped and bool(other.sum() > max(0.9 * body.sum(), 0.4 * (~sure).sum()))
    return _Clues(sure | _gaps(like & ~sure, sure, None if by_hue else ground), like, other, striped, by_hue)


def _markers(clues: _Clues) -> NDArray[np.int32]:
    """What surely is ground, 1, and garment, 2; 0 is open."""
    depth = _depth(~clues.sure)
    markers = np.zeros(depth.shape, np.int32)
    known = _eroded(clues.sure, 1)
    inner = _eroded(clues.other, 3) & ~known
    if clues.is_pale:  # what lies deepest must be it
        inner |= (depth > max(4, 0.6 * depth.max())) & ~known
    if clues.by_hue:  # then all that has the ground's hue is its shadow
        known |= _eroded(_opened(_reaching(clues.like), 2), 1)
    markers[known] = _GROUND
    markers[inner] = _GARMENT
    return markers


def _depth(mask: Mask) -> Field:
    """How far within a mask, thin parts left out, each pixel lies."""
    import cv2

    return cv2.distanceTransform(_opened(mask, 2).astype(np.uint8), cv2.DIST_L2, 5)


def _gaps(like: Mask, outside: Mask, ground: _Ground | None = None) -> Mask:
    """Ground that a garment encloses, between arm and body for one. Many such spots are its pattern, and so are deep ones.

    ground: whose brightness, too, a spot must have; None takes any of its hue.
    """
    import cv2

    labels, areas = _areas(like)
    beside, away = _dilated(outside, 2), cv2.distanceTransform((~outside).astype(np.uint8), cv2.DIST_L2, 5)
    found = []
    for label in np.flatnonzero(areas > 0.002 * like.size) + 1:
        spot = labels == label
        bright = ground is None or np.median(ground.distance[spot]) < 2 * ground.tolerance
        if bright and not (beside & spot).any() and away[spot].min() < 0.6 * away.max():
            found.append(label)
    return np.isin(labels, found) if len(found) <= 3 else np.zeros_like(like)


def _settled(mask: Mask, lab: Field) -> Mask:
    """Give each pixel along the edge to the side whose mean colour nearby is nearer, three times."""
    import cv2

    for _ in range(3):
        inside, outside = _depths(mask)
        within, known_within = _mean_near(lab, (inside > 1.5) & (inside < 7))
        beyond, known_beyond = _mean_near(lab, (outside > 1.5) & (outside < 7))
        band = np.maximum(inside, outside) <= 2.5
        nearer = _distance(lab, within) < _distance(lab, beyond)
        mask = np.where(band & known_within & known_beyond, nearer, mask)
        mask = cv2.medianBlur(mask.astype(np.uint8), 3) > 0
    return mask


def _whole(mask: Mask, ground: Mask, striped: bool) -> Mask:
    """Without crumbs, and without holes but those that are ground."""
    import cv2

    labels, areas = _areas(mask)
    if not len(areas):
        return mask
    if striped:
        kept = np.isin(labels, np.flatnonzero(areas >= 0.01 * areas.max()) + 1).astype(np.uint8)
        mask = cv2.morphologyEx(kept, cv2.MORPH_CLOSE, _disc(STRIPE - 1)) > 0
        labels, areas = _areas(mask)
    mask = np.isin(labels, np.flatnonzero(areas >= 0.1 * areas.max()) + 1)
    holes, areas = _areas(~mask & ~_reaching(~mask))
    for label in range(1, len(areas) + 1):
        hole = holes == label
        if ground[hole].mean() <= 0.3:
            mask[hole] = True
    return mask


def _doubt(mask: Mask, lab: Field, spread: float) -> str:
    """Why what was found is hardly one whole garment; nothing when it is."""
    if not LEAST_SHARE < mask.mean() < MOST_SHARE:
        return (
            "next to nothing differs from its ground"
            if mask.mean() < 0.5
            else "next to all of it differs from its border"
        )
    if len(_areas(mask)[1]) > 1:
        return "it shows several things"
    if spread > PATTERNED:
        return "its ground is not plain"
    inside, outside = _depths(mask)
    within, _ = _mean_near(lab, (inside > 2) & (inside <= 5), 11)
    beyond, _ = _mean_near(lab, (outside > 2) & (outside <= 5), 11)
    edge = (inside > 0) & (inside <= 1) & ~_ring(mask.shape, 2)
    weak = _distance(within, beyond) < max(LEAST_CONTRAST, 2 * spread)
    stray = _slopes(lab) & (outside > 6) & ~_ring(mask.shape, 4)
    alike = edge.any() and (weak[edge].mean() > MOST_WEAK or stray.sum() > MOST_STRAY * edge.sum())
    return "garment and ground are too much alike" if alike else ""


def _slopes(lab: Field) -> Mask:
    """Where brightness changes by more than a soft shadow does."""
    import cv2

    along, across = (cv2.Sobel(cv2.GaussianBlur(lab[..., 0], (0, 0), 1), -1, x, 1 - x, scale=1 / 8) for x in (1, 0))
    return np.hypot(along, across) > SOFTEST


def _lab(picture: Field) -> Field:
    """A picture in RGB as CIE Lab, L 0 to 100."""
    import cv2

    return cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def _linear(rgb: Field) -> Field:
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _tolerance(spread: float) -> float:
    return float(np.clip(3.5 * spread, SHARPEST, VAGUEST))


def _distance(colours: Field, others: Field) -> Field:
    return np.linalg.norm(colours - others, axis=2)


def _ring(size: tuple[int, ...], width: int = 0) -> Mask:
    """The picture's border, some pixels wide."""
    width = width or max(3, round(0.015 * min(size)))
    ring = np.ones(size, bool)
    ring[width:-width, width:-width] = False
    return ring


def _areas(mask: Mask) -> tuple[Field, Field]:
    """Its pieces, numbered from 1, and the area of each."""
    import cv2

    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    return labels, stats[1:, cv2.CC_STAT_AREA]


def _reaching(mask: Mask) -> Mask:
    """What of it hangs together with the picture's border."""
    labels, _ = _areas(mask)
    border = np.unique(labels[_ring(mask.shape, 1)])
    return np.isin(labels, border[border > 0])


def _depths(mask: Mask) -> tuple[Field, Field]:
    """How far each pixel is from the other side: within, 0 beyond; and beyond, 0 within."""
    import cv2

    first, second = (cv2.distanceTransform(part.astype(np.uint8), cv2.DIST_L2, 5) for part in (mask, ~mask))
    return first, second


def _mean_near(lab: Field, chosen: Mask, width: int = 13) -> tuple[Field, Mask]:
    """The mean colour of what is chosen around each pixel, and where there is enough of it."""
    import cv2

    share = cv2.boxFilter(chosen.astype(np.float32), -1, (width, width), normalize=False)
    total = cv2.boxFilter(lab * chosen[..., None], -1, (width, width), normalize=False)
    return total / np.maximum(share, 1)[..., None], share > 3


def _disc(radius: int) -> Field:
    import cv2

    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def _opened(mask: Mask, radius: int) -> Mask:
    import cv2

    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, _disc(radius)) > 0


def _dilated(mask: Mask, radius: int) -> Mask:
    import cv2

    return cv2.dilate(mask.astype(np.uint8), _disc(radius)) > 0


def _eroded(mask: Mask, radius: int) -> Mask:
    """As if the mask went on beyond the picture."""
    import cv2

    return cv2.erode(mask.astype(np.uint8), _disc(radius)) > 0
