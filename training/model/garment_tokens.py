# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the tokens that were read of a batch's garments take part: all, or those that show a garment.

The tokens that take part are laid side by side, as many as the largest garment has, and a mask tells which are there: what does
not take part costs nothing where garments are attended to.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...anydressing_core.canvas import foreground_tokens


def shown_tokens(cells: Tensor, grid: tuple[int, int]) -> Tensor:
    """Which tokens of a site's grid see a cell that shows the garment: (G, L) bool; of one that nobody can tell from its
    ground, all. cells: (G, h, w) bool.
    """
    shown = torch.stack([foreground_tokens(one, grid) for one in cells])
    return shown | ~shown.any(dim=1, keepdim=True)


def packed(tokens: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens that take part, (G, M, C) of (G, L, C), in their order, and which of them are there, (G, M) bool."""
    order = shown.byte().argsort(dim=1, descending=True, stable=True)[:, : int(shown.sum(dim=1).amax())]
    return tokens.gather(1, order[..., None].expand(-1, -1, tokens.shape[-1])), shown.gather(1, order)
