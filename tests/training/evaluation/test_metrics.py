# SPDX-License-Identifier: GPL-3.0-or-later
"""Every metric moves the right way on cases that were made to be known."""

from __future__ import annotations

import pytest
import torch
from comfyui_anydressing.training.evaluation.metrics import (
    colour_error,
    interval,
    is_swapped,
    leakage,
    localisation_iou,
    look_of,
    mask_iou,
    palette_error,
    rank_among,
    texture_distance,
    texture_error,
)
from comfyui_anydressing.training.losses.dists import Dists
from comfyui_anydressing.training.paper_doll.networks.recogniser import Recogniser
from torch import nn
from torch.nn import functional

HEIGHT, WIDTH = 32, 24
MASK = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
MASK[8:24, 4:20] = True


class Edges(nn.Module):
    """A feature network that sees colours and slopes."""

    def forward(self, image):
        slopes = functional.pad(image.diff(dim=-1).abs(), (0, 1))
        return [torch.cat([image, slopes], dim=1), functional.avg_pool2d(image, 4)]


def plain(*colour):
    return torch.tensor(colour)[:, None, None].expand(3, HEIGHT, WIDTH).clone()


def striped(one, other, period=4):
    stripes = (torch.arange(WIDTH) % period < period // 2).float()
    return plain(*one) * stripes + plain(*other) * (1 - stripes)


RED, BLUE, GREEN = (0.8, 0.1, 0.1), (0.1, 0.2, 0.8), (0.1, 0.6, 0.2)


def test_colour_error_is_delta_e_inside_the_mask_alone():
    assert colour_error(plain(1, 1, 1), plain(0, 0, 0), MASK) == pytest.approx(100, abs=0.01)
    assert colour_error(plain(*RED), plain(*RED), MASK) == 0
    outside = plain(*RED)
    outside[:, ~MASK] = 0
    assert colour_error(outside, plain(*RED), MASK) == 0
    # CIE's own figures: Lab of sRGB's pure red and green is (53.24, 80.09, 67.20) and (87.73, -86.18, 83.18).
    assert colour_error(plain(1, 0, 0), plain(0, 1, 0), MASK) == pytest.approx(170.6, abs=0.2)


def test_texture_error_grows_with_the_damage():
    dists = Dists(Edges())
    truth = striped(RED, BLUE)
    softened = 0.5 * truth + 0.5 * functional.avg_pool2d(truth[None], 5, 1, 2)[0]
    errors = [texture_error(picture, truth, MASK, dists) for picture in (truth, softened, plain(*RED))]
    assert errors[0] == pytest.approx(0, abs=1e-6)
    assert errors[0] < errors[1] < errors[2]
    noise = truth.clone()
    noise[:, ~MASK] = torch.rand(3, int((~MASK).sum()))
    assert texture_error(noise, truth, MASK, dists) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("row", [0, 20, 62])
def test_a_sliver_of_a_garment_has_a_texture_error(row):
    dists = Dists(Recogniser((4, 4, 4, 4, 4)))
    truth, mask = torch.rand(3, 64, 48), torch.zeros(64, 48, dtype=torch.bool)
    mask[row : row + 2, 10:40] = True
    assert texture_error(truth, truth, mask, dists) == pytest.approx(0, abs=1e-6)
    assert texture_error(1 - truth, truth, mask, dists) > 0.01


def test_texture_distance_knows_a_garment_at_another_size_and_place():
    dists = Dists(Edges())
    large, lies = striped(RED, BLUE, period=8).repeat(1, 2, 2), MASK.repeat_interleave(2, 0).repeat_interleave(2, 1)
    large[:, ~lies] = 1.0
    own = texture_distance(striped(RED, BLUE), MASK, large, lies, dists)
    others = [texture_distance(picture, MASK, large, lies, dists) for picture in (striped(GREEN, BLUE), plain(*RED))]
    assert 0 <= own < min(others)
    outside = striped(RED, BLUE)
    outside[:, ~MASK] = 0
    assert texture_distance(outside, MASK, large, lies, dists) == pytest.approx(own)


def test_a_garment_looks_like_itself_elsewhere():
    network = Edges()
    worn = look_of(network, striped(RED, BLUE), MASK)
    lain = look_of(network, striped(RED, BLUE), torch.ones(HEIGHT, WIDTH, dtype=torch.bool))
    others = [look_of(network, picture, MASK) for picture in (plain(*RED), striped(GREEN, BLUE), plain(*GREEN))]
    assert rank_among(worn, lain, others) == 0
    assert rank_among(worn, others[2], [lain, *others[:2]]) == 3


def test_swapped_garments_are_found():
    network = Edges()
    red, green = (look_of(network, plain(*colour), MASK) for colour in (RED, GREEN))
    pinkish = look_of(network, plain(0.8, 0.3, 0.3), MASK)
    assert not is_swapped((pinkish, green), (red, green))
    assert is_swapped((green, pinkish), (red, green))


def test_attention_on_its_garment_is_localised():
    masks = torch.stack([MASK, ~MASK])
    exact = masks.float()
    assert localisation_iou(exact, masks) == 1
    assert localisation_iou(exact.flip(0), masks) == 0
    assert localisation_iou(torch.zeros(2, 8, 6), masks) == 0
    half = exact.clone()
    half[:, :16] = 0
    assert 0 < localisation_iou(half, masks) < 0.7


def test_a_palette_does_not_care_where_its_colours_stand():
    across, upside = striped(RED, BLUE), striped(RED, BLUE).flip(1, 2)
    everywhere = torch.ones_like(MASK)
    assert palette_error(across, everywhere, upside, everywhere) == pytest.approx(0, abs=1e-3)
    assert palette_error(plain(*RED), MASK, plain(*RED), everywhere) == pytest.approx(0, abs=1e-3)
    near, far = (palette_error(across, MASK, other, MASK) for other in (striped(RED, RED), striped(BLUE, BLUE)))
    assert min(near, far) > 20
    outside = across.clone()
    outside[:, ~MASK] = 0
    assert palette_error(outside, MASK, across, MASK) == pytest.approx(0, abs=1e-3)


def test_iou_of_known_masks():
    left, top = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    left[:, :, :2], top[:, :2] = True, True
    assert mask_iou(left, top).tolist() == pytest.approx([4 / 12])
    assert mask_iou(left & ~left, top & ~top).tolist() == [1]


def test_leakage_counts_what_changed_outside():
    picture, changed = plain(*RED), plain(*RED)
    changed[:, MASK] = 0
    assert leakage(changed, picture, MASK) == 0
    changed[:, ~MASK] += 0.1
    assert leakage(changed, picture, MASK) == pytest.approx(0.1, abs=1e-6)


def test_an_interval_holds_the_mean_and_narrows_with_more_outfits():
    chance = torch.Generator().manual_seed(0)
    few, many = (torch.rand(count, generator=chance).tolist() for count in (20, 2000))
    for values in (few, many):
        mean = interval(values)
        assert mean.low < mean.value < mean.high
        assert mean.count == len(values)
    assert interval(many).high - interval(many).low < 0.2 * (interval(few).high - interval(few).low)
    # The mean of 2000 uniform numbers has a standard deviation of 0.29 / sqrt(2000) = 0.0065.
    assert interval(many).high - interval(many).low == pytest.approx(2 * 1.96 * 0.289 / 2000**0.5, rel=0.15)
    assert interval([0.5] * 7).low == interval([0.5] * 7).high == 0.5
