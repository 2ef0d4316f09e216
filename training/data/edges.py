# SPDX-License-Identifier: GPL-3.0-or-later
"""The edge map P of a ground-truth picture: where the high-frequency loss looks (Eq. 13)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...anydressing_core.pixels import as_pixels

THRESHOLDS = (100, 200)
"""Canny's low and high threshold on 8-bit luminance, with OpenCV's 3x3 Sobel and L1 gradient; the paper names none."""


def canny_edges(image: Tensor) -> Tensor:
    """Find the edges P of ground-truth pictures.

    image: (B, 3, H, W) in [-1, 1], any float dtype; the *whole* picture, because a masked one would show the mask's
    outline as an edge. Returns (B, 1, H, W), 1 on edges and 0 elsewhere, fp32, on the image's device. Equal pictures
    give equal edges, whatever batch they stand in. No gradient passes.
    """
    import cv2

    edges: list[Tensor] = []
    for picture in image:
        luminance = cv2.cvtColor(np.ascontiguousarray(as_pixels(picture)), cv2.COLOR_RGB2GRAY)
        edges.append(torch.from_numpy(cv2.Canny(luminance, *THRESHOLDS)))
    return (torch.stack(edges)[:, None] > 0).to(image.device, torch.float32)
