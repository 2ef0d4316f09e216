# SPDX-License-Identifier: GPL-3.0-or-later
"""Heat maps: where each garment's attention went, as a veil of the garment's own colour over the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Colour = tuple[int, int, int]

COLOURS: tuple[Colour, ...] = (
    (213, 94, 0),
    (0, 114, 178),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (240, 228, 66),
    (64, 64, 64),
)
"""One for each of eight garments: Okabe and Ito's, which colour-blind readers can tell apart, strongest first."""

COLOUR_NAMES = ("orange", "blue", "green", "pink", "amber", "sky", "yellow", "grey")
"""What people call them."""

VEIL = 0.8
"""How much of the picture a veil covers where the map is 1; the rest lets the shapes beneath be seen."""


def confusion(maps: Tensor) -> float:
    """How much garments share the same places: 0 when every place looks at one garment, (N - 1) / N when at all alike.

    maps: A_k (N, ...), at least 0. Places count by how much they look at garments at all; where nobody does, 0.
    """
    total = maps.float().sum(dim=0)
    return float((total - maps.float().amax(dim=0)).sum() / total.sum().clamp(min=1e-12))


def colours_of(slots: Sequence[str], known: Sequence[str]) -> list[int]:
    """Which of `COLOURS` each garment gets, by its slot, so that a slot looks alike in all pictures.

    slots: of the garments that are worn. known: slots whose colours are kept for them, in the order of the colours; a
    second garment of a slot, and one of any other slot, gets the first colour that is free.
    """
    chosen: dict[int, int] = {}
    for index, slot in enumerate(slots):
        wanted = known.index(slot) if slot in known else len(COLOURS)
        if wanted < len(COLOURS) and wanted not in chosen.values():
            chosen[index] = wanted
    for index in range(len(slots)):
        if index not in chosen:
            free = (colour for colour in range(len(COLOURS)) if colour not in chosen.values())
            chosen[index] = next(free, index % len(COLOURS))
    return [chosen[index] for index in range(len(slots))]


def overlay(picture: NDArray[np.uint8], maps: Tensor, colours: Sequence[Colour] = COLOURS) -> NDArray[np.uint8]:
    """Lay one veil for each garment over a picture, as dense as its map.

    picture: (H, W, 3). maps: A_k (N, h, w) in [0, 1], summing to at most 1 at every pixel, of any resolution. colours:
    at least N. Nothing is stretched to its own maximum, so that pictures of different steps can be compared. Where all
    maps are 0 the picture is untouched. Colours mix as the eye spaces them, in sRGB's own values.
    """
    height, width, _ = picture.shape
    assert len(maps) <= len(colours)
    fine = functional.interpolate(maps.float().cpu()[None], (height, width), mode="bilinear")[0]
    veils = VEIL * fine.clamp(0, 1)  # -> (N, H, W)
    tints = torch.tensor(colours[: len(maps)], dtype=torch.float32)
    seen = (1 - veils.sum(dim=0)).clamp(min=0)[..., None] * torch.tensor(picture, dtype=torch.float32)
    mixed = seen + torch.einsum("nhw,nc->hwc", veils, tints)
    return mixed.round().clamp(0, 255).byte().numpy()
