# SPDX-License-Identifier: GPL-3.0-or-later
"""AnyDressing Attention Maps on real ComfyUI: what it shows is where garments may go, and it changes nothing."""

from __future__ import annotations

import importlib

import pytest
import torch

pytestmark = pytest.mark.comfyui

HEIGHT, WIDTH = 12, 8  # of the latent


@pytest.fixture(scope="module")
def finished():
    generator = torch.Generator().manual_seed(4)
    latent = torch.randn(1, 4, HEIGHT, WIDTH, generator=generator)
    return {"samples": latent}, torch.rand(1, 8 * HEIGHT, 8 * WIDTH, 3, generator=generator)


@pytest.fixture
def look(studio, finished):
    """`look(model)` returns what the node does: overlay, maps, confusion."""

    @torch.inference_mode()
    def look(model, positive=None, latent=finished[0], image=finished[1]):
        node = studio.pack["AnyDressingAttentionMaps"]
        return node.execute(model, positive or studio.positive, latent, image).args

    return look


def left():
    mask = torch.zeros(1, 8 * HEIGHT, 8 * WIDTH)
    mask[:, :, : 4 * WIDTH] = 1
    return mask


def test_maps_are_shares_of_attention_one_for_each_garment(studio, look):
    overlay, maps, confusion = look(studio.dress(garments=studio.garments))
    assert overlay.shape == (1, 8 * HEIGHT, 8 * WIDTH, 3)
    assert maps.shape == (3, 8 * HEIGHT, 8 * WIDTH)
    assert maps.min() >= 0
    total = maps.sum(dim=0)
    assert total.min() > 0.05
    assert total.max() < 1  # the null token has the rest
    assert 0 < confusion < 2 / 3


def test_without_a_null_token_the_maps_add_up_to_one(studio, look):
    file = studio.random_file("plain.safetensors", null_token=False)
    garments = [studio.garment(slot, file=file) for slot in ("upper", "lower")]
    maps = look(studio.dress(garments=garments))[1]
    torch.testing.assert_close(maps.sum(dim=0), torch.ones(8 * HEIGHT, 8 * WIDTH), atol=1e-4, rtol=0)


def test_maps_follow_regions(studio, look):
    upper, lower, _ = studio.garments
    apart = [studio.settings(lower, region=left()), studio.settings(upper, region=1 - left())]
    _, maps, confusion = look(studio.dress(garments=apart))
    half, edge = 4 * WIDTH, 8  # coarse sites blur across the border
    assert maps[0, :, : half - edge].mean() > 3 * maps[0, :, half + edge :].mean()
    assert maps[1, :, half + edge :].mean() > 3 * maps[1, :, : half - edge].mean()
    assert confusion < look(studio.dress(garments=[upper, lower]))[2]


def test_each_apply_has_its_own_maps(studio, look):
    upper, lower, _ = studio.garments
    both = look(studio.dress(studio.dress(garments=[upper]), garments=[lower]))[1]
    assert both.shape[0] == 2
    assert both[0].min() > 0.05


def test_looking_changes_nothing(studio, look):
    model = studio.dress()
    before, wrappers = studio.sample(model), repr(model.wrappers)
    assert torch.equal(look(model)[1], look(model)[1])
    assert wrappers == repr(model.wrappers)
    assert torch.equal(before, studio.sample(model))


def test_a_garment_out_of_range_has_an_empty_map(studio, look):
    upper, lower, _ = studio.garments
    maps = look(studio.dress(garments=[studio.settings(lower, end_percent=0.05), upper]))[1]
    assert maps[0].max() == 0
    assert maps[1].max() > 0


def test_every_picture_of_a_batch_has_its_own_maps(studio, look, finished):
    latent, image = finished[0]["samples"], finished[1]
    maps = look(studio.dress(), latent={"samples": torch.cat([latent, -latent])}, image=torch.cat([image, image]))[1]
    assert maps.shape[0] == 4
    torch.testing.assert_close(maps[:2], look(studio.dress())[1], atol=1e-4, rtol=0)
    assert not torch.allclose(maps[:2], maps[2:], atol=1e-3)


@pytest.fixture
def said(studio, monkeypatch):
    """What the node says to the artist."""
    lines = []
    module = importlib.import_module("comfyui_anydressing.nodes.attention_maps")
    monkeypatch.setattr(module, "tell", lambda node, text: lines.append(text))
    return lines


@pytest.mark.parametrize("undressed", ["no Apply", "strength 0", "other range"])
def test_where_nothing_is_worn_the_maps_are_empty_and_that_is_said(studio, look, finished, said, undressed):
    models = {
        "no Apply": lambda: studio.model,
        "strength 0": lambda: studio.dress(strength=0.0),
        "other range": lambda: studio.dress(garments=studio.garments[:1], end_percent=0.05),
    }
    overlay, maps, confusion = look(models[undressed]())
    assert maps.shape == (1, 8 * HEIGHT, 8 * WIDTH)
    assert maps.max() == 0
    assert confusion == 0
    grey = finished[1] @ torch.tensor([0.299, 0.587, 0.114])
    torch.testing.assert_close(overlay, grey[..., None].expand(-1, -1, -1, 3), atol=1 / 255, rtol=0)
    (line,) = said
    assert line.startswith("nothing is worn")


def test_the_legend_names_each_garments_colour_and_a_slot_keeps_its_own(studio, look, said):
    look(studio.dress(garments=studio.garments))
    look(studio.dress(garments=studio.garments[:1]))
    both = [studio.garment("upper", seed=1), studio.garments[0]]
    look(studio.dress(garments=both))
    legends = [line.split(";")[0] for line in said]
    assert legends == ["hat: green, lower: blue, upper: orange", "upper: orange", "upper: orange, upper: blue"]
    assert all("confusion 0." in line for line in said)


def test_another_number_of_pictures_is_refused(studio, look, finished):
    with pytest.raises(ValueError, match=r"^image: 2 pictures came with 1 latents\."):
        look(studio.dress(), image=torch.cat([finished[1]] * 2))


def test_area_prompts_are_refused(studio, look):
    conditioning = [[entry[0], {**entry[1], "area": (6, 8, 0, 0), "strength": 1.0}] for entry in studio.positive]
    with pytest.raises(ValueError, match=r"^positive: a prompt covers only an area"):
        look(studio.dress(), positive=conditioning)
