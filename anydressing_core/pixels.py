# SPDX-License-Identifier: GPL-3.0-or-later
"""The three ranges of a picture, and the ways between them: bytes, unit [0, 1] and signed [-1, 1].

Bytes are (H, W, 3) as files and screens have them; tensors are (..., 3, H, W), signed for networks and unit for DISTS,
recognisers and ComfyUI's door. Unit and signed values round alike on the way (a factor of two is exact).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Pixels = NDArray[np.uint8]
"""A picture, (H, W, 3)."""


def unit_of(image: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1] in fp32, not clamped, so that a gradient passes."""
    return (image.float() + 1) / 2


def signed_of(image: Tensor) -> Tensor:
    """[0, 1] -> [-1, 1], not clamped."""
    return 2 * image - 1


def bytes_of(values: Tensor) -> NDArray[np.uint8]:
    """[0, 1] of any shape -> bytes of that shape, rounded; what overshoots is cut off."""
    rounded: NDArray[np.uint8] = (values.detach().float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    return rounded


def as_pixels(image: Tensor) -> Pixels:
    """A picture (3, H, W) in [-1, 1] as bytes (H, W, 3); what overshoots is cut off."""
    return bytes_of(unit_of(image).movedim(-3, -1))


def as_unit(pixels: Pixels) -> Tensor:
    """Bytes (H, W, 3) as a picture (3, H, W) in [0, 1]."""
    return torch.tensor(pixels).permute(2, 0, 1).float() / 255


def as_signed(pixels: Pixels) -> Tensor:
    """Bytes (H, W, 3) as a picture (3, H, W) in [-1, 1]."""
    return torch.tensor(pixels).permute(2, 0, 1).float() / 127.5 - 1
