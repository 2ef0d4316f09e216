# SPDX-License-Identifier: GPL-3.0-or-later
"""Canny by hand: a vertical step of c grey levels has the 3x3 Sobel gradient 4c, and an edge begins above 200."""

import pytest
import torch
from comfyui_anydressing.training.data.edges import THRESHOLDS, canny_edges


def grey(level):
    """A level of 0..255 in [-1, 1]."""
    return level / 127.5 - 1


def step(dark, bright, size=12):
    """(1, 3, 12, 12): the left half dark, the right half bright. dark, bright: a level or three (R, G, B)."""
    image = torch.empty(1, 3, size, size)
    image[..., : size // 2] = grey(torch.as_tensor(dark, dtype=torch.float32).reshape(-1, 1, 1))
    image[..., size // 2 :] = grey(torch.as_tensor(bright, dtype=torch.float32).reshape(-1, 1, 1))
    return image


def test_thresholds_are_the_ones_we_document():
    assert THRESHOLDS == (100, 200)


def test_a_step_is_one_line_of_edge_beside_it():
    edges = canny_edges(step(0, 255))
    assert edges.shape == (1, 1, 12, 12)
    assert edges.dtype == torch.float32
    assert set(edges.unique().tolist()) == {0.0, 1.0}
    assert edges[0, 0].sum(dim=1).tolist() == [1.0] * 12  # one pixel in each row ...
    assert edges[0, 0, :, 5:7].sum() == 12  # ... on one side of the step


@pytest.mark.parametrize(("contrast", "found"), [(50, False), (51, True)])
def test_an_edge_begins_above_two_hundred(contrast, found):
    assert bool(canny_edges(step(100, 100 + contrast)).any()) is found


def test_channels_are_red_green_blue():
    assert canny_edges(step((0, 0, 0), (255, 0, 0))).any()  # luminance 76, gradient 304
    assert not canny_edges(step((0, 0, 0), (0, 0, 255))).any()  # luminance 29, gradient 116


def test_a_plain_picture_has_none():
    assert not canny_edges(torch.full((1, 3, 12, 12), 0.3)).any()


def test_values_beyond_the_range_are_clamped_not_wrapped():
    assert not canny_edges(step(255, 255 + 128)).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_the_same_fp32_edges(dtype):
    image = step(0, 255)
    assert torch.equal(canny_edges(image.to(dtype)), canny_edges(image))


def test_a_picture_has_the_same_edges_in_any_batch_and_any_run():
    torch.manual_seed(0)
    batch = torch.rand(3, 3, 48, 36) * 2 - 1
    edges = canny_edges(batch)
    assert torch.equal(edges, canny_edges(batch))
    assert torch.equal(edges, torch.cat([canny_edges(batch[row : row + 1]) for row in range(3)]))


def test_no_gradient_passes_and_the_picture_stays():
    image = step(0, 255).requires_grad_()
    before = image.detach().clone()
    assert not canny_edges(image).requires_grad
    assert torch.equal(image.detach(), before)
