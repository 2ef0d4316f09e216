# SPDX-License-Identifier: GPL-3.0-or-later
"""The garment's canvas: how a garment picture becomes what GarmentsNet sees, and which of its tokens count.

Training and inference share these functions: a garment is padded onto white, never stretched (decision D10); only
other people's garment models want it otherwise (`stretch_out`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .ground import NEAR_WHITE, ground_cells
from .latents import CELL

WHITE = 1.0
MARGIN = 0.05
"""White around a garment that was cut out, as a share of its longer side."""

MASK_THRESHOLD = 0.5
LEAST_SHOWN = 0.005
"""The share of a canvas that must be darker than near white, or nothing can be read from it."""

MOST_KEPT = 0.85
"""A garment that seems to fill more of its picture than this was hardly told from the ground."""


@dataclass(frozen=True)
class GarmentCanvas:
    """A garment as GarmentsNet sees it.

    picture: (1, 3, H, W) in [-1, 1]. cells: which latent cells show the garment, (h, w) bool. share: of its picture,
    without the bars around it, that the garment takes. mask: (1, 1, H, W) in [0, 1], 1 on the garment, where a mask told
    and not the ground.
    """

    picture: Tensor
    cells: Tensor
    share: float
    mask: Tensor | None = None

    @property
    def masked(self) -> bool:
        """Whether a mask told what the garment is, and not the ground."""
        return self.mask is not None

    @property
    def is_told_apart(self) -> bool:
        """Whether garment and ground differ as far as anybody can tell."""
        return self.masked or 0 < self.share <= MOST_KEPT

    @property
    def preview(self) -> Tensor:
        """The picture with what does not show the garment greyed out."""
        kept = functional.interpolate(self.cells[None, None].float(), scale_factor=CELL)
        return torch.where(kept > 0, self.picture, self.picture * 0.25 + 0.25)

    @property
    def is_nearly_empty(self) -> bool:
        """Whether there is next to nothing but white: most often the mask was the wrong way round."""
        return float((self.picture.amin(dim=1) < NEAR_WHITE).float().mean()) < LEAST_SHOWN


def lay_out(image: Tensor, height: int, width: int, mask: Tensor | None = None) -> GarmentCanvas:
    """Lay a garment on a white canvas, centred, its aspect ratio kept: the one rule of node, trainer and `data check`.

    image: (1, 3, H, W) in [-1, 1]. height, width: the canvas in pixels, in whole cells. mask: (1, 1, H, W) in [0, 1], 1
    on the garment (its alpha channel, say), somewhere above 0.5; the canvas then holds what lies within, cut out with a
    little margin. Without one it holds the whole picture, and cells of plain ground that reach its border do not count.
    """
    if mask is not None:
        box = _box_around(mask)
        share = float((mask > MASK_THRESHOLD).float().mean())
        image, mask = _cropped(image, box), _cropped(mask, box)
        picture = garment_canvas(image, height, width, mask)
        shown = _letterbox(mask, height, width, 0.0).clamp(0, 1)
        cells = functional.max_pool2d(shown, CELL)[0, 0] > MASK_THRESHOLD
        return GarmentCanvas(picture, cells, share, shown)
    picture = garment_canvas(image, height, width)
    (inner_height, inner_width), (top, left) = _fit(image, height, width)
    inner = picture[..., top : top + inner_height, left : left + inner_width]
    cells = ~ground_cells(inner, (height, width), (top, left))
    share = min(1.0, float(cells.sum()) * CELL**2 / (inner_height * inner_width))
    return GarmentCanvas(picture, cells, share)


def garment_canvas(image: Tensor, height: int, width: int, mask: Tensor | None = None) -> Tensor:
    """Fit a garment picture onto a white canvas, centred, its aspect ratio kept.

    image: (1, 3, H, W) in [-1, 1]. mask: (1, 1, H, W) in [0, 1], 1 on the garment; what lies outside becomes white.
    height, width: the canvas in pixels. Returns (1, 3, height, width) in [-1, 1].
    """
    if mask is not None:
        image = image * mask + WHITE * (1 - mask)
    return _letterbox(image, height, width, WHITE).clamp(-1, 1)


def stretch_out(image: Tensor, height: int, width: int, mask: Tensor | None = None) -> GarmentCanvas:
    """Stretch a garment over the whole canvas, mid-grey around it, as MagicClothing's garment model was trained.

    The arguments are those of `lay_out`. Without a mask the grey takes the place of plain ground, unless all is ground.
    """
    picture = _stretched(image, height, width).clamp(-1, 1)
    if mask is None:
        cells = ~ground_cells(picture, (height, width), (0, 0))
        shown = functional.interpolate((cells if cells.any() else ~cells)[None, None].float(), scale_factor=CELL)
        return GarmentCanvas(picture * shown, cells, float(cells.float().mean()))
    shown = _stretched(mask, height, width).clamp(0, 1)
    cells = functional.max_pool2d(shown, CELL)[0, 0] > MASK_THRESHOLD
    return GarmentCanvas(picture * shown, cells, float((mask > MASK_THRESHOLD).float().mean()), shown)


def foreground_tokens(cells: Tensor, grid: tuple[int, int]) -> Tensor:
    """Which tokens of a site see a foreground cell: (h, w) bool and the site's grid -> (L_g,) bool.

    At least one does when any cell is foreground.
    """
    return functional.adaptive_max_pool2d(cells[None, None].float(), grid).flatten() > 0


class Window(NamedTuple):
    """A part of a canvas, in latent cells."""

    top: int
    left: int
    height: int
    width: int

    def of(self, x: Tensor) -> Tensor:
        """The part of x (..., h, w)."""
        return x[..., self.top : self.top + self.height, self.left : self.left + self.width]


def window_around(cells: Tensor, stride: int) -> Window:
    """The part of a canvas in which its garment lies, in whole steps of the U-Net's coarsest tokens; all of it without one.

    cells: (h, w) bool. stride: latent cells per coarsest token. What is read of that part alone has the tokens that the
    whole canvas has there.
    """
    height, width = cells.shape
    if not cells.any():
        return Window(0, 0, height, width)
    (top, bottom), (left, right) = (_reach(cells.any(dim=side), stride) for side in (1, 0))
    return Window(top, left, bottom - top, right - left)


def _reach(shown: Tensor, stride: int) -> tuple[int, int]:
    """From where to where along one axis, (n,) bool, something is shown, in whole strides."""
    places = shown.nonzero().flatten()
    first, last = int(places[0]), int(places[-1])
    return first // stride * stride, min(len(shown), (last // stride + 1) * stride)


def region_on_grid(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average a region mask (H, W) in [0, 1] over each token's area: (L,), row by row."""
    return functional.adaptive_avg_pool2d(mask[None, None].float(), grid).flatten()


Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels, the last two beyond the box, as Pillow has them; it may reach beyond the picture."""


def _box_around(mask: Tensor) -> Box:
    """The box of what is masked (1, 1, H, W), with a margin."""
    rows, columns = ((mask[0, 0] > MASK_THRESHOLD).any(dim=side).nonzero().flatten() for side in (1, 0))
    left, top, right, bottom = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    margin = round(MARGIN * max(right - left, bottom - top))
    return left - margin, top - margin, right + margin, bottom + margin


def _cropped(image: Tensor, box: Box) -> Tensor:
    """The box of a picture, 0 beyond its edges."""
    left, top, right, bottom = box
    return functional.pad(image, (-left, right - image.shape[-1], -top, bottom - image.shape[-2]))


def _fit(image: Tensor, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width that a picture has on the canvas, and where its top left corner lies."""
    scale = min(height / image.shape[-2], width / image.shape[-1])
    inner = (
        min(height, max(1, round(image.shape[-2] * scale))),
        min(width, max(1, round(image.shape[-1] * scale))),
    )
    return inner, ((height - inner[0]) // 2, (width - inner[1]) // 2)


def _letterbox(image: Tensor, height: int, width: int, fill: float) -> Tensor:
    inner, (top, left) = _fit(image, height, width)
    image = _stretched(image, *inner)
    return functional.pad(image, (left, width - inner[1] - left, top, height - inner[0] - top), value=fill)


def _stretched(image: Tensor, height: int, width: int) -> Tensor:
    return functional.interpolate(image.float(), (height, width), mode="bicubic", antialias=True, align_corners=False)
