# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of a batch's garments, and which tokens take part: none is lost, moved or another garment's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comfyui_anydressing.anydressing_core.sites import SD15
from comfyui_anydressing.training.model.garment_tokens import Packing, packings, parts_of, side_by_side
from comfyui_anydressing.training.model.outfits import Outfits

HEIGHT, WIDTH, STRIDE = 24, 16, 4
FINE, COARSE = SD15.sites[0], next(site for site in SD15.sites if site.stride == STRIDE)


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


def some_outfits(shown):
    """Latents that know where they are and whose: row, column, garment, 0. shown: (G, h, w) bool."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    own = [torch.stack([rows, columns, torch.full_like(rows, whose), 0 * rows]) for whose in range(len(shown))]
    return Outfits(torch.stack(own).float(), ["upper"] * len(shown), torch.arange(len(shown))[None], shown)


def tokens_at(parts, site):
    """What the calls read at a site, laid side by side: every token knows the first cell that it sees, (G, M, 4)."""
    read = [part.latents[..., :: site.stride, :: site.stride].flatten(2).transpose(1, 2) for part in parts]
    return side_by_side(parts, read, [packings(part.cells, SD15.sites).get(site.key) for part in parts])


@pytest.fixture
def four(cells):
    """The three, and behind them a second small one."""
    other = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    other[0, 17:23, 3:6] = True
    return some_outfits(torch.cat([cells, other]))


@pytest.mark.parametrize("tokens", ["foreground", "cropped"])
@pytest.mark.parametrize("site", [FINE, COARSE], ids=["fine", "coarse"])
def test_a_crop_has_every_token_that_shows_its_garment_once_in_its_place(four, site, tokens):
    read, there = tokens_at(parts_of(four, tokens, STRIDE), site)
    assert len(read) == len(there) == 4
    step = site.stride
    for whose, (own, mask) in enumerate(zip(read, there, strict=True)):
        seen = four.cells[whose] if four.cells[whose].any() else torch.ones_like(four.cells[whose])
        want = {(row // step * step, column // step * step, whose, 0) for row, column in seen.nonzero().tolist()}
        assert {tuple(map(int, token)) for token in own[mask]} == want
        assert int(mask.sum()) == len(want)


def test_crops_of_one_size_are_read_together_and_nothing_around_them(four):
    parts = parts_of(four, "cropped", STRIDE)
    assert [(part.rows, tuple(part.latents.shape[-2:])) for part in parts] == [
        ([0, 3], (8, 8)),
        ([1], (8, 16)),
        ([2], (24, 16)),
    ]


def test_all_that_is_whole_is_left_as_it_is(four):
    for tokens, outfits in (("all", four), ("cropped", replace(four, cells=None))):
        (part,) = parts_of(outfits, tokens, STRIDE)
        assert part.latents is four.latents
        read = torch.randn(4, HEIGHT * WIDTH, 4)
        kept, there = side_by_side([part], [read], [packings(part.cells, SD15.sites).get(FINE.key)])
        assert kept is read
        assert there is None


def test_a_gradient_reaches_what_a_crop_has(four):
    four.latents.requires_grad_()
    read, there = tokens_at(parts_of(four, "cropped", STRIDE), FINE)
    (read * there[..., None]).sum().backward()
    assert torch.equal(four.latents.grad[0, 0] > 0, four.cells[0])
    assert torch.equal(four.latents.grad[3, 0] > 0, four.cells[3])
