# SPDX-License-Identifier: GPL-3.0-or-later
"""Sampling is DDIM with Eq. 16: the frozen branch sees neither text nor garments, and a picture is the same in any batch."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from comfyui_anydressing.training.base.model import BaseModel
from comfyui_anydressing.training.base.schedule import NoiseSchedule
from comfyui_anydressing.training.hardware import CPU
from comfyui_anydressing.training.model.outfits import Outfits
from comfyui_anydressing.training.model.people import EncodedGarment, Person, initial_noise, sample_people
from comfyui_anydressing.training.model.processors import DressingRole, GarmentsRole, dressed_prediction
from comfyui_anydressing.training.model.sampling import Kept, Prompts, SamplingSettings, sample_latents
from diffusers import AutoencoderTiny, DDIMScheduler
from torch.nn.functional import interpolate

pytestmark = pytest.mark.usefixtures("one_thread")

SCHEDULE = NoiseSchedule.sd15()
FEW = SamplingSettings(steps=3)
SIZE = (64, 48)
NO_TEXT = torch.full((7, 24), 0.5)


def people(count=2, dtype=torch.float32):
    """Text (B, 7, 24), noise (B, 4, 8, 6) and what everybody wears: the first two garments, the second the third one."""
    torch.manual_seed(5)
    text, noise = torch.randn(count, 7, 24, dtype=dtype), torch.randn(count, 4, 8, 6, dtype=dtype)
    worn = torch.tensor([[0, 1], [2, -1]][:count])
    return text, noise, Outfits(torch.randn(3, 4, 8, 6, dtype=dtype), ("upper", "lower", "upper"), worn)


def named_people():
    """Four people, of whom one wears two garments, two share one and one wears nothing."""
    torch.manual_seed(6)
    coat, skirt = (EncodedGarment(slot, torch.randn(4, 8, 6)) for slot in ("upper", "lower"))
    worn = {"ann": [coat, skirt], "bea": [], "cleo": [coat], "dora": [coat]}
    return [Person(name, torch.randn(7, 24), garments) for name, garments in worn.items()]


@pytest.fixture
def base(unet):
    torch.manual_seed(7)
    sizes = {"encoder_block_out_channels": (4,) * 4, "decoder_block_out_channels": (4,) * 4}
    vae = AutoencoderTiny(**sizes, num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4).requires_grad_(False)
    return BaseModel("tiny", "0" * 64, None, unet, vae, None, None, SCHEDULE, CPU)


@pytest.fixture
def calls(unet):
    """What every call of the U-Net was given: (its role or None, its text)."""
    seen = []

    def remember(_, args, kwargs):
        seen.append(((kwargs.get("cross_attention_kwargs") or {}).get("role"), kwargs["encoder_hidden_states"]))

    unet.register_forward_pre_hook(remember, with_kwargs=True)
    return seen


@torch.no_grad()
def by_hand(unet, text, noise, garments, settings):
    """DDIM and Eq. 16 from their formulas; returns z_0 and the mean of A_k."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1 - betas, dim=0)
    z, drawn = noise, []
    for step in range(settings.steps):
        t = 1 + (settings.steps - 1 - step) * (1000 // settings.steps)
        a, b = alphas[t], alphas[max(0, t - 1000 // settings.steps)]
        times = torch.full((len(z),), t)
        role = DressingRole(garments, settings.strength)
        with_garments = dressed_prediction(unet, z, times, text, role)
        without = unet(z, times, encoder_hidden_states=NO_TEXT.to(z).expand(len(z), -1, -1)).sample
        eps = without + settings.guidance * (with_garments - without)
        z = b.sqrt() * (z - (1 - a).sqrt() * eps) / a.sqrt() + (1 - b).sqrt() * eps
        for maps in role.maps.values():
            grid = (8, 6) if maps.shape[1] == 48 else (4, 3)
            drawn.append(interpolate(maps.mT.unflatten(2, grid), (8, 6), mode="bilinear"))
    return z, torch.stack(drawn).mean(dim=0)


def test_latents_and_maps_are_those_of_the_formulas(make_model):
    model = make_model().double()
    model.unet.double()
    text, noise, outfits = people(dtype=torch.float64)
    settings = SamplingSettings(steps=4, guidance=2.5, strength=0.7)
    with torch.no_grad():
        garments = model.garments(outfits)
    sampled = sample_latents(model.unet, SCHEDULE, Prompts(text, NO_TEXT), noise, settings, garments)
    latents, maps = by_hand(model.unet, text, noise, garments, settings)
    torch.testing.assert_close(sampled.latents, latents, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(sampled.maps, maps, atol=1e-6, rtol=0)


def diffusers_ddim(steps):
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
    )
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("steps", [1, 7, 30, 50, 501, 999])
def test_the_timesteps_are_those_of_diffusers(steps):
    assert [timestep for timestep, _ in SamplingSettings(steps).timesteps] == diffusers_ddim(steps).timesteps.tolist()


@torch.no_grad()
def test_thirty_steps_are_those_of_diffusers_scheduler(unet):
    text, noise, _ = people()
    scheduler, expected = diffusers_ddim(30), noise
    for timestep in scheduler.timesteps:
        expected = scheduler.step(unet(expected, timestep, text).sample, timestep, expected).prev_sample
    sampled = sample_latents(unet, SCHEDULE, Prompts(text, NO_TEXT), noise, SamplingSettings(guidance=1.0))
    assert sampled.maps is None
    torch.testing.assert_close(sampled.latents, expected, atol=1e-4, rtol=1e-4)


def test_the_unconditional_branch_sees_neither_text_nor_garments(make_model, base, calls):
    ann, *_ = named_people()
    sample_people(make_model(), base, [ann], NO_TEXT, FEW, size=SIZE)
    garments, *steps = calls
    assert isinstance(garments[0], GarmentsRole)
    assert len(steps) == 2 * FEW.steps, "GarmentsNet runs once, then two calls a step"
    for (role, text), (no_role, no_text) in zip(steps[::2], steps[1::2], strict=True):
        assert isinstance(role, DressingRole)
        assert role.strength == 0.7
        assert torch.equal(text, ann.text[None])
        assert no_role is None
        assert torch.equal(no_text, NO_TEXT[None])


@torch.no_grad()
def test_what_is_kept_stays_to_the_bit_and_is_seen_at_every_steps_noise(unet):
    text, noise, _ = people()
    anew = torch.zeros(len(noise), 1, *noise.shape[-2:], dtype=torch.bool)
    anew[..., 2:6, 1:4] = True
    kept = Kept(torch.randn(noise.shape, generator=torch.Generator().manual_seed(3)), anew)
    seen = []
    unet.register_forward_pre_hook(lambda _, args: seen.append((args[0], args[1])))
    settings = SamplingSettings(3, guidance=1.0)
    latents = sample_latents(unet, SCHEDULE, Prompts(text, NO_TEXT), noise, settings, kept=kept).latents
    assert torch.equal(latents.masked_select(~anew), kept.latents.masked_select(~anew))
    assert not torch.equal(latents.masked_select(anew), kept.latents.masked_select(anew))
    for noisy, timestep in seen:
        expected = SCHEDULE.add_noise(kept.latents, noise, timestep)
        torch.testing.assert_close(noisy.masked_select(~anew), expected.masked_select(~anew))
    everything = Kept(kept.latents, torch.ones_like(anew))
    free = sample_latents(unet, SCHEDULE, Prompts(text, NO_TEXT), noise, settings)
    again = sample_latents(unet, SCHEDULE, Prompts(text, NO_TEXT), noise, settings, kept=everything)
    assert torch.equal(free.latents, again.latents)


def test_guidance_one_leaves_out_the_unconditional_branch(make_model, base, calls):
    ann, *_ = named_people()
    sample_people(make_model(), base, [ann], NO_TEXT, SamplingSettings(3, guidance=1), size=SIZE)
    assert len(calls) == 1 + 3


def test_strength_zero_is_undressed_to_the_bit(make_model, base):
    model = make_model()
    ann, *_ = named_people()
    nude = Person(ann.name, ann.text)
    zero, undressed, dressed = (
        sample_people(model, base, [person], NO_TEXT, SamplingSettings(3, strength=strength), size=SIZE)[0]
        for person, strength in ((ann, 0.0), (nude, 0.7), (ann, 0.7))
    )
    assert (zero.pixels == undressed.pixels).all()
    assert (dressed.pixels != undressed.pixels).any()
    text, noise, outfits = people()
    latents = [
        sample_latents(
            model.unet, SCHEDULE, Prompts(text, NO_TEXT), noise, SamplingSettings(3, strength=0.0), garments
        ).latents
        for garments in (model.garments(outfits), None)
    ]
    assert torch.equal(*latents)


@pytest.mark.parametrize("null_token", [True, False], ids=["null", "faithful"])
def test_a_picture_is_the_same_in_any_batch(make_model, base, null_token):
    model, everybody = make_model(null_token=null_token), named_people()
    together = sample_people(model, base, everybody, NO_TEXT, FEW, size=SIZE)
    for picture, person in zip(together, everybody, strict=True):
        (alone,) = sample_people(model, base, [person], NO_TEXT, FEW, size=SIZE)
        assert abs(picture.pixels.astype(int) - alone.pixels.astype(int)).max() <= 1
        if person.garments:
            torch.testing.assert_close(picture.maps, alone.maps, atol=1e-5, rtol=0)
        else:
            assert picture.maps is None
    assert (together[2].pixels != together[3].pixels).any(), "two people in the same coat are two people"


def test_a_garment_worn_by_several_is_encoded_once(make_model, base, calls):
    dressed = [person for person in named_people() if person.garments]
    sample_people(make_model(), base, dressed, NO_TEXT, FEW, size=SIZE)
    assert [len(text) for role, text in calls if isinstance(role, GarmentsRole)] == [2]


def test_the_same_seed_gives_the_same_picture_and_another_seed_another(make_model, base):
    model, people = make_model(), named_people()[:1]
    one, same, other = (
        sample_people(model, base, people, NO_TEXT, replace(FEW, seed=seed), size=SIZE)[0].pixels for seed in (3, 3, 4)
    )
    assert (one == same).all()
    assert (one != other).any()


def test_the_noise_hangs_on_seed_and_name_alone():
    noise = initial_noise(1, "ann", (64, 48))
    assert noise.shape == (4, 8, 6)
    assert torch.equal(noise, initial_noise(1, "ann", (64, 48)))
    assert not torch.equal(noise, initial_noise(1, "bea", (64, 48)))
    assert not torch.equal(noise, initial_noise(2, "ann", (64, 48)))


@pytest.mark.parametrize("null_token", [True, False], ids=["null", "faithful"])
def test_maps_are_shares_of_attention(make_model, base, null_token):
    ann, bea, cleo, _ = named_people()
    model = make_model(null_token=null_token)
    pictures = sample_people(model, base, [ann, bea, cleo], NO_TEXT, FEW, size=SIZE)
    for picture, count in zip(pictures[::2], (2, 1), strict=True):
        assert picture.maps.shape == (count, 8, 6)
        assert picture.maps.min() > 0
        total = picture.maps.sum(dim=0)
        if null_token:
            assert total.max() < 1
        else:
            torch.testing.assert_close(total, torch.ones(8, 6), atol=1e-5, rtol=0)


def test_background_tokens_are_left_out_where_cells_are_given(make_model, base):
    latents, cells = torch.randn(4, 8, 6), torch.zeros(8, 6, dtype=torch.bool)
    cells[2:5, 1:4] = True
    model, text = make_model(garment_tokens="foreground"), torch.randn(7, 24)
    whole, full, part = (
        sample_people(
            model,
            base,
            [Person("ann", text, [EncodedGarment("upper", latents, kept)])],
            NO_TEXT,
            FEW,
            size=SIZE,
        )[0].maps
        for kept in (None, torch.ones_like(cells), cells)
    )
    torch.testing.assert_close(full, whole, atol=1e-5, rtol=0)
    assert not torch.allclose(part, whole, atol=1e-3)


def test_odd_latents_are_sampled(make_model, base):
    ann, *_ = named_people()
    (picture,) = sample_people(make_model(), base, [ann], NO_TEXT, FEW, size=(56, 40))
    assert picture.pixels.shape == (56, 40, 3)
    assert picture.maps.shape == (2, 7, 5)


def test_a_bf16_unet_under_an_fp32_adapter(make_model):
    model = make_model()
    text, noise, outfits = people()
    with torch.no_grad():
        exact = sample_latents(model.unet, SCHEDULE, Prompts(text, NO_TEXT), noise, FEW, model.garments(outfits))
        model.unet.bfloat16()
        half = Outfits(outfits.latents.bfloat16(), outfits.slots, outfits.worn)
        sampled = sample_latents(model.unet, SCHEDULE, Prompts(text, NO_TEXT), noise, FEW, model.garments(half))
    assert sampled.latents.dtype == torch.float32
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    error = (sampled.latents - exact.latents).norm() / exact.latents.norm()
    assert 0 < error < 0.05
    torch.testing.assert_close(sampled.maps, exact.maps, atol=0.02, rtol=0)


def test_people_are_sampled_on_a_bf16_unet(make_model, base):
    base.unet.bfloat16()
    picture = sample_people(make_model(), base, named_people()[:1], NO_TEXT, FEW, size=SIZE)[0]
    assert picture.maps.max() <= 1


def test_sampling_changes_nothing_and_leaves_no_graph(make_model, base):
    model = make_model()
    before = {name: value.clone() for name, value in (model.state_dict() | model.unet.state_dict()).items()}
    processors = dict(model.unet.attn_processors)
    text, noise, outfits = people()
    sampled = sample_latents(model.unet, SCHEDULE, Prompts(text, NO_TEXT), noise, FEW, model.garments(outfits))
    assert not sampled.latents.requires_grad
    assert not sampled.maps.requires_grad
    after = model.state_dict() | model.unet.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert model.unet.attn_processors == processors
    assert torch.is_grad_enabled()


def test_progress_is_told_of_every_step_and_can_end_it(make_model, base, calls):
    told = []
    everybody = named_people()
    sample_people(make_model(), base, everybody, NO_TEXT, FEW, size=SIZE, batch=2, tick=told.append)
    assert sum(told) == len(everybody) * FEW.steps
    calls.clear()

    def stop(_):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        sample_people(make_model(), base, everybody[:1], NO_TEXT, FEW, size=SIZE, tick=stop)
    assert len(calls) == 1 + 2


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("steps", 0),
        ("steps", 1000),
        ("guidance", 0.5),
        ("guidance", math.inf),
        ("guidance", math.nan),
        ("strength", -1),
    ],
)
def test_impossible_settings_are_refused(setting, value):
    with pytest.raises(ValueError, match=rf"^{setting} = {value} is impossible\.\n.+\nWhat to do: choose "):
        SamplingSettings(**{setting: value})
