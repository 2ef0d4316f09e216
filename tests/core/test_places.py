# SPDX-License-Identifier: GPL-3.0-or-later
"""Places: where garments belong, from what pixels look for."""

import math

import pytest
import torch
from comfyui_anydressing.anydressing_core.places import (
    ELSEWHERE,
    KEPT,
    SHARPNESS,
    Places,
    on_grid,
    probe_site,
    word_maps,
    words_for,
)
from comfyui_anydressing.anydressing_core.sites import SD15

HEADS, DIM = 2, 4
C = HEADS * DIM


def test_word_maps_are_the_formula_written_out():
    torch.manual_seed(0)
    query, prompt, words = torch.randn(2, 5, C), torch.randn(2, 7, C), torch.randn(1, 3, C)
    maps = word_maps(query, prompt, words, HEADS)
    assert maps.shape == (2, 5, 3)
    for row in range(2):
        for pixel in range(5):
            for word in range(3):
                shares = []
                for head in range(HEADS):
                    part = slice(head * DIM, (head + 1) * DIM)
                    q = query[row, pixel, part] / math.sqrt(DIM)
                    wanted = math.exp(float(q @ words[0, word, part]))
                    offered = sum(math.exp(float(q @ key)) for key in prompt[row, :, part])
                    shares.append(wanted / (wanted + offered))
                assert float(maps[row, pixel, word]) == pytest.approx(sum(shares) / HEADS, rel=1e-5)


def looks(*centres, size=(16, 12)):
    """A step's maps of garments that are each looked for around one row, as a layer of half the size sees it."""
    rows = torch.arange(size[0] // 2, dtype=torch.float32)
    maps = [torch.exp(-((rows - centre) ** 2) / 4)[:, None].expand(-1, size[1] // 2) for centre in centres]
    return torch.stack(maps, dim=-1)[None]


def places_of(*steps):
    places = Places()
    for maps in steps:
        places.see(maps, (16, 12))
    return places


def test_a_garment_has_the_place_that_looks_for_it_and_the_rest_is_nobodys():
    assert Places().among([0, 1]) is None
    found = places_of(looks(1, 6)).among([0, 1])
    assert found.shape == (1, 2, 16, 12)
    assert found.sum(dim=1).max() < 1
    assert found[0, 0, 3].min() > 0.99
    assert found[0, 1, 12].min() > 0.99
    assert found[0, :, 7].sum(dim=0).max() < 0.3  # half-way


def test_places_are_the_softmax_written_out():
    one, other = 1.0, 0.25
    maps = torch.zeros(1, 16, 12, 2)
    maps[0, 0, 0] = torch.tensor([one, 2 * other])
    maps[0, 8:] = torch.tensor([one / 2, 2 * one])
    found = places_of(maps).among([0, 1])[0, :, 0, 0]
    logits = [SHARPNESS * level for level in (one, other, ELSEWHERE)]
    total = sum(map(math.exp, logits))
    assert found.tolist() == pytest.approx([math.exp(logits[0]) / total, math.exp(logits[1]) / total], rel=1e-4)


def test_maps_count_relative_to_their_own_maximum():
    """A word that is looked for faintly everywhere has its place all the same."""
    maps = looks(1, 6)
    quiet = places_of(maps * torch.tensor([1.0, 0.01])).among([0, 1])
    torch.testing.assert_close(quiet, places_of(maps).among([0, 1]), atol=1e-5, rtol=1e-5)


def test_garments_of_like_words_share_their_place():
    places = places_of(looks(2, 2, 6))
    found = places.among([0, 1, 2])
    torch.testing.assert_close(found[:, 0], found[:, 1])
    assert 0.45 < float(found[0, 0, 4, 3]) < 0.5
    assert float(places.among([0])[0, 0, 4, 3]) > 0.99


def test_steps_are_averaged():
    one, other = looks(1, 6), looks(3, 5)
    apart, together = places_of(one, other), places_of(KEPT * one + (1 - KEPT) * other)
    torch.testing.assert_close(apart.among([0, 1]), together.among([0, 1]))


def test_places_on_a_sites_grid_keep_their_rows():
    places = torch.arange(16.0)[None, None, :, None].expand(1, 1, 16, 12)
    laid = on_grid(places, (8, 6))
    assert laid.shape == (1, 48, 1)
    assert laid[0, ::6, 0].tolist() == [0.5 + 2 * row for row in range(8)]


@pytest.mark.parametrize(
    ("size", "level"),
    [((64, 64), 1), ((96, 72), 1), ((64, 48), 1), ((128, 96), 1), ((192, 144), 1), ((32, 24), 2)],
    ids=str,
)
def test_sd15_is_asked_at_the_decoders_16_by_16(size, level):
    site = probe_site(SD15, size)
    assert (site.stage, site.level, site.index) == ("up", level, 0)


def test_a_garment_is_called_what_the_artist_says_or_its_slot():
    assert words_for("upper", " striped polo shirt ") == "striped polo shirt"
    assert [words_for(slot) for slot in ("upper", "lower", "dress", "kimono")] == [
        "shirt",
        "trousers",
        "dress",
        "kimono",
    ]
