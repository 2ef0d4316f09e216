# SPDX-License-Identifier: GPL-3.0-or-later
"""Cut-out garments are made unlike themselves, the same way every time, and stay garments."""

from __future__ import annotations

import pytest
import torch
from comfyui_anydressing.training.data.jitter import HIDDEN, jittered
from comfyui_anydressing.training.data.pictures import Source, cut_out
from PIL import Image


@pytest.fixture
def garment():
    """A red block, 60 x 40, with a blue left half, at the right border of a grey picture; and its shape."""
    picture = torch.zeros(1, 3, 100, 80)
    picture[..., 20:80, 40:80] = torch.tensor([1.0, -1.0, -1.0])[None, :, None, None]
    picture[..., 20:80, 40:60] = torch.tensor([-1.0, -1.0, 1.0])[None, :, None, None]
    shape = torch.zeros(1, 1, 100, 80)
    shape[..., 20:80, 40:80] = 1
    return picture, shape


def test_nothing_happens_at_amount_0(garment):
    picture, shape = jittered(*garment, 0.0, 7)
    inside = shape[0, 0] > 0
    assert int(inside.sum()) == 60 * 40
    rows, columns = inside.nonzero(as_tuple=True)
    cut = picture[0, :, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    torch.testing.assert_close(cut, garment[0][0, :, 20:80, 40:80])


def test_a_seed_decides_and_another_is_another(garment):
    once, again, other = (jittered(*garment, 1.0, seed) for seed in (7, 7, 8))
    assert torch.equal(once[0], again[0])
    assert torch.equal(once[1], again[1])
    assert not torch.equal(once[1], other[1])


@pytest.mark.parametrize("seed", range(20))
def test_a_garment_keeps_its_colours_and_most_of_its_area(garment, seed):
    picture, shape = jittered(*garment, 1.0, seed)
    inside = shape[0, 0] > 0
    assert 1 - HIDDEN**2 - 0.1 <= int(inside.sum()) / (60 * 40) <= 1.1
    colours = picture[0][:, inside]
    assert float((colours[1] > -0.5).float().mean()) < 0.06  # neither grey ground nor white but at the rim
    assert not inside[0].any()  # nothing is turned out of the picture
    assert not inside[:, -1].any()


def test_a_cut_out_is_jittered_by_its_files_and_where_it_is_asked_for(tmp_path):
    person, mask = Image.new("RGB", (80, 100), "grey"), Image.new("L", (80, 100))
    person.paste((200, 30, 30), (20, 20, 60, 80))
    mask.paste(255, (20, 20, 60, 80))
    person.save(tmp_path / "p.png")
    mask.save(tmp_path / "m.png")
    files = [Source.find(name, tmp_path / name) for name in ("p.png", "m.png")]
    plain, bent, again = (cut_out(*files, (96, 72), amount).picture for amount in (0.0, 1.0, 1.0))
    assert torch.equal(bent, again)
    assert not torch.equal(plain, bent)
    assert torch.equal(plain, cut_out(*files, (96, 72)).picture)
