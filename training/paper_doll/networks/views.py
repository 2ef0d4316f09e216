# SPDX-License-Identifier: GPL-3.0-or-later
"""Picture files and bytes as the small networks take them: (3, H, W) in [0, 1]."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...base.model import BaseModel
from ...data.pictures import Pixels
from ...run.noise import Draw

DYES = tuple(permutations(range(3)))


def read_pixels(path: Path) -> Pixels:
    """The picture in a file."""
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB"))


def read_grey(path: Path) -> Tensor:
    """The mask or map in a file: (H, W) in [0, 1]."""
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("L"))).float() / 255


def read_unit(path: Path) -> Tensor:
    """The picture in a file: (3, H, W) in [0, 1]."""
    return as_unit(read_pixels(path))


def as_unit(pixels: Pixels) -> Tensor:
    """A picture of bytes: (3, H, W) in [0, 1]."""
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def dyed(picture: Tensor, draw: Draw) -> Tensor:
    """A picture (3, H, W) with red, green and blue in a drawn order, so that colours tell a network little."""
    return picture[list(DYES[draw.integer(len(DYES), "dye")])]


@torch.no_grad()
def reconstructions(base: BaseModel, pictures: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] after encoding and decoding."""
    return (base.decode(base.encode_mode(2 * pictures - 1)) / 2 + 0.5).clamp(0, 1)
