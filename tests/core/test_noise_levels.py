# SPDX-License-Identifier: GPL-3.0-or-later
"""Levels of noise, and the one that a step takes."""

import math

import pytest
from comfyui_anydressing.anydressing_core.noise_levels import level_fractions, nearest_level


@pytest.mark.parametrize(
    ("count", "fractions"), [(1, [0.5]), (2, [0.25, 0.75]), (4, [0.125, 0.375, 0.625, 0.875])], ids=str
)
def test_levels_are_the_middles_of_equal_parts(count, fractions):
    assert level_fractions(count) == fractions


@pytest.mark.parametrize(
    ("sigma", "level"), [(0.0, 0), (0.05, 0), (0.19, 0), (0.21, 1), (0.9, 1), (1.1, 2), (100.0, 2)]
)
def test_the_nearest_is_nearest_in_log_snr(sigma, level):
    """Between 0.1 and 0.4 the middle is sqrt(0.1 * 0.4) = 0.2, between 0.4 and 2.5 it is 1."""
    assert math.sqrt(0.4 * 2.5) == 1.0
    assert nearest_level(sigma, [0.1, 0.4, 2.5]) == level
