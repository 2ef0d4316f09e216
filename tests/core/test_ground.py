# SPDX-License-Identifier: GPL-3.0-or-later
"""Which cells show the garment, judged on drawn photographs whose outline is known."""

import cv2
import numpy as np
import pytest
import torch
from comfyui_anydressing.anydressing_core.canvas import lay_out
from support.drawn_garments import (
    HEIGHT,
    WIDTH,
    as_jpeg,
    between_bars,
    cells_of,
    gradient,
    plain,
    shirt,
    tensor_of,
    with_shadow,
)


def judged(picture, shape, height=HEIGHT, width=WIDTH):
    """(the share of the garment's cells that were kept, the share of pure ground that was dropped, the canvas)."""
    canvas = lay_out(tensor_of(picture), height, width)
    worn = cells_of(shape)
    return float(canvas.cells[worn].float().mean()), float((~canvas.cells)[~worn].float().mean()), canvas


@pytest.mark.parametrize("finish", [lambda picture: picture, as_jpeg], ids=["png", "jpeg"])
@pytest.mark.parametrize("ground", [255, 248, 246, 243, 235, 220, 30])
def test_a_garment_is_told_from_a_plain_ground(ground, finish):
    picture, shape = shirt(ground)
    kept, dropped, canvas = judged(finish(picture), shape)
    assert kept == 1
    assert dropped > (0.99 if finish is not as_jpeg else 0.9)  # JPEG's blocks ring around the outline
    assert canvas.is_told_apart
    assert abs(canvas.share - shape.mean()) < 0.09


@pytest.mark.parametrize("ground", [255, 246])
def test_a_white_shirt_keeps_its_white(ground):
    picture, shape = shirt(ground, colour=(255, 255, 255), stripes=False)
    kept, dropped, canvas = judged(picture, shape)
    assert kept > 0.99
    assert dropped > 0.99
    assert canvas.is_told_apart


def test_a_white_shirt_without_any_outline_is_white_on_white():
    """Where garment and ground are the very same white nobody can tell, so nothing is kept."""
    canvas = lay_out(tensor_of(plain(255)), HEIGHT, WIDTH)
    assert not canvas.cells.any()
    assert not canvas.is_told_apart
    assert canvas.is_nearly_empty


def test_a_shadow_costs_a_few_cells_and_no_garment():
    for ground in (255, 246):
        picture, shape = shirt(ground)
        kept, dropped, canvas = judged(with_shadow(picture, shape), shape)
        assert kept == 1
        assert dropped > 0.75
        assert canvas.is_told_apart


def test_a_soft_gradient_is_not_told_apart_and_nothing_is_lost():
    picture, shape = shirt(gradient(246, 214))
    kept, _, canvas = judged(picture, shape)
    assert kept == 1
    assert not canvas.is_told_apart
    assert canvas.share > 0.85


def test_a_gradient_within_the_tolerance_is_plain():
    picture, shape = shirt(gradient(248, 242))
    kept, dropped, canvas = judged(picture, shape)
    assert (kept, canvas.is_told_apart) == (1, True)
    assert dropped > 0.99


@pytest.mark.parametrize("ground", [255, 246, 30])
def test_a_garment_may_touch_the_border(ground):
    picture, shape = shirt(ground)
    picture, shape = (np.roll(each, -90, 0)[: HEIGHT - 120] for each in (picture, shape))  # its hem is cut off
    picture = np.concatenate([picture[:264], np.repeat(picture[223:224], 120, 0)])
    shape = np.concatenate([shape[:264], np.repeat(shape[223:224], 120, 0)])
    assert shape[-1].mean() > 0.3
    kept, dropped, canvas = judged(picture, shape)
    assert kept == 1
    assert dropped > 0.9
    assert canvas.is_told_apart


@pytest.mark.parametrize("bars", [255, 0])
def test_bars_of_a_letterbox_are_ground_and_so_is_what_lies_between_them(bars):
    picture, shape = shirt(220)
    barred = between_bars(picture, bars)
    shape = shape.copy()
    shape[:64] = shape[-64:] = False
    kept, dropped, canvas = judged(barred, shape)
    assert kept == 1
    assert dropped > 0.99
    assert canvas.is_told_apart
    turned = lay_out(tensor_of(np.ascontiguousarray(barred.swapaxes(0, 1))), WIDTH, HEIGHT)
    assert torch.equal(turned.cells, canvas.cells.T)


@pytest.mark.parametrize("ground", [255, 246])
def test_bars_of_our_own_canvas_are_ground(ground):
    picture, shape = shirt(ground)
    wide = lay_out(tensor_of(picture), HEIGHT, 2 * WIDTH)
    assert not wide.cells[:, : WIDTH // 16].any()
    assert torch.equal(wide.cells[:, WIDTH // 16 : -(WIDTH // 16)], lay_out(tensor_of(picture), HEIGHT, WIDTH).cells)
    assert wide.share == pytest.approx(float(cells_of(shape).float().mean()), abs=0.01)


def test_a_garment_as_wide_as_the_picture_is_no_letterbox():
    picture = plain(255)
    picture[96:288] = (176, 40, 52)
    canvas = lay_out(tensor_of(picture), HEIGHT, WIDTH)
    assert canvas.cells[12:36].all()
    assert canvas.share == 0.5


def test_a_person_before_a_wall_and_a_floor_is_said_not_to_be_told_apart():
    """Nothing here knows people; what is no plain ground is taken whole, and that is said."""
    noise = np.random.default_rng(0).normal(0, 9, (HEIGHT, WIDTH, 3))
    scene = gradient(190, 150).astype(np.float64)
    scene[280:] = (120, 96, 70)
    cv2.circle(scene, (60, 60), 40, (230, 210, 120), -1)
    picture, shape = shirt((scene + noise).clip(0, 255).astype(np.uint8))
    cv2.circle(picture, (144, 44), 26, (224, 180, 150), -1)
    kept, _, canvas = judged(picture, shape)
    assert kept == 1
    assert not canvas.is_told_apart
    assert canvas.share > 0.95


def test_pure_white_is_judged_as_it_always_was():
    """Files trained with `foreground` keep their pictures: the old rule, written out, gives the same cells."""
    generator = np.random.default_rng(1)
    for trial in range(20):
        picture, _ = shirt(255, colour=tuple(int(value) for value in generator.integers(0, 256, 3)))
        if trial % 2:
            picture = as_jpeg(picture, 90)
        canvas = lay_out(tensor_of(picture), HEIGHT, WIDTH + 64)
        assert torch.equal(canvas.cells, ~old_background(canvas.picture)), trial


def old_background(canvas):
    dark = canvas.amin(dim=1)[0].unflatten(0, (-1, 8)).unflatten(2, (-1, 8)).amin(dim=(1, 3))
    blank = (dark >= 0.94).numpy()
    _, labels = cv2.connectedComponents(np.pad(blank, 1, constant_values=True).astype(np.uint8), connectivity=4)
    return torch.from_numpy(labels[1:-1, 1:-1] == labels[0, 0])
