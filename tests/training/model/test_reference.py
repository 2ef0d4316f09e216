# SPDX-License-Identifier: GPL-3.0-or-later
"""Reference mode as a whole U-Net: of its settings two are schemes of others, restated here without any of our attention."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from comfyui_anydressing.anydressing_core.canvas import foreground_tokens
from comfyui_anydressing.anydressing_core.garment_kv import split_heads
from comfyui_anydressing.anydressing_core.reference_attention import CONTRAST, fair_weight, reference_sites
from comfyui_anydressing.training.base.schedule import NoiseSchedule
from comfyui_anydressing.training.model.outfits import Outfits
from comfyui_anydressing.training.model.people import EncodedGarment, Person, sample_people
from comfyui_anydressing.training.model.processors import DressingRole, dressed_prediction, install
from comfyui_anydressing.training.model.reference import Reference, level_timesteps, read_garments
from comfyui_anydressing.training.model.sampling import SamplingSettings
from diffusers.models.attention_processor import Attention

SCHEDULE, SIZE = NoiseSchedule.sd15(), (8, 6)


@pytest.fixture
def shape(unet):
    return install(unet)


@pytest.fixture
def scene():
    torch.manual_seed(3)
    return SimpleNamespace(
        noisy=torch.randn(2, 4, *SIZE),
        text=torch.randn(2, 77, 24),
        latents=torch.randn(2, 4, *SIZE),
        empty=torch.randn(77, 24),
        cells=torch.rand(2, *SIZE) > 0.5,
    )


class Extended:
    """Keys and values of references join the picture's own, in one softmax; no code of ours. bias: per reference token."""

    def __init__(self, kept, bias=None):
        self.kept, self.bias, self.recording = kept, bias, False

    def __call__(self, attn: Attention, hidden_states, encoder_hidden_states=None, attention_mask=None, **kwargs):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        added = torch.zeros(k.shape[1])
        if self.recording:
            self.kept["keys"], self.kept["values"] = k, v
        elif "keys" in self.kept:
            joined = [
                part.flatten(0, 1)[None].expand(len(q), -1, -1) for part in (self.kept["keys"], self.kept["values"])
            ]
            extra = torch.zeros(joined[0].shape[1]) if self.bias is None else self.bias
            k, v = torch.cat([k, joined[0]], dim=1), torch.cat([v, joined[1]], dim=1)
            added = torch.cat([added, extra])
        split = lambda x: x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # noqa: E731
        logits = split(q) @ split(k).transpose(-1, -2) / math.sqrt(q.shape[-1] // attn.heads) + added
        return attn.to_out[0]((logits.softmax(-1) @ split(v)).transpose(1, 2).flatten(2))


def others_prediction(unet, shape, scene, timestep, *, stages, bias_of=None):
    """The picture beside its references, which are noised to the same t in a pass of their own."""
    noise = torch.randn(4, *SIZE, generator=torch.Generator().manual_seed(7))
    a = float(SCHEDULE.alphas_cumprod[timestep])
    references = a**0.5 * scene.latents + (1 - a) ** 0.5 * noise
    processors = {}
    for site in shape.sites:
        bias = None if bias_of is None else bias_of(site)
        processors[site] = Extended({}, bias)
        unet.get_submodule(site.diffusers_name).set_processor(
            processors[site] if site.stage in stages else Extended({})
        )
        unet.get_submodule(site.diffusers_name.removesuffix("1") + "2").set_processor(Extended({}))
    for one in processors.values():
        one.recording = True
    unet(references, torch.full((2,), timestep), encoder_hidden_states=scene.empty.expand(2, -1, -1))
    for one in processors.values():
        one.recording = False
    return unet(scene.noisy, torch.full((2,), timestep), encoder_hidden_states=scene.text).sample


def our_prediction(unet, scene, timestep, *, sites, weight, cells=None):
    install(unet)
    outfits = Outfits(scene.latents, ["upper", "lower"], torch.tensor([[0, 1], [0, 1]]), cells)
    levels = read_garments(unet, SCHEDULE, outfits, scene.empty, timesteps=[timestep], sites=sites, contrast=1.0)
    present = torch.ones(2, 2, dtype=torch.bool)
    reference = Reference(levels, torch.full((2,), weight), SIZE, None, present, SCHEDULE, install(unet))
    role = DressingRole({}, 0.0, reference.step(timestep, SIZE))
    return dressed_prediction(unet, scene.noisy, torch.full((2,), timestep), scene.text, role)


@torch.no_grad()
@pytest.mark.parametrize("timestep", [901, 301])
def test_every_step_all_tokens_all_sites_no_places_is_reference_only(unet, shape, scene, timestep):
    want = others_prediction(unet, shape, scene, timestep, stages=("down", "mid", "up"))
    ours = our_prediction(unet, scene, timestep, sites=shape.sites, weight=1.0)
    torch.testing.assert_close(ours, want, atol=2e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("timestep", [901, 301])
def test_with_bias_3_the_background_out_and_the_decoders_sites_it_is_the_multi_reference_scheme(
    unet, shape, scene, timestep
):
    def bias_of(site):
        seen = torch.cat([foreground_tokens(cells, site.grid(*SIZE)) for cells in scene.cells])
        return torch.where(seen, 3.0, -math.inf)

    want = others_prediction(unet, shape, scene, timestep, stages=("up",), bias_of=bias_of)
    decoder = [site for site in shape.sites if site.stage == "up"]
    ours = our_prediction(unet, scene, timestep, sites=decoder, weight=math.e**3, cells=scene.cells)
    torch.testing.assert_close(ours, want, atol=2e-5, rtol=1e-4)
    undressed = unet(scene.noisy, torch.full((2,), timestep), encoder_hidden_states=scene.text).sample
    assert (ours - undressed).abs().max() > 1e-3


def test_levels_lie_at_the_middles_of_the_schedule():
    assert level_timesteps() == [62, 187, 312, 437, 562, 687, 812, 937]
    assert level_timesteps(1) == [500]


@torch.no_grad()
def test_the_nearest_level_serves_a_step(unet, shape, scene):
    outfits = Outfits(scene.latents, ["upper", "lower"], torch.tensor([[0, 1]]))
    levels = read_garments(unet, SCHEDULE, outfits, None)
    reference = Reference(levels, torch.ones(2), SIZE, None, torch.ones(1, 2).bool(), SCHEDULE, shape)
    chosen = [
        next(t for t, one in levels.items() if one is reference.step(step, SIZE).garments)
        for step in (999, 800, 700, 560, 300, 1)
    ]
    assert chosen == [937, 812, 687, 562, 312, 62]


@torch.no_grad()
def test_keys_have_more_contrast_than_was_read(unet, shape, scene):
    outfits = Outfits(scene.latents, ["upper", "lower"], torch.tensor([[0, 1]]))
    ours = read_garments(unet, SCHEDULE, outfits, None)
    plain = read_garments(unet, SCHEDULE, outfits, None, contrast=1.0)
    site = reference_sites(shape)[0].key
    for step in (937, 62):
        dim, heads = plain[step][site].columns.dim, plain[step][site].heads
        key, wanted = (split_heads(levels[step][site].key, heads)[..., :dim] for levels in (ours, plain))
        torch.testing.assert_close(key, CONTRAST * wanted)
        assert torch.equal(ours[step][site].value, plain[step][site].value)


@torch.no_grad()
def test_people_in_different_numbers_of_garments_share_a_batch(unet, shape, scene, base_of):
    """Whoever lacks a garment is dressed as if she were alone."""
    from comfyui_anydressing.training.model.reference_dresser import ReferenceDresser

    base = base_of(unet, shape)
    words = torch.randn(2, 24)
    garments = [
        EncodedGarment(slot, scene.latents[i], scene.cells[i], words[i]) for i, slot in enumerate(("upper", "lower"))
    ]
    ann, bea = Person("ann", scene.text[0], garments), Person("bea", scene.text[1], garments[1:])
    settings = SamplingSettings(3, guidance=1.0)
    dresser = ReferenceDresser(base, (64, 48))
    together = sample_people(dresser, base, [ann, bea], scene.empty, settings, size=(64, 48))
    (alone,) = sample_people(dresser, base, [bea], scene.empty, settings, size=(64, 48))
    torch.testing.assert_close(together[1].maps, alone.maps, atol=1e-5, rtol=1e-4)
    assert together[0].maps.shape == (2, *SIZE)
    assert fair_weight(1.0, SIZE, SIZE) == 1.0


@pytest.fixture
def base_of():
    """A base model that encodes text as it is told to and decodes to grey."""

    def make(unet, shape):
        return SimpleNamespace(
            unet=unet,
            shape=shape,
            schedule=SCHEDULE,
            encode_text=lambda texts: torch.zeros(len(texts), 77, 24),
            decode=lambda latents: torch.zeros(len(latents), 3, 64, 48),
        )

    return make
