# SPDX-License-Identifier: GPL-3.0-or-later
"""The few levels of noise at which a garment is read in reference mode, and which of them a step takes."""

from __future__ import annotations

import math
from collections.abc import Sequence

LEVELS = 8
SEED = 7
"""Of the noise that is laid over every garment, at every level: the same picture reads alike, whenever and in any order."""


def level_fractions(count: int) -> list[float]:
    """Where the levels lie between the clean picture, 0, and pure noise, 1: the middles of `count` equal parts."""
    return [(index + 0.5) / count for index in range(count)]


def nearest_level(sigma: float, sigmas: Sequence[float]) -> int:
    """Which level is nearest to a step's noise in log-SNR. sigma: noise over signal, above 0 for every level."""
    step = math.log(max(sigma, 1e-12))
    return min(range(len(sigmas)), key=lambda index: abs(math.log(sigmas[index]) - step))
