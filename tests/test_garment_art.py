# SPDX-License-Identifier: GPL-3.0-or-later
"""The example garments in `workflows/garments` are what `python -m dev.garment_art` draws."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dev.garment_art import FOLDER, GARMENTS


def stored(name: str) -> np.ndarray:
    """The committed picture, decoded."""
    with Image.open(FOLDER / f"{name}.png") as picture:
        assert picture.mode == "RGB"
        return np.asarray(picture)


@pytest.mark.parametrize("name", GARMENTS)
def test_committed_garment_is_what_the_script_draws(name):
    drawn = GARMENTS[name]()
    assert np.array_equal(stored(name), drawn), f"{name}.png is stale: run `python -m dev.garment_art`"


@pytest.mark.parametrize("name", GARMENTS)
def test_garment_lies_on_pure_white(name):
    picture = stored(name)
    assert picture.shape == (768, 576, 3)
    border = np.ones((768, 576), bool)
    border[16:-16, 16:-16] = False
    assert (picture[border] == 255).all()
    assert (picture < 255).any()


def test_garments_are_small_and_all_of_them_are_drawn():
    sizes = {path.stem: path.stat().st_size for path in FOLDER.glob("*.png")}
    assert sizes.keys() == GARMENTS.keys()
    assert max(sizes.values()) <= 120_000
    assert sum(sizes.values()) <= 400_000
