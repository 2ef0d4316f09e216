# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the tokens that were read of a batch's garments take part: all, or those that show a garment.

The tokens that take part are laid side by side, as many as the largest garment has, and a mask tells which are there: what does
not take part costs nothing where garments are attended to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...anydressing_core.canvas import foreground_tokens
from ...anydressing_core.latents import Size
from ...anydressing_core.sites import AttentionSite


@dataclass(frozen=True)
class Packing:
    """How the tokens of a site are laid side by side. order: which of the L come, (G, M) long. there: which of those take part,
    (G, M) bool.
    """

    order: Tensor
    there: Tensor

    @classmethod
    def of(cls, cells: Tensor, grid: Size) -> Packing:
        """For the tokens that see a cell that shows the garment; of one that nobody can tell from its ground, all.

        cells: (G, h, w) bool. grid: of the site.
        """
        shown = torch.stack([foreground_tokens(one, grid) for one in cells])
        shown = shown | ~shown.any(dim=1, keepdim=True)
        order = shown.byte().argsort(dim=1, descending=True, stable=True)[:, : int(shown.sum(dim=1).amax())]
        return cls(order, shown.gather(1, order))

    def pack(self, tokens: Tensor) -> Tensor:
        """Those that come, in their order: (G, M, C) of (G, L, C)."""
        return tokens.gather(1, self.order[..., None].expand(-1, -1, tokens.shape[-1]))


def packings(cells: Tensor | None, sites: Sequence[AttentionSite]) -> dict[str, Packing]:
    """Site key -> how its tokens are packed; sites of one grid share it, and nothing is packed where nobody knows."""
    if cells is None:
        return {}
    grids = {site.key: site.grid(*cells.shape[-2:]) for site in sites}
    of_grid = {grid: Packing.of(cells, grid) for grid in set(grids.values())}
    return {key: of_grid[grid] for key, grid in grids.items()}


def token_mask(worn: Tensor, packing: Packing | None, count: int) -> Tensor | None:
    """Which of everybody's tokens are there, (B, N M) bool, garment by garment; None when all are.

    worn: as of `Outfits`. count: M.
    """
    there = (worn >= 0)[..., None].expand(-1, -1, count)
    if packing is not None:
        there = there & packing.there[worn.clamp(min=0)]
    return None if there.all() else there.flatten(1)
