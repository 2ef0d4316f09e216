# SPDX-License-Identifier: GPL-3.0-or-later
"""The plain ground that a garment lies on: shops photograph on white, on (246, 246, 246), on grey, and seldom say so.

The picture's own border tells its colour. Where the border has no colour of its own, only near-white is ground.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .latents import CELL

NEAR_WHITE = 0.94
"""Pixels at least this bright in every channel (in [-1, 1]) are white ground: 248 of 255, below JPEG noise."""

WHITE_BORDER = 2 * 252 / 255 - 1
"""A border at least this bright in every channel is white, and its ground everything near white."""

TOLERANCE = 2 * 4.5 / 255
"""How far ground of any other colour may be from the border's, in every channel (in [-1, 1]): 4 of 255."""

RING = 2  # pixels of the border that are looked at
MOST_OF_BORDER = 0.5  # of it must have the colour
WHOLE_LINE = 0.99  # of a row or column of a letterbox's bar
CROSSES = 0.1  # of the row beyond a bar's edge, at most, may still have the bar's colour
LEAST_LEFT = 0.01  # of the picture, or there was no bar


def ground_cells(picture: Tensor, canvas: tuple[int, int], corner: tuple[int, int] = (0, 0)) -> Tensor:
    """Which latent cells of a canvas show nothing but ground that reaches the picture's border.

    picture: (1, 3, H, W) in [-1, 1]. canvas: its height and width in pixels, in whole cells. corner: where the
    picture's top left pixel lies on it; what lies around the picture is ground. Returns (h, w) bool.
    """
    like = torch.ones(1, 1, *canvas)
    top, left = corner
    like[..., top : top + picture.shape[-2], left : left + picture.shape[-1]] = ground_like(picture)
    whole = -functional.max_pool2d(-like, CELL)  # a cell is ground when each of its pixels is
    reached = torch.zeros_like(functional.pad(whole, (1, 1, 1, 1)))
    reached[..., 0, :] = reached[..., -1, :] = reached[..., :, 0] = reached[..., :, -1] = 1.0
    open_cells = functional.pad(whole, (1, 1, 1, 1), value=1.0)
    while True:
        grown = _spread(reached) * open_cells
        if torch.equal(grown, reached):
            return reached[0, 0, 1:-1, 1:-1] > 0
        reached = grown


def ground_like(picture: Tensor) -> Tensor:
    """Which pixels of a picture (1, 3, H, W) in [-1, 1] have its ground's colour: (1, 1, H, W), 1 or 0.

    The bars of a letterbox are ground whatever their colour is, and what lies between them has a ground of its own.
    """
    ground = _like_border(picture)
    for across in (False, True):
        inner = _between_bars(ground, across)
        if inner is None:
            continue
        within = torch.ones_like(ground)
        within[inner] = _like_border(picture[inner])
        if float((within == 0).float().mean()) > LEAST_LEFT:
            return within
    return ground


def _like_border(picture: Tensor) -> Tensor:
    colour = _border_colour(picture)
    if colour is None or colour.min() >= WHITE_BORDER:
        return (picture.amin(dim=1, keepdim=True) >= NEAR_WHITE).float()
    distance = (picture - colour[:, None, None]).abs().amax(dim=1, keepdim=True)
    return (distance <= TOLERANCE).float()


def _border_colour(picture: Tensor) -> Tensor | None:
    """The colour (3,) that most of the border has; None when it has none of its own."""
    ring = torch.cat(
        [
            picture[..., :RING, :].flatten(2),
            picture[..., -RING:, :].flatten(2),
            picture[..., RING:-RING, :RING].flatten(2),
            picture[..., RING:-RING, -RING:].flatten(2),
        ],
        dim=2,
    )[0]  # -> (3, pixels)
    colour = ring.median(dim=1).values
    near = (ring - colour[:, None]).abs().amax(dim=0) <= TOLERANCE
    return colour if near.float().mean() > MOST_OF_BORDER else None


def _between_bars(ground: Tensor, across: bool) -> tuple[slice, ...] | None:
    """What lies between two bars of ground, above and below or (`across`) left and right, that end in one straight line."""
    lines = ground[0, 0].mean(dim=0 if across else 1)  # the share of ground in each column or row
    rest = (lines < WHOLE_LINE).nonzero().flatten()
    if not len(rest):
        return None
    first, last = int(rest[0]), int(rest[-1])
    if first == 0 or last == len(lines) - 1 or max(lines[first], lines[last]) > CROSSES:
        return None
    within = slice(first, last + 1)
    return (slice(None), slice(None), slice(None), within) if across else (slice(None), slice(None), within)


def _spread(marked: Tensor) -> Tensor:
    """Mark the four neighbours of every marked cell."""
    up_down = functional.max_pool2d(marked, (3, 1), stride=1, padding=(1, 0))
    return torch.maximum(up_down, functional.max_pool2d(marked, (1, 3), stride=1, padding=(0, 1)))
