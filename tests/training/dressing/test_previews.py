# SPDX-License-Identifier: GPL-3.0-or-later
"""Previews: a sheet shows what it says, at its place; its pictures are those that anybody samples with the same seed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from comfyui_anydressing.anydressing_core.heat_maps import COLOURS, VEIL, overlay
from comfyui_anydressing.training.base.model import BaseModel
from comfyui_anydressing.training.base.schedule import NoiseSchedule
from comfyui_anydressing.training.dressing.previews import PreviewRow, Sitter, draw_sheet, sample_rows
from comfyui_anydressing.training.hardware import CPU
from comfyui_anydressing.training.model.people import EncodedGarment, Person, sample_people
from comfyui_anydressing.training.model.sampling import SamplingSettings
from comfyui_anydressing.training.sheets import PAPER, of_step, save_sheet
from diffusers import AutoencoderTiny
from PIL import Image

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = SamplingSettings(steps=2)
SIZE = (64, 48)
NO_TEXT = torch.zeros(7, 24)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
YELLOW, PINK, TEAL = (255, 255, 0), (255, 0, 255), (0, 128, 128)


def plain(colour, size=SIZE):
    return np.full((*size, 3), colour, np.uint8)


def row(slots=("upper", "lower"), **changes):
    content = {
        "caption": "a woman on the beach",
        "slots": slots,
        "flat_lays": [plain(YELLOW)] * len(slots),
        "truth": plain(RED),
        "undressed": plain(GREEN),
        "singles": [plain(BLUE), plain(PINK)] if len(slots) > 1 else [],
        "dressed": plain(TEAL),
        "maps": torch.zeros(len(slots), 8, 6),
    }
    return PreviewRow(**{**content, **changes})


def runs(line):
    """The colours along a line, each named once for every stretch of it longer than 20 pixels."""
    edges = [0, *(np.flatnonzero((line[1:] != line[:-1]).any(axis=1)) + 1), len(line)]
    return [
        tuple(line[start].tolist())
        for start, end in pairwise(edges)
        if end - start > 20 and tuple(line[start]) != PAPER
    ]


# ---- the sheet ------------------------------------------------------------------------------------------------------


def test_a_sheet_has_a_header_and_one_row_a_person():
    one, three = (draw_sheet("step 500", "", [row()] * count) for count in (1, 3))
    # 28 + 44 + (26 + 26 + 320) + 28 high; 28 + 120 + 6 * (10 + 240) + 28 wide
    assert one.size == (1676, 472)
    assert three.size == (1676, 472 + 2 * (26 + 372))


def test_pictures_stand_in_their_columns():
    sheet = np.asarray(draw_sheet("step 500", "", [row(), row(("upper",), truth=None)]))
    first, second = 28 + 44 + 52 + 60, 28 + 44 + 52 + 60 + 372 + 26
    grey = (90,) * 3  # of teal
    assert runs(sheet[first]) == [YELLOW, RED, GREEN, BLUE, PINK, TEAL, grey]
    assert runs(sheet[second]) == [YELLOW, GREEN, TEAL, grey]


def test_a_garments_colour_is_the_same_beside_its_flat_lay_and_in_the_map():
    maps = torch.zeros(2, 8, 6)
    maps[0, :4], maps[1, 4:] = 1, 1
    sheet = np.asarray(draw_sheet("step 500", "", [row(maps=maps)]))
    top = 28 + 44 + 52
    for garment, at in enumerate((top + 40, top + 280)):
        assert tuple(sheet[at, 28]) == COLOURS[garment]
        veiled = VEIL * np.array(COLOURS[garment]) + (1 - VEIL) * 90
        assert abs(sheet[at, -28 - 120] - veiled).max() <= 1


@pytest.mark.parametrize("size", [SIZE, (512, 384), (96, 72)], ids=str)
def test_the_sheet_does_not_grow_with_the_pictures(size):
    pictures = {"undressed": plain(GREEN, size), "dressed": plain(TEAL, size), "truth": plain(RED, size)}
    assert draw_sheet("step 500", "", [row(**pictures)]).size == (1676, 472)


def test_what_is_written_shows_and_long_captions_end_inside():
    assert (
        np.asarray(draw_sheet("step 500", "", [row()])).tobytes()
        != np.asarray(draw_sheet("step 501", "", [row()])).tobytes()
    )
    long = np.asarray(draw_sheet("step 500", "", [row(caption="a very long caption " * 15)]))
    assert (long[:, -28:] == PAPER).all()


def test_a_very_narrow_picture_is_drawn():
    draw_sheet("step 500", "", [row(undressed=plain(GREEN, (512, 64)))])


def test_a_sheet_is_saved_under_its_step_and_replaced_whole(tmp_path):
    for title in ("first", "second"):
        sheet = draw_sheet(title, "", [row()])
        path = save_sheet(tmp_path, of_step(500), sheet)
    assert path == tmp_path / "previews" / "step-00000500.png"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    with Image.open(path) as saved:
        assert saved.tobytes() == sheet.tobytes()


# ---- its pictures ---------------------------------------------------------------------------------------------------


@pytest.fixture
def base(unet):
    torch.manual_seed(7)
    sizes = {"encoder_block_out_channels": (4,) * 4, "decoder_block_out_channels": (4,) * 4}
    vae = AutoencoderTiny(**sizes, num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4).requires_grad_(False)
    return BaseModel("tiny", "0" * 64, None, unet, vae, None, None, NoiseSchedule.sd15(), CPU)


@pytest.fixture
def sitters():
    torch.manual_seed(6)
    coat, skirt = (EncodedGarment(slot, torch.randn(4, 8, 6)) for slot in ("upper", "lower"))
    return [
        Sitter("ann", "a woman", torch.randn(7, 24), [coat, skirt], [plain(YELLOW)] * 2, plain(RED)),
        Sitter("bea", "a girl", torch.randn(7, 24), [skirt], [plain(YELLOW)]),
    ]


def differ(one, other):
    return abs(one.astype(int) - other.astype(int)).max() > 1


def test_a_preview_is_what_anybody_samples_with_the_same_seed(make_model, base, sitters):
    model = make_model()
    ann, bea = sample_rows(model, base, sitters, NO_TEXT, replace(FEW, seed=3), size=SIZE)
    for sitter, drawn in zip(sitters, (ann, bea), strict=True):
        alone = [[garment] for garment in sitter.garments] if len(sitter.garments) > 1 else []
        shown = [drawn.undressed, *drawn.singles, drawn.dressed]
        for worn, picture in zip([[], *alone, sitter.garments], shown, strict=True):
            person = Person(sitter.name, sitter.text, worn)
            (expected,) = sample_people(model, base, [person], NO_TEXT, replace(FEW, seed=3), size=SIZE)
            assert not differ(picture, expected.pixels)
        torch.testing.assert_close(drawn.maps, expected.maps, atol=1e-5, rtol=0)
    assert differ(ann.singles[0], ann.singles[1])
    assert differ(ann.dressed, ann.undressed)
    assert (ann.slots, bea.slots, bea.singles, bea.truth) == (["upper", "lower"], ["lower"], [], None)


def test_a_row_differs_by_its_garments_alone(make_model, base, sitters):
    settings = SamplingSettings(2, strength=0)
    for drawn in sample_rows(make_model(), base, sitters, NO_TEXT, replace(settings, seed=3), size=SIZE):
        assert not any(differ(picture, drawn.undressed) for picture in (*drawn.singles, drawn.dressed))


def test_sampled_rows_can_be_drawn(make_model, base, sitters):
    rows = sample_rows(make_model(), base, sitters, NO_TEXT, replace(FEW, seed=3), size=SIZE)
    assert draw_sheet("step 0", "2 steps", rows).size == (1676, 472 + 26 + 372)


# ---- heat maps ------------------------------------------------------------------------------------------------------


def test_a_veil_lies_where_the_map_is_one_and_nowhere_else():
    picture = np.random.default_rng(0).integers(0, 256, (16, 12, 3), np.uint8)
    maps = torch.zeros(2, 16, 12)
    maps[0, :5], maps[1, 10:] = 1, 1
    seen = overlay(picture, maps, [RED, BLUE])
    assert (seen[5:10] == picture[5:10]).all()
    for rows, colour in ((slice(0, 5), RED), (slice(10, 16), BLUE)):
        expected = VEIL * np.array(colour) + (1 - VEIL) * picture[rows]
        assert abs(seen[rows] - expected).max() <= 0.5
    assert seen.dtype == np.uint8


def test_a_veil_is_as_dense_as_its_map():
    seen = [overlay(plain(WHITE, (1, 1)), torch.full((1, 1, 1), a), [(0, 0, 0)])[0, 0, 0] for a in (0, 0.25, 0.5, 1)]
    assert seen == [255, 204, 153, 51]


def test_a_coarse_map_is_brought_to_the_pictures_size():
    seen = overlay(plain(WHITE, (64, 48)), torch.tensor([[[1.0, 0.0]]]), [(0, 0, 0)])[:, :, 0]
    assert (seen == seen[:1]).all()
    assert (np.diff(seen[0].astype(int)) >= 0).all()
    assert (seen[0, 0], seen[0, -1]) == (51, 255)
