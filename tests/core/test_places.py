# SPDX-License-Identifier: GPL-3.0-or-later
"""Places: where garments belong, from what pixels look for."""

import math

import pytest
import torch
from comfyui_anydressing.anydressing_core.places import (
    BLUR,
    KEPT,
    SHARPNESS,
    Places,
    on_grid,
    probe_sites,
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
    """A step's maps of garments that are each looked for around one row, as one layer of half the size sees it."""
    rows = torch.arange(size[0] // 2, dtype=torch.float32)
    maps = [torch.exp(-((rows - centre) ** 2) / 4)[:, None].expand(-1, size[1] // 2) for centre in centres]
    return torch.stack(maps, dim=-1)[None]


def test_a_garment_has_the_place_that_looks_for_it():
    places = Places()
    assert places.among([0, 1]) is None
    places.see([looks(1, 6)], (16, 12))
    found = places.among([0, 1])
    assert found.shape == (1, 2, 16, 12)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(1, 16, 12))
    assert found[0, 0, 3].min() > 0.95
    assert found[0, 1, 12].min() > 0.95


def test_maps_count_relative_to_their_own_maximum():
    """A word that is looked for faintly everywhere has its place all the same."""
    loud, quiet = Places(), Places()
    maps = looks(1, 6)
    loud.see([maps], (16, 12))
    quiet.see([maps * torch.tensor([1.0, 0.01])], (16, 12))
    torch.testing.assert_close(quiet.among([0, 1]), loud.among([0, 1]), atol=1e-5, rtol=1e-5)


def test_garments_of_like_words_share_their_place():
    places = Places()
    places.see([looks(2, 2, 6)], (16, 12))
    found = places.among([0, 1, 2])
    torch.testing.assert_close(found[:, 0], found[:, 1])
    assert 0.45 < float(found[0, 0, 3, 3]) < 0.5
    torch.testing.assert_close(places.among([1, 0]), torch.full((1, 2, 16, 12), 0.5))


def test_steps_are_averaged_and_layers_too():
    one, other = looks(1, 6), looks(3, 5)
    apart, together = Places(), Places()
    for maps in (one, other):
        apart.see([maps], (16, 12))
    together.see([KEPT * one + (1 - KEPT) * other], (16, 12))
    torch.testing.assert_close(apart.among([0, 1]), together.among([0, 1]))
    layers, mean = Places(), Places()
    layers.see([one, other], (16, 12))
    mean.see([(one + other) / 2], (16, 12))
    torch.testing.assert_close(layers.among([0, 1]), mean.among([0, 1]))


def test_the_edge_of_the_picture_is_blurred_by_what_is_within_it():
    places = Places()
    places.see([torch.ones(1, 16, 12, 2)], (16, 12))
    torch.testing.assert_close(places.among([0, 1]), torch.full((1, 2, 16, 12), 0.5))
    flat = torch.zeros(1, 16, 12, 2)
    flat[..., 0] = 1.0
    places = Places()
    places.see([flat], (16, 12))
    torch.testing.assert_close(places.among([0, 1])[0, 0], torch.full((16, 12), 1 / (1 + math.exp(-SHARPNESS))))
    assert BLUR % 2 == 1


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
    sites = probe_sites(SD15, size)
    assert [(site.stage, site.level) for site in sites] == 3 * [("up", level)]


def test_a_garment_is_called_what_the_artist_says_or_its_slot():
    assert words_for("upper", " striped polo shirt ") == "striped polo shirt"
    assert [words_for(slot) for slot in ("upper", "lower", "dress", "kimono")] == [
        "shirt",
        "trousers",
        "dress",
        "kimono",
    ]
