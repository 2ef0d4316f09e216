# SPDX-License-Identifier: GPL-3.0-or-later
"""Cut-out garments made a little unlike themselves: turned, sheared, squeezed, and in part hidden.

A garment that is cut out of the person who is to be painted stands there pixel by pixel, which no garment that artists
bring will. `lay_out` already moves and scales it; this takes the rest of the likeness away.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

TURN = math.radians(15)
SHEAR = 0.15
SQUEEZE = 0.15
HIDDEN = 0.35
"""At most, at amount 1: the angle in radians, shares of a side, and the hole's sides as shares of the garment's."""

ROOM = 0.3
"""Around the garment, as a share of its longer side, so that none of it is turned out of the picture."""


def jittered(picture: Tensor, shape: Tensor, amount: float, seed: int) -> tuple[Tensor, Tensor]:
    """The garment within `shape`, changed by chance, and its new shape; the same for the same seed.

    picture: (1, 3, H, W) in [-1, 1]. shape: (1, 1, H, W), 1 on the garment and 0 elsewhere, somewhere 1. amount: in
    [0, 1], of the limits above. Both come back cut to the garment with ROOM around it.
    """
    chance = torch.Generator().manual_seed(seed)

    def drawn(limit: float) -> float:
        return float(torch.rand((), generator=chance) * 2 - 1) * limit * amount

    picture, shape = _roomy(picture, shape)
    height, width = shape.shape[-2:]
    angle, shear, squeeze = drawn(TURN), drawn(SHEAR), 1 + drawn(SQUEEZE)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    pixels = turn @ torch.tensor([[squeeze, shear], [0.0, 1 / squeeze]])
    side = torch.tensor([width / 2, height / 2])  # grid_sample's axes reach from -1 to 1, whatever their length
    affine = torch.cat([pixels * side[None] / side[:, None], torch.zeros(2, 1)], dim=1)
    grid = functional.affine_grid(affine[None], [1, 1, height, width], align_corners=False)
    white = functional.grid_sample(1 - picture, grid, align_corners=False)  # what comes from outside is white
    moved = (functional.grid_sample(shape, grid, align_corners=False) > 0.5).float()
    hidden = _hole(moved, amount, chance)
    return 1 - white, torch.where((moved * (1 - hidden)).any(), moved * (1 - hidden), moved)


def _roomy(picture: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
    """Both cut, or widened, to the garment and ROOM around it."""
    top, bottom, left, right = _box(shape)
    room = math.ceil(ROOM * max(bottom - top, right - left))
    sides = (room - left, right + room - shape.shape[-1], room - top, bottom + room - shape.shape[-2])
    return functional.pad(picture, sides, value=1.0), functional.pad(shape, sides)


def _hole(shape: Tensor, amount: float, chance: torch.Generator) -> Tensor:
    """An ellipse somewhere on the garment, as an arm or a bag hides it: (1, 1, H, W), 1 inside."""
    top, bottom, left, right = _box(shape)
    high, wide, down, across = torch.rand(4, generator=chance).tolist()
    radii = (max(HIDDEN * amount * part / 2, 1e-6) for part in (high, wide))
    rows = (torch.arange(shape.shape[-2]) - top) / (bottom - top) - down
    columns = (torch.arange(shape.shape[-1]) - left) / (right - left) - across
    tall, broad = radii
    return (((rows / tall) ** 2)[:, None] + ((columns / broad) ** 2)[None] < 1).float()[None, None]


def _box(shape: Tensor) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of what is 1; bottom and right lie beyond it."""
    rows, columns = (shape[0, 0].bool().any(dim=side).nonzero().flatten() for side in (1, 0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
