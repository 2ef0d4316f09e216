# SPDX-License-Identifier: GPL-3.0-or-later
"""A batch's garments, read in the windows in which they lie: no token is lost, moved or another garment's."""

from __future__ import annotations

import pytest
import torch
from comfyui_anydressing.anydressing_core.sites import SD15
from comfyui_anydressing.training.model.garment_parts import side_by_side, whole, windows

HEIGHT, WIDTH, STRIDE = 24, 16, 4
FINE, COARSE = SD15.sites[0], next(site for site in SD15.sites if site.stride == STRIDE)


@pytest.fixture
def cells():
    """Two garments of one size, one larger, one that nobody can tell from its ground."""
    shown = torch.zeros(4, HEIGHT, WIDTH, dtype=torch.bool)
    shown[0, 5:9, 6:10] = True
    shown[1, 12:20, 1:13] = True
    shown[2, 17:23, 3:6] = True
    return shown


def places():
    """Latents that know where they are and whose: row, column, garment, 0."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    own = [torch.stack([rows, columns, torch.full_like(rows, garment), 0 * rows]) for garment in range(4)]
    return torch.stack(own).float()


def tokens_of(part, site):
    """What a call reads: every token knows the first cell that it sees, (g, L, 4)."""
    stride = site.stride
    return part.latents[..., ::stride, ::stride].flatten(2).transpose(1, 2)


@pytest.mark.parametrize("site", [FINE, COARSE], ids=["fine", "coarse"])
def test_every_token_that_shows_a_garment_is_there_once_in_its_place(cells, site):
    parts = windows(places(), cells, STRIDE)
    read, there = side_by_side(parts, [tokens_of(part, site) for part in parts], site)
    assert len(read) == len(there) == 4
    step = site.stride
    for garment, (tokens, mask) in enumerate(zip(read, there, strict=True)):
        seen = cells[garment] if cells[garment].any() else torch.ones_like(cells[garment])
        want = {(row // step * step, column // step * step, garment, 0) for row, column in seen.nonzero().tolist()}
        assert {tuple(map(int, token)) for token in tokens[mask]} == want
        assert int(mask.sum()) == len(want)


def test_garments_of_one_size_are_read_together_and_nothing_around_them(cells):
    parts = windows(places(), cells, STRIDE)
    assert [(part.rows, part.size) for part in parts] == [([0, 2], (8, 8)), ([1], (8, 16)), ([3], (24, 16))]


def test_all_that_is_whole_is_left_as_it_is():
    latents = places()
    (part,) = whole(latents)
    tokens = tokens_of(part, FINE)
    read, there = side_by_side([part], [tokens], FINE)
    assert read is tokens
    assert there is None


def test_whole_canvases_of_which_some_tokens_take_part(cells):
    parts = whole(places(), cells)
    read, there = side_by_side(parts, [tokens_of(parts[0], FINE)], FINE)
    assert there.sum(dim=1).tolist() == [16, 96, 18, HEIGHT * WIDTH]
    assert read.shape[1] == HEIGHT * WIDTH
    assert set(read[1][there[1]][:, 2].tolist()) == {1.0}


def test_a_gradient_reaches_what_was_read(cells):
    parts = windows(places().requires_grad_(), cells, STRIDE)
    read, there = side_by_side(parts, [tokens_of(part, FINE) for part in parts], FINE)
    (grad,) = torch.autograd.grad((read * there[..., None])[..., 0].sum(), [parts[0].latents], retain_graph=True)
    assert grad[:, 0].sum() == 16 + 18  # of the two that are read together
