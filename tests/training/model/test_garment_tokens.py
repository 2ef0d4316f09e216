# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tokens of a batch's garments take part: none is lost, moved or another garment's."""

from __future__ import annotations

import pytest
import torch
from comfyui_anydressing.training.model.garment_tokens import Packing

HEIGHT, WIDTH = 24, 16


@pytest.fixture
def cells():
    """A small garment, a larger one, and one that nobody can tell from its ground."""
    shown = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.bool)
    shown[0, 5:9, 6:10] = True
    shown[1, 12:20, 1:13] = True
    return shown


@pytest.mark.parametrize("step", [1, 4], ids=["fine", "coarse"])
def test_every_token_that_shows_a_garment_is_there_once_in_its_order(cells, step):
    grid = (HEIGHT // step, WIDTH // step)
    own = torch.cartesian_prod(
        torch.arange(grid[0]), torch.arange(grid[1])
    )  # every token knows its place, and whose it is
    tokens = torch.stack([torch.cat([own, torch.full((len(own), 1), whose)], dim=1) for whose in range(3)]).float()
    packing = Packing.of(cells, grid)
    kept, there = packing.pack(tokens), packing.there
    for whose in range(3):
        seen = cells[whose] if cells[whose].any() else torch.ones_like(cells[whose])
        want = sorted({(row // step, column // step, whose) for row, column in seen.nonzero().tolist()})
        assert [tuple(map(int, token)) for token in kept[whose][there[whose]]] == want
    assert kept.shape[1] == grid[0] * grid[1]  # the third has all


def test_no_more_is_laid_out_than_the_largest_garment_has(cells):
    packing = Packing.of(cells[:2], (HEIGHT, WIDTH))
    kept, there = packing.pack(torch.randn(2, HEIGHT * WIDTH, 3)), packing.there
    assert kept.shape == (2, 8 * 12, 3)
    assert there.sum(dim=1).tolist() == [16, 96]


def test_a_gradient_reaches_what_takes_part_alone(cells):
    tokens = torch.randn(3, HEIGHT * WIDTH, 2, requires_grad=True)
    packing = Packing.of(cells, (HEIGHT, WIDTH))
    kept, there = packing.pack(tokens), packing.there
    (grad,) = torch.autograd.grad((kept * there[..., None]).sum(), [tokens])
    assert torch.equal(grad[0, :, 0] > 0, cells[0].flatten())
