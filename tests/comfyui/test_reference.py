# SPDX-License-Identifier: GPL-3.0-or-later
"""Reference mode on real ComfyUI: how garments are read, where they go, and what a run remembers of that."""

from __future__ import annotations

import gc
import importlib
import weakref

import pytest
import torch
from comfyui_anydressing.anydressing_core.noise_levels import SEED

pytestmark = pytest.mark.comfyui

STEPS = {"steps": 3}
LEVELS = [62, 187, 312, 437, 562, 687, 812, 937]


@pytest.fixture(scope="module")
def studio(studio_without_file):
    return studio_without_file


@pytest.fixture
def runs():
    """Every sampling run that was begun, while anybody keeps it."""
    module = importlib.import_module("comfyui_anydressing.nodes.sampling_run")
    begun, make = [], module.SamplingRun

    def remembered(*args):
        run = make(*args)
        begun.append(weakref.ref(run))
        return run

    module.SamplingRun = remembered
    yield begun
    module.SamplingRun = make


# --- how a garment is read -------------------------------------------------------------------------------------------


@pytest.fixture
def seen(studio):
    """What the U-Net is given in the garment's pass: (x, timestep, text)."""
    calls, unet = [], studio.model.model.diffusion_model
    forward = unet.forward
    unet.forward = lambda x, timestep, context=None, **kwargs: (
        calls.append((x.clone(), timestep.clone(), context.clone())) or forward(x, timestep, context, **kwargs)
    )
    yield calls
    del unet.forward


def scaled(studio, model, sampling, **options):
    return studio.stock("nodes_model_advanced", "ModelSamplingDiscrete", model, sampling, **options)


@pytest.mark.holds_by_reference(
    "eps, v-prediction, LCM, zero-terminal-SNR",
    "garments are read at eight levels of the connected model's own schedule",
)
@pytest.mark.parametrize("sampling", ["eps", "v_prediction", "lcm", "zsnr"])
def test_a_garment_is_read_at_eight_levels_of_the_models_own_schedule(studio, seen, sampling):
    kind, zsnr = ("v_prediction", True) if sampling == "zsnr" else (sampling, False)
    model = studio.model if sampling == "eps" else scaled(studio, studio.model, kind, zsnr=zsnr)
    picture = studio.picture(1)
    garment = studio.garment("upper", model=model, image=picture, garment_tokens="all")
    schedule = model.get_model_object("model_sampling")
    ((x, timesteps, text),) = seen
    if sampling == "lcm":
        assert all(abs(float(t) - wanted) <= 20 for t, wanted in zip(timesteps, LEVELS, strict=True))
    else:
        assert timesteps.tolist() == LEVELS
    sigmas = schedule.sigma(timesteps)
    assert [level.sigma for level in garment.levels] == pytest.approx(sigmas.tolist(), rel=1e-6)
    latent = studio.vae.encode(picture) * 0.18215
    noise = torch.randn(latent.shape[1:], generator=torch.Generator().manual_seed(SEED))
    want = (latent + sigmas[:, None, None, None] * noise) / (sigmas[:, None, None, None] ** 2 + 1) ** 0.5
    torch.testing.assert_close(x, want, atol=1e-5, rtol=1e-5)
    empty = studio.prompts[""][0][0]
    torch.testing.assert_close(text, empty.expand(8, -1, -1).to(text), atol=1e-6, rtol=1e-6)


def test_reading_is_one_batch_that_memory_is_asked_for(studio, monkeypatch):
    management = importlib.import_module("comfy.model_management")
    asked, load = [], management.load_models_gpu
    monkeypatch.setattr(
        management,
        "load_models_gpu",
        lambda models, memory_required=0, **k: (
            asked.append(memory_required) or load(models, memory_required=memory_required, **k)
        ),
    )
    studio.garment("upper")
    assert studio.model.memory_required([8, 4, 12, 8]) in asked


def test_only_tokens_of_the_garment_are_kept_unless_it_cannot_be_told_apart(studio):
    picture = torch.ones(1, 96, 64, 3)
    picture[:, 24:72, 16:48] = studio.picture(1, 48, 32)
    told, noise = studio.garment("upper", image=picture), studio.garment("upper")
    counts = [[key.shape[1] for key, _ in garment.levels[0].tokens] for garment in (told, noise)]
    assert all(some < all_ for some, all_ in zip(*counts, strict=True))


@pytest.mark.holds_by_reference(
    "a MODEL without clip at Garment Encode",
    "dressed, without places, which the node says",
)
def test_without_a_clip_it_is_said_that_places_are_off(studio, caplog):
    caplog.set_level("INFO")
    garment = studio.garment("upper", clip=None)
    assert garment.words is None
    assert "No clip is connected: garments are not kept to their places." in caplog.text
    assert not torch.equal(studio.sample(studio.model), studio.sample(studio.dress(garments=[garment])))


def test_a_file_needs_no_clip_and_says_nothing_of_places(studio, caplog):
    caplog.set_level("INFO")
    assert studio.garment("upper", file=studio.random_file()).levels == ()
    assert "places" not in caplog.text


@pytest.mark.parametrize(
    ("words", "slot", "told"), [("", "upper", "shirt"), ("", "hat", "hat"), (" polo shirt ", "hat", "polo shirt")]
)
def test_words_are_encoded_alone_and_are_the_slots_own_by_default(studio, words, slot, told):
    tokens = studio.clip.tokenize(told)
    count = sum(token not in (49406, 49407) for token, _ in tokens["l"][0])
    want = studio.clip.encode_from_tokens(tokens)[0, 1 : 1 + count].mean(dim=0)
    torch.testing.assert_close(studio.garment(slot, words=words).words, want.float().cpu())


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"clip": "clip"}, r"clip: must be a CLIP from another node"),
        ({"words": 5}, r"words: must be text, got 5"),
        ({"words": "()"}, r"words: '\(\)' holds no word that this CLIP knows"),
    ],
    ids=str,
)
def test_what_cannot_be_words_is_refused(studio, inputs, said):
    with pytest.raises(ValueError, match=rf"(?s){said}.*What to do"):
        studio.garment("upper", **inputs)


# --- where garments go -----------------------------------------------------------------------------------------------


def test_places_come_from_words_and_change_the_picture(studio):
    named, mute = (
        [studio.garment(slot, clip=clip, words=words) for slot, words in (("upper", "shirt"), ("lower", "hat"))]
        for clip in (studio.clip, None)
    )
    assert [garment.levels == () for garment in (*named, *mute)] == [False] * 4
    with_places, without = (
        studio.first_step(studio.dress(garments=named), **STEPS),
        studio.first_step(studio.dress(garments=mute), **STEPS),
    )
    apart = [
        float((a - b).abs().max()) for (name, a), (_, b) in zip(with_places, without, strict=True) if name == "positive"
    ]
    assert len(apart) == 3
    assert apart[1] > 1e-4


@pytest.mark.holds_by_reference(
    "what a run has learned of places",
    "ends with the run: A, B, A; a cancelled run; a second pass",
)
def test_a_run_forgets_everything_at_its_end(studio, runs):
    model = studio.dress()
    one = studio.sample(model, **STEPS)
    assert torch.equal(one, studio.sample(model, **STEPS))
    gc.collect()
    assert [run() for run in runs] == [None, None]


@pytest.mark.holds_by_reference("what a run has learned of places")
def test_a_run_that_breaks_leaves_nothing_to_the_next(studio, runs):
    model = studio.dress()
    want = studio.sample(model, **STEPS)
    with pytest.raises(InterruptedError):
        studio.sample(studio.breaking(model, call=3), **STEPS)
    assert torch.equal(want, studio.sample(model, **STEPS))
    gc.collect()
    assert not any(run() for run in runs)


@pytest.mark.holds_by_reference("what a run has learned of places")
def test_a_second_pass_of_another_size_finds_its_places_anew(studio):
    model = studio.dress()
    large = {"samples": torch.zeros(1, 4, 24, 16)}
    want = studio.sample(model, latent=large, denoise=0.6, **STEPS)
    studio.sample(model, **STEPS)
    assert torch.equal(want, studio.sample(model, latent=large, denoise=0.6, **STEPS))


@pytest.mark.holds_by_reference("batches, several prompts", "each picture and each prompt has places of its own")
def test_each_picture_of_a_batch_has_places_of_its_own(studio):
    model = studio.dress()
    both = studio.sample(model, latent={"samples": torch.zeros(2, 4, 12, 8)}, **STEPS)
    second = studio.sample(model, latent={"samples": torch.zeros(1, 4, 12, 8), "batch_index": [1]}, **STEPS)
    torch.testing.assert_close(both[1:], second, atol=1e-3, rtol=1e-3)


@pytest.mark.holds_by_reference("batches, several prompts")
def test_each_prompt_of_a_picture_has_places_of_its_own(studio):
    """Two masked prompts: each is one row of every call, and neither sees the other's places."""
    nodes, masks = studio.host.nodes, torch.ones(1, 96, 64)
    halves = [
        nodes.ConditioningSetMask().append(studio.prompts[name], mask, "default", 1.0)[0]
        for name, mask in (("positive", masks), ("other", masks))
    ]
    model = studio.dress()
    together = studio.first_step(model, positive=nodes.ConditioningCombine().combine(*halves)[0], **STEPS)
    assert [name for name, _ in together].count("positive") == 3
    plain = studio.first_step(studio.model, positive=nodes.ConditioningCombine().combine(*halves)[0], **STEPS)
    for (name, before), (_, after) in zip(plain[:3], together[:3], strict=True):
        assert torch.equal(before, after) == (name == "negative")


@pytest.mark.holds_by_reference("region masks", "override the words")
def test_a_region_overrides_the_words(studio):
    upper, lower, _ = studio.garments
    nowhere_but_top = torch.zeros(1, 96, 64)
    nowhere_but_top[:, :16] = 1
    model = studio.dress(garments=[studio.settings(upper, region=nowhere_but_top)])
    plain, dressed = studio.first_step(studio.model, **STEPS), studio.first_step(model, **STEPS)
    changed = [
        (a - b).abs().mean(dim=0) for (name, a), (_, b) in zip(plain, dressed, strict=True) if name == "positive"
    ]
    assert changed[0][:2].mean() > 1.5 * changed[0][6:].mean()
    assert not torch.equal(
        studio.sample(studio.dress(garments=[upper, lower])),
        studio.sample(studio.dress(garments=[studio.settings(upper, region=nowhere_but_top), lower])),
    )


@pytest.mark.holds_by_reference("Deep Shrink", "places are found, and used, on the smaller grid")
def test_places_are_found_in_a_shrunken_unet(studio):
    """Under Deep Shrink, from the first step to the last: with `clip` the picture is another than without."""
    latent = {"samples": torch.zeros(1, 4, 24, 16)}
    placed, everywhere = (studio.garment("upper", clip=clip) for clip in (studio.clip, None))
    pictures = [
        studio.sample(studio.deep_shrink(studio.dress(garments=[one])), latent=latent) for one in (placed, everywhere)
    ]
    assert not torch.equal(*pictures)


@pytest.mark.holds_by_reference("tiles, windows over a film", "dressed, without places, which the log says")
def test_tiles_and_windows_are_told_to_have_no_places(studio, caplog):
    importlib.import_module("comfyui_anydressing.nodes.kernels").warn_once.cache_clear()

    def in_tiles(apply_model, args):
        x, halves = args["input"], []
        for half in x.chunk(2, dim=2):
            halves.append(apply_model(half, args["timestep"], **args["c"]))
        return torch.cat(halves, dim=2)

    model = studio.dress()
    model.set_model_unet_function_wrapper(in_tiles)
    one = studio.sample(model, latent={"samples": torch.zeros(1, 4, 16, 8)}, **STEPS)
    assert torch.equal(one, studio.sample(model, latent={"samples": torch.zeros(1, 4, 16, 8)}, **STEPS))
    assert [line for line in caplog.messages if "tiles or windows" in line]


# --- beside a file ---------------------------------------------------------------------------------------------------


@pytest.mark.holds_by_reference("a file at the same time", "both terms; saved graphs keep the file's alone")
def test_reference_beside_a_file_is_both(studio):
    file = studio.random_file("both")
    alone, both = (studio.garment("upper", file=file, reference=reference) for reference in (False, True))
    assert (alone.levels, len(both.levels)) == ((), 8)
    assert all(torch.equal(a, b) for a, b in zip(alone.tokens, both.tokens, strict=True))
    assert not torch.equal(studio.sample(studio.dress(garments=[alone])), studio.sample(studio.dress(garments=[both])))


def test_maps_are_shown_with_the_same_legend(studio):
    latent = torch.randn(1, 4, 12, 8, generator=torch.Generator().manual_seed(4))
    node = studio.pack["AnyDressingAttentionMaps"]
    with torch.inference_mode():
        result = node.execute(studio.dress(), studio.positive, {"samples": latent}, torch.rand(1, 96, 64, 3))
    _, maps, confusion = result.args
    assert maps.shape == (2, 96, 64)
    assert maps.sum(dim=0).min() > 0
    assert maps.sum(dim=0).max() < 1  # the picture's own tokens have the rest
    assert 0 < confusion <= 0.5
    assert result.ui["text"][0].startswith("lower: blue, upper: orange; confusion 0.")
