# SPDX-License-Identifier: GPL-3.0-or-later
"""Every loss by hand on tiny tensors, and the two-phase texture backward against the joint one."""

import math

import pytest
import torch
from comfyui_anydressing.anydressing_core.canvas import region_on_grid
from comfyui_anydressing.anydressing_core.dressing_attention import garment_attention
from comfyui_anydressing.anydressing_core.garment_kv import garment_kv
from comfyui_anydressing.training.data.edges import canny_edges
from comfyui_anydressing.training.losses.dists import Dists
from comfyui_anydressing.training.losses.terms import (
    LossReading,
    LossWeights,
    gradient_norms,
    high_frequency_loss,
    ldm_loss,
    localisation_loss,
    one_step_estimate,
    perceptual_loss,
    weighted_sum,
)
from comfyui_anydressing.training.losses.texture import (
    drawn_rows,
    texture_acts,
    texture_of_rows,
    two_phase_texture,
)
from diffusers import AutoencoderKL, AutoencoderTiny
from support.texture import texture_loss

HALF = [torch.float16, torch.bfloat16]


def table(*rows):
    """Nested lists as fp32."""
    return torch.tensor(rows, dtype=torch.float32)


# ---- L_LDM (Eq. 14) -------------------------------------------------------------------------------------------------


def test_ldm_is_the_mean_squared_error_of_the_noise():
    assert ldm_loss(table(1, 2, 3, 4), table(1, 2, 3, 2)).item() == 1.0  # 2^2 / 4


@pytest.mark.parametrize("dtype", HALF)
def test_ldm_squares_in_fp32(dtype):
    loss = ldm_loss(torch.full((1, 4, 2, 2), 300.0, dtype=dtype), torch.zeros(1, 4, 2, 2, dtype=dtype))
    assert loss.dtype == torch.float32
    assert loss.item() == 90000.0  # beyond fp16


# ---- L_loc (Eq. 9) --------------------------------------------------------------------------------------------------

# One row, two garments, a 1 x 2 site: garment 0 covers the left token, garment 1 half of the right one.
MAPS = table([[0.5, 0.0], [0.0, 1.0]])  # (B 1, L 2, N 2)
MASKS = torch.zeros(1, 2, 2, 4)
MASKS[0, 0, :, :2] = 1
MASKS[0, 1, 0, 2:] = 1
# A - M: garment 0 (-0.5, 0), garment 1 (0, 0.5).


@pytest.mark.parametrize(("reduction", "expected"), [("l2", 0.5), ("mse", 0.25 / 2)])
def test_localisation_by_hand(reduction, expected):
    loss = localisation_loss({"mid_0_0": MAPS}, MASKS, {"mid_0_0": (1, 2)}, reduction=reduction)
    assert loss.item() == expected


def test_l2_is_the_norm_over_pixels_and_mse_their_mean():
    maps, masks = torch.zeros(1, 4, 1), torch.ones(1, 1, 4, 4)
    site = {"s": maps}, masks, {"s": (2, 2)}
    assert localisation_loss(*site, reduction="l2").item() == 2.0  # sqrt(4 * 1)
    assert localisation_loss(*site, reduction="mse").item() == 1.0


def test_garments_and_rows_are_averaged():
    maps = torch.cat([MAPS, table([[1.0, 0.0], [0.0, 0.5]])])  # the second row is exact
    loss = localisation_loss({"s": maps}, MASKS.repeat(2, 1, 1, 1), {"s": (1, 2)})
    assert loss.item() == 0.25


def test_the_average_over_sites_is_applied_once():
    exact = table([[1.0, 0.0], [0.0, 0.5]])
    maps = {"a": MAPS, "b": exact, "c": exact, "d": exact}
    assert localisation_loss(maps, MASKS, dict.fromkeys(maps, (1, 2))).item() == 0.5 / 4


def test_sites_of_different_grids_meet_the_mask_on_their_own():
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :2] = 1
    maps = {"fine": table([[1.0], [0.0], [0.0], [0.0]]), "coarse": table([[0.25]])}
    assert localisation_loss(maps, mask, {"fine": (2, 2), "coarse": (1, 1)}).item() == 0.0


def test_masks_are_averaged_as_core_averages_regions():
    torch.manual_seed(0)
    mask = torch.rand(21, 13)  # no multiple of the grid
    maps = {"s": region_on_grid(mask, (5, 4)).view(1, -1, 1)}
    assert localisation_loss(maps, mask[None, None], {"s": (5, 4)}).item() == 0.0


def test_an_absent_garment_counts_neither_in_the_sum_nor_in_n():
    loss = localisation_loss({"s": MAPS}, MASKS, {"s": (1, 2)}, present=torch.tensor([[True, False]]), reduction="mse")
    assert loss.item() == 0.125  # garment 0 alone: (0.25 + 0) / 2, N = 1


def test_a_row_without_garments_counts_as_zero():
    maps, masks = MAPS.repeat(2, 1, 1), MASKS.repeat(2, 1, 1, 1)
    present = torch.tensor([[True, True], [False, False]])
    assert localisation_loss({"s": maps}, masks, {"s": (1, 2)}, present=present).item() == 0.25


def test_an_absent_garment_passes_nothing_back_not_even_nan():
    maps = MAPS.clone()
    maps[..., 1] = torch.nan
    maps.requires_grad_()
    localisation_loss({"s": maps}, MASKS, {"s": (1, 2)}, present=torch.tensor([[True, False]])).backward()
    assert maps.grad.tolist() == [[[-1.0, 0.0], [0.0, 0.0]]]


@pytest.mark.parametrize("reduction", ["mse", "l2"])
def test_an_exact_map_has_a_zero_gradient(reduction):
    maps = table([[1.0, 0.0], [0.0, 0.5]]).requires_grad_()
    localisation_loss({"s": maps}, MASKS, {"s": (1, 2)}, reduction=reduction).backward()
    assert torch.equal(maps.grad, torch.zeros_like(maps))


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_maps_and_masks_give_an_fp32_loss(dtype):
    loss = localisation_loss({"s": MAPS.to(dtype)}, MASKS.to(dtype), {"s": (1, 2)})
    assert loss.dtype == torch.float32
    assert loss.item() == 0.5


def key_gradient(garments, null):
    """The norm of L_loc's gradient at K', through core's attention, on a 2 x 3 site whose left column is worn."""
    torch.manual_seed(0)
    query = torch.randn(1, 6, 8)
    keys = [torch.randn(1, 4, 8, requires_grad=True) for _ in range(garments)]
    values = [torch.randn(1, 4, 8) for _ in range(garments)]
    null_token = (torch.zeros(8), torch.zeros(1)) if null else None
    _, maps = garment_attention(query, garment_kv(keys, values, 2, null=null_token, maps=True))
    masks = torch.zeros(1, garments, 6, 9)
    masks[:, 0, :, :3] = 1
    loss = localisation_loss({"s": maps}, masks, {"s": (2, 3)})
    return torch.cat(torch.autograd.grad(loss, keys)).norm().item()


def test_one_garment_without_null_token_learns_nothing_as_the_paper_is_printed():
    assert key_gradient(1, null=False) < 1e-6  # A = 1 everywhere (D2); what is left is rounding


@pytest.mark.parametrize(("garments", "null"), [(1, True), (2, False), (2, True)])
def test_a_null_token_or_a_second_garment_gives_it_a_gradient(garments, null):
    assert key_gradient(garments, null) > 1e-2


# ---- z0_hat (Eq. 10) ------------------------------------------------------------------------------------------------


def test_the_estimate_by_hand():
    # a = 0.64: z_t = 0.8 * 5 + 0.6 * 2 = 5.2
    estimate = one_step_estimate(torch.full((1, 4, 1, 1), 5.2), torch.full((1, 4, 1, 1), 2.0), torch.tensor([0.64]))
    torch.testing.assert_close(estimate, torch.full((1, 4, 1, 1), 5.0))


def test_the_estimate_undoes_diffusers_noise_row_by_row():
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    torch.manual_seed(0)
    clean, noise, timestep = torch.randn(3, 4, 4, 3), torch.randn(3, 4, 4, 3), torch.tensor([0, 350, 999])
    noisy = scheduler.add_noise(clean, noise, timestep)
    estimate = one_step_estimate(noisy, noise, scheduler.alphas_cumprod[timestep])
    torch.testing.assert_close(estimate, clean, rtol=0, atol=1e-4)  # at t = 999 rounding is multiplied by 15


@pytest.mark.parametrize("dtype", HALF)
def test_the_estimate_is_fp32(dtype):
    latents = torch.ones(1, 4, 2, 2, dtype=dtype)
    assert one_step_estimate(latents, latents, torch.tensor([0.5], dtype=dtype)).dtype == torch.float32


# ---- L_perc (Eq. 12) ------------------------------------------------------------------------------------------------


def mean_difference(image, target):
    """A stand-in for DISTS that can be computed by hand."""
    return (image - target).abs().mean(dim=(1, 2, 3))


# A 4 x 4 picture, 0.8 brighter than the truth in [-1, 1], which is 0.4 in [0, 1]; garment 0 covers a quarter.
BRIGHT, TRUTH = torch.full((1, 3, 4, 4), 0.6), torch.full((1, 3, 4, 4), -0.2)
QUARTERS = torch.zeros(1, 2, 4, 4)
QUARTERS[0, 0, :2, :2] = 1
QUARTERS[0, 1] = 1


def large(picture):
    """Every pixel as 32 x 32."""
    return picture.repeat_interleave(32, dim=-2).repeat_interleave(32, dim=-1)


def test_perceptual_by_hand():
    loss = perceptual_loss(*map(large, (BRIGHT, TRUTH, QUARTERS)), mean_difference)
    assert loss.tolist() == pytest.approx([(0.4 / 4 + 0.4) / 2])


def test_dists_sees_the_garment_in_the_unit_range_on_black():
    seen = []

    def witness(image, target):
        seen.append((image, target))
        return mean_difference(image, target)

    mask = torch.zeros(1, 1, 4, 4)
    mask[0, 0, 1, 1:] = mask[0, 0, 2, 2] = 1  # a T in rows 1-2, columns 1-3
    perceptual_loss(*map(large, (BRIGHT, TRUTH, mask)), witness)
    ((image, target),) = seen
    expected = large(mask[0, 0]).expand(1, 3, -1, -1)
    torch.testing.assert_close(image, 0.8 * expected)
    torch.testing.assert_close(target, 0.4 * expected)


def test_an_empty_mask_is_exactly_zero_with_a_finite_gradient():
    image = BRIGHT.clone()
    image[..., 0, 0] = torch.inf
    image.requires_grad_()
    loss = perceptual_loss(image, TRUTH, torch.zeros(1, 2, 4, 4), mean_difference)
    loss.sum().backward()
    assert loss.tolist() == [0.0]
    assert torch.equal(image.grad, torch.zeros_like(image))


def test_an_empty_mask_still_counts_in_n_and_an_absent_garment_does_not():
    masks = QUARTERS.flip(1).clone()
    masks[:, 1] = 0
    assert perceptual_loss(BRIGHT, TRUTH, masks, mean_difference).item() == pytest.approx(0.4 / 2)
    present = torch.tensor([[True, False]])
    assert perceptual_loss(BRIGHT, TRUTH, masks, mean_difference, present=present).item() == pytest.approx(0.4)
    nobody = torch.tensor([[False, False]])
    assert perceptual_loss(BRIGHT, TRUTH, masks, mean_difference, present=nobody).tolist() == [0.0]


def test_rows_are_judged_by_themselves():
    images, truths = torch.cat([BRIGHT, TRUTH]), torch.cat([TRUTH, TRUTH])
    loss = perceptual_loss(images, truths, QUARTERS.repeat(2, 1, 1, 1), mean_difference)
    assert loss.tolist() == pytest.approx([0.25, 0.0])


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_pictures_reach_dists_in_fp32(dtype):
    loss = perceptual_loss(BRIGHT.to(dtype), TRUTH.to(dtype), QUARTERS.to(dtype), Dists(lambda image: []))
    assert loss.dtype == torch.float32


# ---- L_hf (Eq. 13) --------------------------------------------------------------------------------------------------

# Two edge pixels: one under garment 0 and 1, where red is 0.6 off; one under garment 1 alone, where nothing is.
EDGES = torch.zeros(1, 1, 4, 4)
EDGES[..., 0, 0] = EDGES[..., 3, 3] = 1
OFF = TRUTH.clone()
OFF[0, 0, 0, 0] += 2 * 0.6
OFF[0, :, 2, 2] = 1.0  # no edge: must not count


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("mse", (0.36 / 3 + 0.36 / 6) / 2),
        ("l2", (math.sqrt(0.36 / 3) + math.sqrt(0.36 / 6)) / 2),
    ],
)
def test_high_frequency_by_hand(reduction, expected):
    loss = high_frequency_loss(OFF, TRUTH, QUARTERS, EDGES, reduction=reduction)
    assert loss.tolist() == pytest.approx([expected])


@pytest.mark.parametrize(("reduction", "expected"), [("mse", 0.16), ("l2", 0.4)])
@pytest.mark.parametrize("softness", [1.0, 0.5])
@pytest.mark.parametrize("size", [4, 8])
def test_an_even_difference_is_itself_whatever_mask_and_edges(reduction, expected, softness, size):
    image, target = (x[..., :1, :1].expand(-1, -1, size, size) for x in (BRIGHT, TRUTH))
    edges = torch.eye(size).view(1, 1, size, size)
    masks = torch.full((1, 1, size, size), softness)
    loss = high_frequency_loss(image, target, masks, edges, reduction=reduction)
    assert loss.tolist() == pytest.approx([expected])


@pytest.mark.parametrize("reduction", ["mse", "l2"])
@pytest.mark.parametrize("empty", ["masks", "edges", "difference"])
def test_no_edge_no_mask_or_no_difference_is_exactly_zero_with_a_finite_gradient(reduction, empty):
    image = (TRUTH if empty == "difference" else OFF).clone().requires_grad_()
    masks = QUARTERS * (empty != "masks")
    edges = EDGES * (empty != "edges")
    loss = high_frequency_loss(image, TRUTH, masks, edges, reduction=reduction)
    loss.sum().backward()
    assert loss.tolist() == [0.0]
    assert torch.equal(image.grad, torch.zeros_like(image))


def test_an_absent_garment_has_no_high_frequency_loss():
    present = torch.tensor([[False, True]])
    loss = high_frequency_loss(OFF, TRUTH, QUARTERS, EDGES, reduction="mse", present=present)
    assert loss.tolist() == pytest.approx([0.36 / 6])


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_pictures_give_an_fp32_high_frequency_loss(dtype):
    loss = high_frequency_loss(BRIGHT.to(dtype), TRUTH.to(dtype), QUARTERS.to(dtype), EDGES.to(dtype))
    assert loss.dtype == torch.float32
    assert loss.tolist() == pytest.approx([0.4], abs=2e-3)


# ---- the gate (Eq. 11) and the sum (Eq. 15) -------------------------------------------------------------------------


def test_texture_is_perception_and_high_frequency():
    arguments = OFF, TRUTH, QUARTERS
    reading = LossReading(high_frequency="mse")
    perceptual, high_frequency = texture_of_rows(*arguments, EDGES, mean_difference, reading)
    assert torch.equal(perceptual, perceptual_loss(*arguments, mean_difference))
    assert torch.equal(high_frequency, high_frequency_loss(*arguments, EDGES, reduction="mse"))


def test_the_gate_is_open_at_eta_and_shut_after():
    assert texture_acts(torch.tensor([0, 350, 351, 999]), eta=350).tolist() == [True, True, False, False]


def test_gated_rows_count_as_zeros_in_the_mean():
    rows = table(1, 2, 100, 100)
    assert texture_loss(rows, torch.tensor([0, 350, 351, 999]), eta=350).item() == 3 / 4  # by B = 4, not by 2
    assert texture_loss(rows, torch.full((4,), 351), eta=350).item() == 0.0


def test_a_gated_row_passes_nothing_back_not_even_nan():
    rows = torch.tensor([1.0, torch.nan], requires_grad=True)
    texture_loss(rows, torch.tensor([350, 351]), eta=350).backward()
    assert rows.grad.tolist() == [0.5, 0.0]


def test_the_weighted_sum_by_hand_at_the_papers_weights():
    total = weighted_sum(torch.tensor(1.0), torch.tensor(2.0), torch.tensor(3.0), LossWeights())
    assert total.item() == pytest.approx(1 + 0.01 * 2 + 0.001 * 3)
    assert weighted_sum(torch.tensor(1.0), 0.0, 0.0, LossWeights()).item() == 1.0


def test_weights_default_to_the_paper():
    assert LossWeights() == LossWeights(lambda1=0.01, lambda2=0.001, eta=350)


@pytest.mark.parametrize("wrong", [{"lambda1": -1.0}, {"lambda2": math.nan}, {"lambda1": math.inf}, {"eta": 1000}])
def test_impossible_weights_are_refused_by_name(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        LossWeights(**wrong)


def test_the_reading_is_one_line_for_the_file():
    assert LossReading().text == "L_LDM mse; L_loc l2; L_perc DISTS frame; L_hf l2 per edge value"
    assert LossReading("mse", "mse").text == "L_LDM mse; L_loc mse; L_perc DISTS frame; L_hf mse per edge value"


def test_an_unknown_reading_is_refused():
    with pytest.raises(ValueError, match="localisation = 'l1' is unknown"):
        LossReading(localisation="l1")


# ---- two phases -----------------------------------------------------------------------------------------------------


def autoencoder(kind):
    torch.manual_seed(0)
    if kind == "tiny":
        vae = AutoencoderTiny(
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
            latent_channels=4,
        )
    else:
        vae = AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2,
            block_out_channels=[8, 8],
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
        )
    return vae.requires_grad_(False).eval()


class Scene:
    """Four people at t = 50, 350, 351 and 900, a stand-in for the U-Net, and one small autoencoder."""

    def __init__(self, kind="kl"):
        self.vae = autoencoder(kind)
        torch.manual_seed(1)
        self.unet = torch.nn.Conv2d(4, 4, 3, padding=1)
        self.noisy, self.noise = torch.randn(4, 4, 8, 6), torch.randn(4, 4, 8, 6)
        self.timestep, self.alpha = torch.tensor([50, 350, 351, 900]), torch.tensor([0.9, 0.5, 0.49, 0.05])
        self.images = (torch.rand(4, 3, 16, 12) * 2 - 1).round()  # black and white speckles: many edges
        self.masks, self.edges = (torch.rand(4, 2, 16, 12) > 0.5).float(), canny_edges(self.images)
        self.dists = Dists(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), AsList()))
        self.decoded = []

    def predict(self):
        """L_LDM and z0_hat, with their graph."""
        prediction = self.unet(self.noisy)
        return ldm_loss(prediction, self.noise), one_step_estimate(self.noisy, prediction, self.alpha)

    def texture_of(self, latents, rows):
        image = self.vae.decode(latents / 0.18215).sample
        truth = self.images[rows], self.masks[rows], self.edges[rows]
        return texture_of_rows(image, *truth, self.dists, LossReading())

    def texture_of_row(self, latent, row):
        self.decoded.append((row, latent.shape[0]))
        return self.texture_of(latent, slice(row, row + 1))[:, 0]

    def gradient(self, loss):
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, self.unet.parameters())])


class AsList(torch.nn.Module):
    def forward(self, x):
        return [x]


WEIGHTS = LossWeights(lambda2=10.0)  # texture nearly as heavy as L_LDM, so that an error in it would show


@pytest.mark.parametrize("kind", ["kl", "tiny"])
def test_two_phases_equal_the_joint_backward(kind):
    scene = Scene(kind)
    ldm, estimate = scene.predict()
    joint = texture_loss(scene.texture_of(estimate, slice(None)).sum(dim=0), scene.timestep, WEIGHTS.eta)
    expected = scene.gradient(weighted_sum(ldm, 0.0, joint, WEIGHTS))
    alone = scene.gradient(scene.predict()[0])

    ldm, estimate = scene.predict()
    term = two_phase_texture(estimate, scene.timestep, WEIGHTS.eta, scene.texture_of_row)
    gradient = scene.gradient(weighted_sum(ldm, 0.0, term.surrogate, WEIGHTS))
    assert (expected - alone).norm() > 0.1 * alone.norm()
    assert (gradient - expected).norm() < 1e-5 * (expected - alone).norm()
    torch.testing.assert_close(term.loss, joint.detach(), rtol=1e-5, atol=0)
    assert scene.decoded == [(0, 1), (1, 1)]  # one at a time, and none above eta
    assert term.rows == (0, 1)
    assert not term.loss.requires_grad


def test_without_low_rows_nothing_is_decoded_and_the_gradient_is_zero():
    scene = Scene("tiny")
    _, estimate = scene.predict()
    term = two_phase_texture(estimate, torch.full((4,), 351), 350, scene.texture_of_row)
    assert scene.decoded == []
    assert term.loss.item() == 0.0
    assert torch.equal(scene.gradient(term.surrogate), torch.zeros(4 * 4 * 9 + 4))


def test_a_garment_out_of_sight_is_no_error_in_two_phases():
    scene = Scene("tiny")
    scene.masks.zero_()
    _, estimate = scene.predict()
    term = two_phase_texture(estimate, scene.timestep, 350, scene.texture_of_row)
    assert term.loss.item() == 0.0
    assert torch.isfinite(scene.gradient(term.surrogate)).all()


def test_decoding_one_row_of_three_is_right_on_average():
    scene = Scene("tiny")
    timestep = torch.tensor([50, 900, 350, 100])
    _, estimate = scene.predict()
    everything = two_phase_texture(estimate, timestep, 350, scene.texture_of_row)
    seeds = {drawn_rows(timestep, 350, 1, torch.Generator().manual_seed(seed))[0]: seed for seed in range(20)}
    assert sorted(seeds) == [(0,), (2,), (3,)]  # three rows, equally likely, and a seed that draws each
    terms = [
        two_phase_texture(
            estimate,
            timestep,
            350,
            scene.texture_of_row,
            max_per_step=1,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in seeds.values()
    ]
    mean = torch.stack([term.loss for term in terms]).mean()
    torch.testing.assert_close(mean, everything.loss, rtol=1e-5, atol=0)
    surrogate = torch.stack([term.surrogate for term in terms]).mean()
    (expected,) = torch.autograd.grad(everything.surrogate, estimate, retain_graph=True)
    (gradient,) = torch.autograd.grad(surrogate, estimate)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7 * float(expected.abs().max()))


def test_every_choice_of_rows_is_equally_likely_and_repeats_with_its_seed():
    timestep = torch.tensor([0, 999, 350, 200])
    draws = [drawn_rows(timestep, 350, 2, torch.Generator().manual_seed(seed)) for seed in range(600)]
    assert {weight for _, weight in draws} == {3 / 2}
    counts = {rows: sum(rows == drawn for drawn, _ in draws) for rows in [(0, 2), (0, 3), (2, 3)]}
    assert sum(counts.values()) == 600
    assert all(abs(count - 200) < 50 for count in counts.values())  # 4 standard deviations are 46
    assert draws[7] == drawn_rows(timestep, 350, 2, torch.Generator().manual_seed(7))


def test_few_enough_rows_are_all_decoded():
    assert drawn_rows(torch.tensor([0, 999, 350]), 350, max_per_step=2) == ((0, 2), 1.0)


def test_decoding_no_row_per_step_is_refused():
    with pytest.raises(ValueError, match="switch texture off"):
        drawn_rows(torch.tensor([999]), 350, max_per_step=0)


# ---- gradient norms -------------------------------------------------------------------------------------------------


def test_gradient_norms_by_hand():
    probe = torch.tensor([3.0, 4.0], requires_grad=True)
    losses = {
        "ldm": probe.square().sum() / 2,  # gradient (3, 4)
        "localisation": 2 * probe[0],  # gradient (2, 0)
        "constant": torch.tensor(1.0),
        "elsewhere": torch.ones(1, requires_grad=True).sum(),
    }
    expected = {"ldm": 5.0, "localisation": 2.0, "constant": 0.0, "elsewhere": 0.0}
    assert gradient_norms(losses, probe) == expected
    assert gradient_norms(losses, probe) == expected  # the graph is still there
    assert probe.grad is None
    losses["ldm"].backward()
    assert probe.grad.tolist() == [3.0, 4.0]


def test_surrogates_have_the_gradient_norms_of_the_texture_loss_and_of_its_parts():
    scene = Scene("tiny")
    _, estimate = scene.predict()
    rows = scene.texture_of(estimate, slice(None))
    perceptual, high_frequency = (texture_loss(part, scene.timestep, 350) for part in rows)
    term = two_phase_texture(estimate, scene.timestep, 350, scene.texture_of_row, separate=True)
    expected = {"both": perceptual + high_frequency, "perc": perceptual, "hf": high_frequency}
    surrogates = {"both": term.surrogate, "perc": term.part_surrogates[0], "hf": term.part_surrogates[1]}
    assert gradient_norms(surrogates, scene.unet.weight) == pytest.approx(
        gradient_norms(expected, scene.unet.weight), rel=1e-4
    )
    assert term.parts.tolist() == pytest.approx([perceptual.item(), high_frequency.item()], rel=1e-5)
    together = two_phase_texture(estimate, scene.timestep, 350, scene.texture_of_row)
    torch.testing.assert_close(term.surrogate, together.surrogate, rtol=1e-5, atol=0)
