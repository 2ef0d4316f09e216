# SPDX-License-Identifier: GPL-3.0-or-later
"""What whoever needs to know where garments are asks of whoever sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .pictures import Source

Mask = NDArray[np.bool_]


class Parser(Protocol):
    """Sees where garments are. digest: of its weights; what it saw is kept by it."""

    @property
    def digest(self) -> str: ...

    def parse(self, person: Source) -> Mapping[str, Mask]:
        """By slot, where such a garment shows on the upright picture: (H, W). Raises BadPictureError."""
        ...
