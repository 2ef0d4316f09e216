# SPDX-License-Identifier: GPL-3.0-or-later
"""Picture files: read as bytes or in [0, 1], written as PNG. For pictures that are ours; strangers' go through `data.pictures`."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..anydressing_core.pixels import Pixels, as_unit


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


def png_bytes(picture: Image.Image) -> bytes:
    """The content of a PNG file."""
    content = io.BytesIO()
    picture.save(content, "png")
    return content.getvalue()


def jpeg_bytes(picture: Image.Image, quality: int = 95) -> bytes:
    """The content of a JPEG file that, as it is, looks as the picture does."""
    content = io.BytesIO()
    picture.save(content, "jpeg", quality=quality, subsampling=0)
    return content.getvalue()


def embedded_jpeg(picture: Image.Image, quality: int) -> str:
    """The same in base64, as a page of HTML holds it."""
    return base64.b64encode(jpeg_bytes(picture, quality)).decode()
