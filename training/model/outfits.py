# SPDX-License-Identifier: GPL-3.0-or-later
"""What the people of a batch wear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Outfits:
    """What the people of a batch wear.

    latents: (G, 4, h, w), all garments of the batch, the VAE's mode, scaled. slots: the kind of each, (G,).
    worn: (B, N) long, which garments each person wears, -1 where fewer than N. Everybody wears at least one.
    cells: (G, h, w) bool, which latent cells show the garment, or None when nobody knows. words: what each is called, its
    mean embedding (G, C_text), or None when nobody says. regions: (G, h, w) in [0, 1], where in the new picture each may go,
    in place of its words.
    """

    latents: Tensor
    slots: Sequence[str]
    worn: Tensor
    cells: Tensor | None = None
    words: Tensor | None = None
    regions: Tensor | None = None
