# SPDX-License-Identifier: GPL-3.0-or-later
"""The garment's canvas: padded on white, never stretched; which tokens show the garment."""

import pytest
import torch
from comfyui_anydressing.anydressing_core.canvas import (
    foreground_tokens,
    garment_canvas,
    lay_out,
    region_on_grid,
    stretch_out,
    window_around,
)


def solid(height, width, value=-0.5):
    return torch.full((1, 3, height, width), value)


def test_a_wide_picture_is_centred_between_white_bars():
    canvas = garment_canvas(solid(20, 40), 80, 80)
    assert canvas.shape == (1, 3, 80, 80)
    assert (canvas[..., :20, :] == 1).all()
    assert (canvas[..., 60:, :] == 1).all()
    torch.testing.assert_close(canvas[..., 20:60, :], solid(40, 80))


@pytest.mark.parametrize("size", [(1000, 30), (30, 1000), (33, 77), (768, 576)])
def test_any_picture_fits_the_canvas(size):
    assert garment_canvas(solid(*size), 64, 48).shape == (1, 3, 64, 48)


def test_a_picture_of_the_canvas_size_stays_as_it_is():
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 64, 48) * 2 - 1
    torch.testing.assert_close(garment_canvas(picture, 64, 48), picture)


def test_the_mask_whitens_the_background():
    mask = torch.zeros(1, 1, 64, 48)
    mask[..., :32, :] = 1
    canvas = garment_canvas(solid(64, 48), 64, 48, mask=mask)
    assert (canvas[..., 32:, :] == 1).all()
    assert (canvas[..., :32, :] < 0).all()


def test_background_is_the_white_that_touches_the_border():
    canvas = solid(64, 64, 1.0)
    canvas[..., 16:48, 16:48] = 0.0  # a square garment
    canvas[..., 24:40, 24:40] = 1.0  # with a white print inside
    laid_out = lay_out(canvas, 64, 64)
    want = torch.zeros(8, 8, dtype=torch.bool)
    want[2:6, 2:6] = True
    assert torch.equal(laid_out.cells, want)
    assert laid_out.share == 0.25
    assert not laid_out.masked


def test_a_winding_background_is_followed_to_its_end():
    canvas = solid(80, 80, 1.0)
    canvas[..., 8:72, 8:72] = 0.0
    for row, column in [(1, 2), (2, 2), (3, 2), (3, 3), (3, 4), (2, 4)]:
        canvas[..., row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 1.0
    assert (~lay_out(canvas, 80, 80).cells).sum() == 100 - 64 + 6


def test_a_mask_cuts_the_garment_out_with_a_margin():
    picture = solid(200, 100, -1.0)
    mask = torch.zeros(1, 1, 200, 100)
    mask[..., 20:60, 40:60] = 1  # 40 x 20, so the margin is 2
    laid_out = lay_out(picture, 88, 48, mask)
    assert laid_out.masked
    assert laid_out.share == pytest.approx(0.04)
    torch.testing.assert_close(
        laid_out.picture, garment_canvas(picture[..., 18:62, 38:62], 88, 48, mask[..., 18:62, 38:62])
    )
    assert laid_out.cells.all()
    assert (laid_out.picture[..., :3, :] > 0.9).all()  # the margin


def test_what_is_cut_out_at_the_pictures_edge_has_its_margin_too():
    mask = torch.zeros(1, 1, 60, 60)
    mask[..., 20:, 40:] = 1
    canvas = lay_out(solid(60, 60, 0.0), 88, 48, mask).picture
    assert (canvas[..., :, :3] > 0.9).all()
    assert (canvas[..., :, -3:] > 0.9).all()
    assert (canvas[..., 44, 10:38].abs() < 0.01).all()


def test_a_canvas_of_next_to_nothing_is_known():
    picture = solid(64, 64, 1.0)
    picture[..., :8, :8] = -1
    everything = torch.ones(1, 1, 64, 64)
    assert not lay_out(picture, 64, 64, everything).is_nearly_empty
    assert lay_out(picture, 64, 64, everything - (picture[:, :1] < 0).float()).is_nearly_empty


def test_a_token_counts_when_any_of_its_cells_does():
    cells = torch.zeros(8, 8, dtype=torch.bool)
    cells[0, 0] = True
    assert foreground_tokens(cells, (4, 4)).nonzero().tolist() == [[0]]


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (8, 8)], ids=str)
def test_one_foreground_cell_keeps_a_token_at_every_site(grid):
    for row in range(8):
        cells = torch.zeros(8, 8, dtype=torch.bool)
        cells[row, 7 - row] = True
        assert foreground_tokens(cells, grid).any()


@pytest.mark.parametrize(
    ("rows", "columns", "want"),
    [
        (slice(5, 9), slice(6, 10), (0, 0, 16, 16)),
        (slice(8, 16), slice(16, 17), (8, 16, 8, 4)),
        (slice(30, 37), slice(0, 20), (24, 0, 13, 20)),
        (slice(0, 0), slice(0, 0), (0, 0, 37, 20)),
    ],
)
def test_a_window_holds_the_garment_in_whole_steps_and_ends_with_the_canvas(rows, columns, want):
    cells = torch.zeros(37, 20, dtype=torch.bool)
    cells[rows, columns] = True
    window = window_around(cells, 8)
    assert window == want
    assert window.of(cells).sum() == cells.sum()


def test_a_region_is_averaged_over_each_token():
    mask = torch.zeros(8, 8)
    mask[:4, :3] = 1
    assert region_on_grid(mask, (2, 2)).tolist() == [0.75, 0.0, 0.0, 0.0]


# --- for a garment model of others -----------------------------------------------------------------------------------


def test_plain_ground_turns_grey_where_a_garment_is_stretched_out():
    picture = solid(40, 80, 0.8)
    picture[..., 10:30, 20:60] = torch.rand(1, 3, 20, 40, generator=torch.Generator().manual_seed(0)) - 1
    canvas = stretch_out(picture, 80, 80)
    assert canvas.picture.shape == (1, 3, 80, 80)
    assert (canvas.picture[..., :8, :] == 0).all()
    assert (canvas.picture[..., 30:50, 30:50] < 0.1).all()
    assert 0.2 < canvas.share < 0.5


def test_a_picture_of_one_colour_is_stretched_out_as_it_is():
    canvas = stretch_out(solid(40, 80), 80, 80)
    torch.testing.assert_close(canvas.picture, solid(80, 80))
    assert not canvas.cells.any()
