# SPDX-License-Identifier: GPL-3.0-or-later
"""The three ranges of a picture, and the sizes of its latents."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from comfyui_anydressing.anydressing_core.latents import half_size, is_whole, latent_size
from comfyui_anydressing.anydressing_core.pixels import as_pixels, as_signed, as_unit, bytes_of, signed_of, unit_of

EVERY_BYTE = np.arange(256 * 3, dtype=np.uint16).astype(np.uint8).reshape(16, 16, 3)


@pytest.mark.parametrize("there", [as_signed, lambda pixels: signed_of(as_unit(pixels))], ids=["signed", "by unit"])
def test_every_byte_comes_back(there):
    assert (as_pixels(there(EVERY_BYTE)) == EVERY_BYTE).all()


def test_the_ends_of_each_range_by_hand():
    pixels = np.array([[[0, 51, 255]]], np.uint8)
    assert as_unit(pixels).flatten().tolist() == pytest.approx([0.0, 0.2, 1.0])
    assert as_signed(pixels).flatten().tolist() == pytest.approx([-1.0, -0.6, 1.0])
    assert unit_of(torch.tensor([-1.0, 0.0, 1.0, 3.0])).tolist() == [0.0, 0.5, 1.0, 2.0]  # not clamped


def test_bytes_are_rounded_and_what_overshoots_is_cut_off():
    assert bytes_of(torch.tensor([-0.1, 0.0, 0.4981, 1.0, 1.2])).tolist() == [0, 0, 127, 255, 255]


def test_an_image_becomes_bytes():
    image = torch.tensor([-7.0, -1.0, 0.0, 1.0, 7.0])[None, None].expand(3, 2, 5)
    pixels = as_pixels(image)
    assert pixels.shape == (2, 5, 3)
    assert pixels[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_a_gradient_passes_between_the_ranges():
    image = torch.tensor([-2.0, 0.5], requires_grad=True)
    unit_of(image).sum().backward()
    assert image.grad.tolist() == [0.5, 0.5]


def test_a_cell_has_eight_pixels():
    assert latent_size((768, 576)) == (96, 72)
    assert is_whole((768, 576))
    assert not is_whole((768, 570))


@pytest.mark.parametrize(("size", "half"), [((768, 576), (384, 288)), ((72, 56), (32, 24)), ((8, 16), (0, 8))])
def test_half_a_size_is_whole_cells(size, half):
    assert half_size(size) == half
