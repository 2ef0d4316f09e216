# SPDX-License-Identifier: GPL-3.0-or-later
"""Views of a picture, (3, H, W) in [0, 1], that the small networks should not be misled by: dyed, softened, reconstructed."""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

from ....anydressing_core.pixels import signed_of, unit_of
from ...base.model import BaseModel
from ...run.noise import Draw

DYES = tuple(permutations(range(3)))


def dyed(picture: Tensor, draw: Draw) -> Tensor:
    """A picture (3, H, W) with red, green and blue in a drawn order, so that colours tell a network little."""
    return picture[list(DYES[draw.integer(len(DYES), "dye")])]


@torch.no_grad()
def reconstructions(base: BaseModel, pictures: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] after encoding and decoding."""
    return unit_of(base.decode(base.encode_mode(signed_of(pictures)))).clamp(0, 1)
