# SPDX-License-Identifier: GPL-3.0-or-later
"""Garment-specific feature extraction: every garment passes the shared frozen layer plus its own low-rank update."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def grouped_lora(x: Tensor, down: Tensor, up: Tensor, scale: Tensor) -> Tensor:
    """Each garment's own update of one projection (Eq. 3): scale_i * x_i down_i^T up_i^T, all garments in one product.

    x: (N, L, C), row i holds garment i. down: (N, rank, C). up: (N, C', rank). scale: (N,), alpha / rank.
    Returns (N, L, C'), to be added to the frozen projection of x.
    """
    return torch.bmm(torch.bmm(x, down.mT), up.mT) * scale[:, None, None].to(x)


def stack_loras(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Stack (down, up) pairs of several garments for `grouped_lora`; lower ranks are filled up with zeros, exactly."""
    rank = max(down.shape[0] for down, _ in pairs)
    downs = [functional.pad(down, (0, 0, 0, rank - down.shape[0])) for down, _ in pairs]
    ups = [functional.pad(up, (0, rank - up.shape[1])) for _, up in pairs]
    return torch.stack(downs), torch.stack(ups)
