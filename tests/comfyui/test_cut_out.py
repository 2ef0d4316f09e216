# SPDX-License-Identifier: GPL-3.0-or-later
"""Cutting garments out, judged on drawn photographs whose masks are known."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from support.garment_photographs import SHOTS, photograph

pytestmark = pytest.mark.comfyui

GOALS = {"plain": 0.95, "gradient": 0.95, "shadow": 0.9, "hard": 0.9}
HARDEST = {"polo-striped-white.vignette": 0.93}
"""Its stripes have the ground's own colour, along the outline too: the node says so."""

SAID = {
    "tee-optic-white-hairline": "too much alike",
    "coat-ink-charcoal.spot-soft": "several things",
    "dress-green-room-person": "not plain",
    "jumper-red-bricks-drop": "not plain",
    "scarf-floral-sheet-contact": "not plain",
    "tee-tartan-white-two-drop": "several things",
}


@pytest.fixture(scope="module")
def cut_out(pack):
    return importlib.import_module("comfyui_anydressing.nodes.cut_out").cut_out


def overlap(mask, truth):
    """Intersection over union."""
    return (mask & truth).sum() / (mask | truth).sum()


@pytest.mark.parametrize("shot", SHOTS, ids=lambda shot: "-".join(shot.split()))
def test_a_garment_is_cut_out_or_nothing_is(cut_out, shot):
    drawn = photograph(shot)
    found = cut_out(drawn.picture)
    if found.mask is None:
        assert drawn.kind == "hard", found.doubt
        assert SAID.get(drawn.name, "") in found.doubt
        return
    assert drawn.name not in SAID
    assert overlap(found.mask, drawn.mask) >= HARDEST.get(drawn.name, GOALS[drawn.kind]), found.doubt
    assert found.doubt or drawn.name not in HARDEST


@pytest.mark.parametrize("size", [(16, 16), (16, 700), (700, 16), (17, 33)], ids=str)
@pytest.mark.parametrize("shade", [0, 128, 255])
def test_where_nothing_is_nothing_is_cut_out(cut_out, size, shade):
    assert cut_out(np.full((*size, 3), shade, np.uint8)).mask is None


def test_noise_is_no_ground(cut_out):
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    assert cut_out(noise).doubt == "its ground is not plain"
