# SPDX-License-Identifier: GPL-3.0-or-later
"""The paper-doll world: people in procedural garments, painted from a seed, with flat-lays, exact masks and captions."""

from __future__ import annotations

from .contact_sheets import contact_sheet
from .dataset import write_dataset
from .fabrics import SPLITS, Split, split_of
from .garments import SLOTS
from .samples import (
    LABEL_SPACES,
    GarmentLabels,
    GarmentPictures,
    Labels,
    Recipe,
    Sample,
    draw_recipe,
    render,
    sample,
)

__all__ = [
    "LABEL_SPACES",
    "SLOTS",
    "SPLITS",
    "GarmentLabels",
    "GarmentPictures",
    "Labels",
    "Recipe",
    "Sample",
    "Split",
    "contact_sheet",
    "draw_recipe",
    "render",
    "sample",
    "split_of",
    "write_dataset",
]
