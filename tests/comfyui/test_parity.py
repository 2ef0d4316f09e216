# SPDX-License-Identifier: GPL-3.0-or-later
"""One U-Net, two hosts: the same weights and the same file predict the same noise in diffusers and in ComfyUI.

What is trained on diffusers is what ComfyUI runs; this keeps it so.
"""

from __future__ import annotations

import importlib
from functools import partial

import pytest
import torch
from comfyui_anydressing.anydressing_core.canvas import lay_out
from comfyui_anydressing.anydressing_core.garment_kv import garment_kv, project_garment, split_heads
from comfyui_anydressing.anydressing_core.lora import stack_loras
from comfyui_anydressing.anydressing_core.reference_attention import WITH_FILE, WITHOUT_FILE, reference_sites
from comfyui_anydressing.anydressing_core.worn_queries import WornStates
from comfyui_anydressing.training.base.schedule import NoiseSchedule
from comfyui_anydressing.training.model.adapter import Adapter
from comfyui_anydressing.training.model.dressing import DressingModel
from comfyui_anydressing.training.model.outfits import Outfits
from comfyui_anydressing.training.model.processors import (
    DressingRole,
    GarmentsRole,
    dressed_prediction,
    garment_features,
    install,
)
from comfyui_anydressing.training.model.reference import Reference, read_garments
from diffusers import UNet2DConditionModel

pytestmark = pytest.mark.comfyui

TOLERANCE = 1e-4
THRESHOLD, ALONE = 0.5, 0.35  # of random numbers, some of which wear something, some one garment alone
SLOTS = ("upper", "lower", "hat")


@pytest.fixture(scope="module")
def diffusers_unet(studio):
    """The studio's U-Net in diffusers, weight by weight."""
    utils = importlib.import_module("comfy.utils")
    config = studio.model.model.model_config.unet_config
    weights = studio.model.model.diffusion_model.state_dict()
    names = utils.unet_to_diffusers(config)
    unet = UNet2DConditionModel(**studio.garments[0].unet.to_diffusers()).eval()
    unet.load_state_dict({name: weights[names[name]].float() for name in unet.state_dict()})
    shape = install(unet)
    assert shape == studio.garments[0].unet
    return unet


def every_call(studio, model, **options):
    """What ComfyUI's U-Net was given and said: (prompt name, x, timestep, text, noise), for each row of each call."""
    calls = []

    def record(executor, x, timesteps, context, *args, **kwargs):
        out = executor(x, timesteps, context, *args, **kwargs)
        for row, (text, noise) in enumerate(zip(context, out, strict=True)):
            name = "positive" if torch.allclose(text, studio.positive[0][0][0].to(text), atol=1e-4) else "negative"
            calls.append((name, x[row : row + 1], timesteps[row : row + 1], text[None], noise[None].clone()))
        return out

    extension = importlib.import_module("comfy.patcher_extension")
    watched = model.clone()
    watched.add_wrapper_with_key(extension.WrappersMP.DIFFUSION_MODEL, "test_recorder", record)
    studio.sample(watched, **options)
    return calls


def conditional_call(studio, model):
    """The same of the first step: (x, timestep, text, noise), by prompt name."""
    return {name: call for name, *call in every_call(studio, model, steps=1)}


def stacked(checkpoint, slots):
    """The file's LoRAs of these slots, stacked for one call: site -> target -> (down, up, scale)."""
    scale = torch.tensor([checkpoint.scale(slot) for slot in slots])
    loras = {}
    for site in checkpoint.info.unet.sites:
        per_slot = [checkpoint.lora(slot, site.key) for slot in slots]
        targets = per_slot[0]
        loras[site.key] = {target: (*stack_loras([lora[target] for lora in per_slot]), scale) for target in targets}
    return loras


def trainers_garments(studio, unet, checkpoint, pictures, slots):
    """GarmentsNet, K' and V' as the trainer makes them: all garments in one batch."""
    latents = torch.cat([studio.vae.encode(picture) for picture in pictures]) * 0.18215
    role = GarmentsRole(stacked(checkpoint, slots), checkpoint.info.feature_tap)
    features = garment_features(unet, latents, role)
    garments = {}
    for site in checkpoint.info.unet.sites:
        to_k, to_v = checkpoint.to_k(site.key), checkpoint.to_v(site.key)
        pairs = [project_garment(f[None], to_k, to_v) for f in features[site.key]]
        keys, values = zip(*pairs, strict=True)
        null, maps = checkpoint.null(site.key), checkpoint.info.null_token
        garments[site.key] = garment_kv(keys, values, checkpoint.info.unet.heads, null=null, maps=maps)
    return features, garments


@torch.inference_mode()
def test_undressed_predictions_agree(studio, diffusers_unet):
    for x, timestep, text, noise in conditional_call(studio, studio.model).values():
        ours = diffusers_unet(x, timestep, encoder_hidden_states=text).sample
        torch.testing.assert_close(ours, noise, atol=TOLERANCE, rtol=0)


VARIANTS = {
    "attn_input": {},
    "attn_output": {"feature_tap": "attn_output"},
    "output lora": {"lora_targets": ("q", "k", "v", "out")},
    "uneven ranks": {"rank": {"upper": 2, "lower": 4, "hat": 8}, "alpha": {"upper": 4.0, "lower": 4.0, "hat": 2.0}},
}


@pytest.mark.holds(
    "training on diffusers",
    "the same file predicts the same noise within 1e-4, and so does reference mode from step to step",
)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("null", [False, True], ids=["faithful", "null"])
@pytest.mark.parametrize("count", [1, 2, 3])
@torch.inference_mode()
def test_dressed_predictions_agree(studio, diffusers_unet, count, null, variant):
    slots = SLOTS[:count]
    file = studio.random_file("parity", null_token=null, **VARIANTS[variant])
    pictures = [studio.picture(seed) for seed in range(count)]
    worn = [studio.garment(slot, file=file, image=picture) for slot, picture in zip(slots, pictures, strict=True)]
    features, garments = trainers_garments(studio, diffusers_unet, file.checkpoint, pictures, slots)
    for index, site in enumerate(file.checkpoint.info.unet.sites):
        for row, garment in enumerate(worn):
            torch.testing.assert_close(garment.tokens[index][0], features[site.key][row], atol=TOLERANCE, rtol=1e-4)

    calls = conditional_call(studio, studio.dress(garments=worn, strength=0.7))
    x, timestep, text, noise = calls["positive"]
    ours = dressed_prediction(diffusers_unet, x, timestep, text, DressingRole(garments, 0.7))
    torch.testing.assert_close(ours, noise, atol=TOLERANCE, rtol=0)
    undressed = diffusers_unet(x, timestep, encoder_hidden_states=text).sample
    assert (noise - undressed).abs().max() > 100 * TOLERANCE
    x, timestep, text, noise = calls["negative"]
    torch.testing.assert_close(
        diffusers_unet(x, timestep, encoder_hidden_states=text).sample, noise, atol=TOLERANCE, rtol=0
    )


@pytest.mark.holds("training on diffusers")
@pytest.mark.parametrize("sparing", [None, (0.7, 2)], ids=["everywhere", "where worn"])
@pytest.mark.parametrize("both", [False, True], ids=["reference alone", "with a file"])
@torch.inference_mode()
def test_predictions_by_reference_agree_from_step_to_step(studio, diffusers_unet, both, sparing):
    """Each step takes the nearest level of noise, and the places that the steps before it have found; and where garments were
    worn, too, when they are computed there alone.
    """
    file = studio.random_file("both") if both else studio.no_file
    slots, pictures = SLOTS[:2], [studio.picture(seed) for seed in range(2)]
    options = {"clip": studio.clip, "reference": both, "size": "custom", "width": 64, "height": 96}
    worn = [
        studio.garment(slot, file=file, image=picture, words=words, **options)
        for slot, picture, words in zip(slots, pictures, ("striped polo shirt", ""), strict=True)
    ]
    dressed = studio.dress(garments=worn)
    if sparing is not None:
        spare(dressed, *sparing)
    calls = [call for call in every_call(studio, dressed, steps=5) if call[0] == "positive"]
    assert len(calls) == 5

    latents = torch.cat([studio.vae.encode(picture) for picture in pictures]) * 0.18215
    outfits = Outfits(latents, slots, torch.tensor([[0, 1]]))
    empty = words_module().empty_prompt(studio.clip, 768)
    read = read_garments(diffusers_unet, NoiseSchedule.sd15(), outfits, empty)
    for level, timestep in zip(worn[0].levels, read, strict=True):
        last = reference_sites(worn[0].unet)[-1].key
        ours = split_heads(read[timestep][last].key, 8)[..., : read[timestep][last].columns.dim].flatten(2)
        torch.testing.assert_close(
            ours[:, : read[timestep][last].counts[0]], level.tokens[-1][0], atol=TOLERANCE, rtol=1e-4
        )
    embedded = [
        words_module().embedded_words(studio.clip, words, slot, 768)
        for words, slot in (("striped polo shirt", "upper"), ("", "lower"))
    ]
    weights = torch.full((2,), WITH_FILE if both else WITHOUT_FILE)
    reference = Reference(
        read, weights, (12, 8), torch.stack(embedded)[None], torch.ones(1, 2).bool(), NoiseSchedule.sd15(), worn[0].unet
    )
    trained = trainers_garments(studio, diffusers_unet, file.checkpoint, pictures, slots)[1] if both else {}
    states = None if sparing is None else WornStates.of(*sparing, ALONE)
    for _, x, timestep, text, noise in calls:
        for state in states or ():
            state.begin(worn[0].unet.sites, (12, 8))
        role = DressingRole(trained, 0.7, reference.step(int(timestep), (12, 8)), states)
        ours = dressed_prediction(diffusers_unet, x, timestep, text, role)
        torch.testing.assert_close(ours, noise, atol=TOLERANCE, rtol=0)
        reference.took(role.reference)
    assert reference.places.among([0, 1]).std() > 1e-3
    if states is not None:
        assert min(share for steps in states.reference.computed.values() for share in steps[2:]) < 0.9
        assert met_apart(states.reference)


@pytest.mark.holds("training on diffusers")
@pytest.mark.parametrize("every", [1, 2])
@torch.inference_mode()
def test_predictions_where_garments_are_worn_agree_from_step_to_step(studio, diffusers_unet, every):
    """Each step, or every second, computes the file's term for the queries that wore something in the step before."""
    file = studio.random_file("worn")
    slots, pictures = SLOTS[:2], [studio.picture(seed) for seed in range(2)]
    worn = [studio.garment(slot, file=file, image=picture) for slot, picture in zip(slots, pictures, strict=True)]
    dressed = studio.dress(garments=worn, strength=0.7)
    spare(dressed, THRESHOLD, every)
    calls = [call for call in every_call(studio, dressed, steps=6) if call[0] == "positive"]

    latents = torch.cat([studio.vae.encode(picture) for picture in pictures]) * 0.18215
    adapter = Adapter(file.checkpoint.info, diffusers_unet)
    adapter.load(file.checkpoint)
    model = DressingModel(diffusers_unet, adapter)
    garments, states = (
        model.garments(Outfits(latents, slots, torch.tensor([[0, 1]]))),
        WornStates.of(THRESHOLD, every, ALONE),
    )
    for _, x, timestep, text, noise in calls:
        states.trained.begin(file.checkpoint.info.unet.sites, (12, 8))
        ours = dressed_prediction(diffusers_unet, x, timestep, text, DressingRole(garments, 0.7, worn=states))
        torch.testing.assert_close(ours, noise, atol=TOLERANCE, rtol=0)
    shares = [share for steps in states.trained.computed.values() for share in steps[2:]]
    assert 0 < min(share for share in shares if share) < 0.9
    assert (0 in shares) == (every == 2)
    assert met_apart(states.trained)


@pytest.mark.holds("training on diffusers")
@pytest.mark.parametrize("tokens", ["foreground", "cropped"])
@torch.inference_mode()
def test_garments_whose_own_tokens_alone_count_agree(studio, diffusers_unet, tokens):
    """One by one in ComfyUI, side by side with filling in the trainer; a file's, read with their canvases or without what lies
    around them, and by reference.
    """
    file = studio.random_file(tokens, garment_tokens=tokens)
    pictures = [torch.ones(1, 96, 64, 3) for _ in SLOTS]
    boxes = ((24, 70, 10, 40), (16, 60, 5, 30), (20, 90, 20, 50))
    for seed, (picture, (top, bottom, left, right)) in enumerate(zip(pictures, boxes, strict=True)):
        picture[:, top:bottom, left:right] = studio.picture(seed, bottom - top, right - left) * 0.8
    options = {"clip": studio.clip, "reference": True, "size": "custom", "width": 64, "height": 96}
    worn = [
        studio.garment(slot, file=file, image=picture, **options) for slot, picture in zip(SLOTS, pictures, strict=True)
    ]
    x, timestep, text, noise = conditional_call(studio, studio.dress(garments=worn, strength=0.7))["positive"]

    latents = torch.cat([studio.vae.encode(picture) for picture in pictures]) * 0.18215
    cells = torch.stack([lay_out(picture.movedim(-1, 1) * 2 - 1, 96, 64).cells for picture in pictures])
    outfits = Outfits(latents, SLOTS, torch.tensor([[0, 1, 2]]), cells)
    adapter = Adapter(file.checkpoint.info, diffusers_unet)
    adapter.load(file.checkpoint)
    garments = DressingModel(diffusers_unet, adapter).garments(outfits)
    read = read_garments(diffusers_unet, NoiseSchedule.sd15(), outfits, words_module().empty_prompt(studio.clip, 768))
    weights, present = torch.full((3,), WITH_FILE), torch.ones(1, 3).bool()
    reference = Reference(read, weights, (12, 8), None, present, NoiseSchedule.sd15(), worn[0].unet)
    role = DressingRole(garments, 0.7, reference.step(int(timestep), (12, 8)))
    ours = dressed_prediction(diffusers_unet, x, timestep, text, role)
    torch.testing.assert_close(ours, noise, atol=TOLERANCE, rtol=0)
    assert max(garment.tokens[0].shape[1] for garment in worn) < 12 * 8 * 0.6


def met_apart(state):
    """Whether some queries met one garment alone."""
    steps = ((state.computed[site], met) for site, met in state.met.items())
    return any(few < many for computed, met in steps for many, few in zip(computed, met, strict=True))


def spare(model, threshold, every):
    """Keep a dressed MODEL's garments to where they are worn."""
    module = importlib.import_module("comfyui_anydressing.nodes.attention_patch")
    for dressing in module.dressings_of(model):
        dressing.new_states = partial(module.WornStates.of, threshold, every, ALONE)


def words_module():
    return importlib.import_module("comfyui_anydressing.nodes.words")
