# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of a batch's garments, and which of the tokens that were read take part: all, or those that show a garment.

A garment is read with all of its canvas, or cropped, which is the part in which it lies; garments whose parts are of one size
are read in one call. The tokens that take part are laid side by side, as many as the largest garment has, and a mask tells
which are there: what does not take part costs nothing where garments are attended to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ...anydressing_core.canvas import foreground_tokens, window_around
from ...anydressing_core.checkpoint_info import GarmentTokens
from ...anydressing_core.latents import Size
from ...anydressing_core.sites import AttentionSite
from .outfits import Outfits


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


@dataclass(frozen=True)
class Part:
    """Garments that are read in one call. rows: which of the batch's. latents: (g, 4, h, w). cells: (g, h, w) bool, which of
    them take part; None for all.
    """

    rows: Sequence[int]
    latents: Tensor
    cells: Tensor | None = None

    @classmethod
    def whole(cls, outfits: Outfits, tokens: GarmentTokens) -> Part:
        """All garments with the whole of their canvases."""
        cells = None if tokens == "all" else outfits.cells
        return cls(range(len(outfits.latents)), outfits.latents, cells)


def parts_of(outfits: Outfits, tokens: GarmentTokens, stride: int) -> list[Part]:
    """What is read of all garments, call by call. stride: latent cells per coarsest token, of which a crop has whole ones."""
    if tokens != "cropped" or outfits.cells is None:
        return [Part.whole(outfits, tokens)]
    windows = [window_around(cells, stride) for cells in outfits.cells.cpu()]
    alike: dict[Size, list[int]] = defaultdict(list)
    for row, window in enumerate(windows):
        alike[window.height, window.width].append(row)

    def cropped(x: Tensor, rows: Sequence[int]) -> Tensor:
        return torch.stack([windows[row].of(x[row]) for row in rows])

    return [Part(rows, cropped(outfits.latents, rows), cropped(outfits.cells, rows)) for rows in alike.values()]


def side_by_side(
    parts: Sequence[Part], tokens: Sequence[Tensor], packings: Sequence[Packing | None]
) -> tuple[Tensor, Tensor | None]:
    """What the calls have read at one site, garment by garment: (G, M, C), and which of it takes part, (G, M) bool; None for all.

    tokens: of each part, (g, L, C). packings: of each part, None where all take part.
    """
    packed = [x if packing is None else packing.pack(x) for x, packing in zip(tokens, packings, strict=True)]
    if len(parts) == 1:
        return packed[0], None if packings[0] is None else packings[0].there
    most = max(x.shape[1] for x in packed)
    order = torch.tensor([row for part in parts for row in part.rows]).argsort().to(packed[0].device)
    there = [packing.there for packing in packings if packing is not None]  # crops have one
    rest = [most - x.shape[1] for x in packed]
    features = torch.cat([functional.pad(x, (0, 0, 0, more)) for x, more in zip(packed, rest, strict=True)])
    mask = torch.cat([functional.pad(x, (0, more)) for x, more in zip(there, rest, strict=True)])
    return features[order], mask[order]


def token_mask(worn: Tensor, there: Tensor | None, count: int) -> Tensor | None:
    """Which of everybody's tokens are there, (B, N M) bool, garment by garment; None when all are.

    worn: as of `Outfits`. there: (G, M) bool, None for all. count: M.
    """
    mask = (worn >= 0)[..., None].expand(-1, -1, count)
    if there is not None:
        mask = mask & there[worn.clamp(min=0)]
    return None if mask.all() else mask.flatten(1)
