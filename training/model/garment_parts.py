# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of a batch's garments: all of their canvases, or the garments themselves and nothing around them.

Where a garment's own tokens alone take part, the pass sees the window in which it lies; garments whose windows are of one
size are read together. What comes out is laid side by side, as many tokens as the largest garment has, and a mask.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ...anydressing_core.canvas import foreground_tokens, window_around
from ...anydressing_core.latents import Size
from ...anydressing_core.sites import AttentionSite


@dataclass(frozen=True)
class Part:
    """Garments that are read in one call.

    rows: which of the batch's. latents: (g, 4, h, w). cells: (g, h, w) bool on the CPU, which of them take part; None for all.
    """

    rows: list[int]
    latents: Tensor
    cells: Tensor | None = None

    @property
    def size(self) -> Size:
        """h and w."""
        return self.latents.shape[-2], self.latents.shape[-1]

    def shown(self, site: AttentionSite) -> Tensor:
        """Which tokens of a site take part: (g, L) bool, on the CPU."""
        grid = site.grid(*self.size)
        if self.cells is None:
            return torch.ones(len(self.rows), grid[0] * grid[1], dtype=torch.bool)
        return torch.stack([foreground_tokens(cells, grid) for cells in self.cells])


def whole(latents: Tensor, cells: Tensor | None = None) -> list[Part]:
    """All garments with the whole of their canvases, of which the tokens that see `cells` (G, h, w) take part."""
    return [Part(list(range(len(latents))), latents, None if cells is None else _told_apart(cells))]


def windows(latents: Tensor, cells: Tensor, stride: int) -> list[Part]:
    """All garments without what lies around them. stride: latent cells per coarsest token."""
    cells = _told_apart(cells)
    around = [window_around(one, stride) for one in cells]
    alike: dict[Size, list[int]] = defaultdict(list)
    for row, window in enumerate(around):
        alike[window.height, window.width].append(row)

    def of(x: Tensor, rows: Sequence[int]) -> Tensor:
        return torch.stack([around[row].of(x[row]) for row in rows])

    return [Part(rows, of(latents, rows), of(cells, rows)) for rows in alike.values()]


def _told_apart(cells: Tensor) -> Tensor:
    """On the CPU; of a garment that nobody can tell from its ground, all."""
    cells = cells.cpu()
    return cells | ~cells.flatten(1).any(dim=1)[:, None, None]


def side_by_side(parts: Sequence[Part], tokens: Sequence[Tensor], site: AttentionSite) -> tuple[Tensor, Tensor | None]:
    """What the calls have read at one site, garment by garment: (G, M, C), and which of it is there, (G, M) bool; None for all.

    tokens: of each part, (g, L, C).
    """
    shown = [part.shown(site) for part in parts]
    if all(bool(one.all()) for one in shown) and len(parts) == 1:
        return tokens[0], None
    most = max(int(one.sum(dim=1).amax()) for one in shown)
    read, there = zip(*(_packed(x, one, most) for x, one in zip(tokens, shown, strict=True)), strict=True)
    order = torch.tensor([row for part in parts for row in part.rows]).argsort().to(tokens[0].device)
    mask = torch.cat(there)[order]
    return torch.cat(read)[order], mask


def _packed(tokens: Tensor, shown: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The tokens that take part, (g, most, C), and which are none, (g, most) bool."""
    order = shown.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
    there = shown.gather(1, order).to(tokens.device)
    kept = tokens.gather(1, order.to(tokens.device)[..., None].expand(-1, -1, tokens.shape[-1]))
    missing = most - order.shape[1]
    return functional.pad(kept, (0, 0, 0, missing)), functional.pad(there, (0, missing))
