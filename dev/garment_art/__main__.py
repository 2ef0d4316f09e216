# SPDX-License-Identifier: GPL-3.0-or-later
"""Rewrites the garment pictures: `python -m dev.garment_art`."""

from __future__ import annotations

from PIL import Image

from . import FOLDER, GARMENTS

for name, draw in GARMENTS.items():
    Image.fromarray(draw()).save(FOLDER / f"{name}.png", optimize=True)
