# SPDX-License-Identifier: GPL-3.0-or-later
"""Garment photographs as shops make them, drawn, with the true outline: plain grounds, shadows, gradients, noise."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from comfyui_anydressing.anydressing_core.pixels import as_signed
from numpy.typing import NDArray
from torch import Tensor

HEIGHT, WIDTH = 384, 288
SHIRT = [(96, 64), (124, 78), (164, 78), (192, 64), (252, 130), (216, 162), (204, 146), (204, 318), (84, 318)]
SHIRT += [(84, 146), (72, 162), (36, 130)]

Picture = NDArray[np.uint8]
Shape = NDArray[np.bool_]


def shirt(
    ground: Picture | int, colour: tuple[int, int, int] = (176, 40, 52), stripes: bool = True
) -> tuple[Picture, Shape]:
    """A shirt with shaded folds and a darker seam on a ground: the picture (H, W, 3), and where the shirt is."""
    shape = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillPoly(shape, [np.array(SHIRT)], 255)
    cloth = np.empty((HEIGHT, WIDTH, 3), np.float32)
    cloth[:] = colour
    if stripes:
        cloth[np.arange(HEIGHT) % 36 < 12] = (24, 40, 96)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    cloth *= 1 - 0.03 * (1 + np.sin(columns / 11 + rows / 40))[..., None] / 2  # folds: at most 3 % darker
    picture = plain(ground) if isinstance(ground, int) else ground.copy()
    picture[shape > 0] = cloth.round().clip(0, 255).astype(np.uint8)[shape > 0]
    cv2.polylines(picture, [np.array(SHIRT)], True, [int(0.86 * value) for value in colour], 2)
    return picture, shape > 0


def plain(value: int) -> Picture:
    """A ground of one grey."""
    return np.full((HEIGHT, WIDTH, 3), value, np.uint8)


def gradient(top: int, bottom: int) -> Picture:
    """A studio's ground, from one grey to another."""
    column = np.linspace(top, bottom, HEIGHT).round().astype(np.uint8)
    return np.repeat(np.repeat(column[:, None, None], WIDTH, 1), 3, 2)


def with_shadow(picture: Picture, shape: Shape, depth: float = 0.25) -> Picture:
    """The same garment over its own soft shadow, a little below and to the right."""
    moved = np.roll(shape.astype(np.float32), (8, 6), (0, 1))
    shade = 1 - depth * cv2.GaussianBlur(moved, (0, 0), 6)[..., None]
    return np.where(shape[..., None], picture, (picture * shade).round().astype(np.uint8))


def as_jpeg(picture: Picture, quality: int = 75) -> Picture:
    """What a JPEG leaves of a picture."""
    _, content = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded: Picture = cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1]
    return np.ascontiguousarray(decoded)


def between_bars(picture: Picture, value: int, height: int = 64) -> Picture:
    """The middle of a picture between bars above and below."""
    barred = picture.copy()
    barred[:height] = barred[-height:] = value
    return barred


def tensor_of(picture: Picture) -> Tensor:
    """(1, 3, H, W) in [-1, 1]."""
    return as_signed(picture)[None]


def cells_of(shape: Shape, *, whole: bool = False) -> Tensor:
    """The latent cells that show some of a shape, or (`whole`) nothing else: (h, w) bool."""
    cells = torch.from_numpy(shape).unflatten(0, (-1, 8)).unflatten(2, (-1, 8))
    return cells.all(dim=3).all(dim=1) if whole else cells.any(dim=3).any(dim=1)
