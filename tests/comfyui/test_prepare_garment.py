# SPDX-License-Identifier: GPL-3.0-or-later
"""AnyDressing Prepare Garment: from a photograph to the garment alone."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from support.drawn_garments import shirt

pytestmark = pytest.mark.comfyui


@pytest.fixture
def said(monkeypatch):
    """What the node says to the artist."""
    lines = []
    module = importlib.import_module("comfyui_anydressing.nodes.prepare_garment")
    monkeypatch.setattr(module, "tell", lambda node, text: lines.append(text))
    return lines


@pytest.fixture
def prepare(studio):
    def prepare(picture, **inputs):
        image = torch.from_numpy(picture).float()[None] / 255
        return studio.pack["AnyDressingPrepareGarment"].execute(image, 96, 128, **inputs).args

    return prepare


def test_a_garment_comes_on_white_and_cropped(prepare, said):
    image, mask = prepare(np.pad(shirt(140)[0], ((100, 0), (200, 0), (0, 0)), "edge"))
    assert image.shape == (1, 128, 96, 3)
    assert mask.shape == (1, 128, 96)
    across = (mask[0] > 0.5).any(dim=0).sum()
    assert across >= 0.85 * 96, "with a margin of a twentieth it fills the picture's width"
    assert image[0, :3].min() == 1.0
    assert image[mask > 0.99].mean() < 0.8
    (line,) = said
    assert "cut out of its ground" in line


def test_a_mask_is_believed(prepare, said):
    picture, shape = shirt(140)
    half = shape.copy()
    half[: len(half) // 2] = False
    image, mask = prepare(picture, mask=torch.from_numpy(half).float()[None])
    inverted = prepare(picture, mask=1 - torch.from_numpy(half).float()[None], invert_mask=True)
    assert torch.equal(image, inverted[0])
    assert torch.equal(mask, inverted[1])
    assert "by the mask" in said[0]


def test_what_cannot_be_told_is_passed_on_whole(prepare, said):
    noise = np.random.default_rng(0).integers(0, 256, (128, 96, 3), np.uint8)
    image, mask = prepare(noise)
    torch.testing.assert_close(image[0], torch.from_numpy(noise).float() / 255, atol=1e-5, rtol=0)
    assert mask.min() == 1
    assert "could not tell garment and ground apart: its ground is not plain" in said[0]
    assert "Remove Background" in said[0]


def test_garment_encode_takes_it_as_it_comes(prepare, studio):
    """Whatever the ground was, the garment that is read is nearly the same."""
    (on_grey, mask), (on_white, _) = (prepare(shirt(ground)[0]) for ground in (140, 255))
    assert float((on_grey - on_white).abs().mean()) < 0.005
    garment = studio.garment("upper", image=on_grey, mask=mask, size="custom", height=128, width=96)
    assert garment.content


@pytest.mark.parametrize("inputs", [{"width": 100}, {"height": 32}, {"width": None}], ids=str)
def test_sizes_are_checked(studio, inputs):
    image = torch.rand(1, 64, 64, 3)
    with pytest.raises(ValueError, match=r"width|height"):
        studio.run(studio.pack["AnyDressingPrepareGarment"], image, **{"width": 96, "height": 128, **inputs})
