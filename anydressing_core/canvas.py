# SPDX-License-Identifier: GPL-3.0-or-later
"""The garment's canvas: how a garment picture becomes what GarmentsNet sees, and which of its tokens count.

Training and inference share these functions: a garment is padded onto white, never stretched (decision D10).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .latents import CELL

WHITE = 1.0
NEAR_WHITE = 0.94
"""Pixels at least this bright in every channel (in [-1, 1]) may be background: 247 of 255, above JPEG noise."""


def garment_canvas(image: Tensor, height: int, width: int, mask: Tensor | None = None) -> Tensor:
    """Fit a garment picture onto a white canvas, centred, its aspect ratio kept.

    image: (1, 3, H, W) in [-1, 1]. mask: (1, 1, H, W) in [0, 1], 1 on the garment; what lies outside becomes white.
    height, width: the canvas in pixels. Returns (1, 3, height, width) in [-1, 1].
    """
    if mask is not None:
        image = image * mask + WHITE * (1 - mask)
    return _letterbox(image, height, width, WHITE).clamp(-1, 1)


def canvas_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """Fit a garment mask (1, 1, H, W) in [0, 1] as `garment_canvas` fits its picture: (1, 1, height, width)."""
    return _letterbox(mask, height, width, 0.0).clamp(0, 1)


def foreground_cells(canvas: Tensor, mask: Tensor | None = None) -> Tensor:
    """Which latent cells of a canvas show the garment.

    canvas: (1, 3, H, W) in [-1, 1], H and W in whole cells (`latents.is_whole`). mask: (1, 1, H, W) in [0, 1], from
    `canvas_mask`; without one, all cells count but the near-white ones connected to the border, so that white inside the
    garment's outline stays. Returns (h, w) bool.
    """
    if mask is not None:
        return functional.max_pool2d(mask, CELL)[0, 0] > 0.5
    # A cell is blank when its darkest pixel is near white.
    darkest = -functional.max_pool2d(-canvas.amin(dim=1, keepdim=True), CELL)  # -> (1, 1, h, w)
    blank = functional.pad((darkest >= NEAR_WHITE).float(), (1, 1, 1, 1), value=1.0)
    outside = torch.zeros_like(blank)
    outside[..., 0, :] = outside[..., -1, :] = outside[..., :, 0] = outside[..., :, -1] = 1.0
    while True:
        grown = _spread(outside) * blank
        if torch.equal(grown, outside):
            return outside[0, 0, 1:-1, 1:-1] == 0
        outside = grown


def foreground_tokens(cells: Tensor, grid: tuple[int, int]) -> Tensor:
    """Which tokens of a site see a foreground cell: (h, w) bool and the site's grid -> (L_g,) bool.

    At least one does when any cell is foreground.
    """
    return functional.adaptive_max_pool2d(cells[None, None].float(), grid).flatten() > 0


def region_on_grid(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average a region mask (H, W) in [0, 1] over each token's area: (L,), row by row."""
    return functional.adaptive_avg_pool2d(mask[None, None].float(), grid).flatten()


def _letterbox(image: Tensor, height: int, width: int, fill: float) -> Tensor:
    scale = min(height / image.shape[-2], width / image.shape[-1])
    inner = (
        min(height, max(1, round(image.shape[-2] * scale))),
        min(width, max(1, round(image.shape[-1] * scale))),
    )
    image = functional.interpolate(image.float(), inner, mode="bicubic", antialias=True, align_corners=False)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    return functional.pad(image, (left, width - inner[1] - left, top, height - inner[0] - top), value=fill)


def _spread(marked: Tensor) -> Tensor:
    """Mark the four neighbours of every marked cell."""
    up_down = functional.max_pool2d(marked, (3, 1), stride=1, padding=(1, 0))
    return torch.maximum(up_down, functional.max_pool2d(marked, (1, 3), stride=1, padding=(0, 1)))
