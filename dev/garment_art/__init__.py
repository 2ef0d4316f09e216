# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws the example garments in `workflows/garments`: flat-lays on white, the same bytes each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import breton, hat, jeans, tee

FOLDER = Path(__file__).parents[2] / "workflows" / "garments"
GARMENTS: dict[str, Callable[[], NDArray[np.uint8]]] = {
    "upper_breton": breton.draw,
    "lower_denim": jeans.draw,
    "hat_straw": hat.draw,
    "upper_logo_tee": tee.draw,
}
