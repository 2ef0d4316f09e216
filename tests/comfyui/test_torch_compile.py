# SPDX-License-Identifier: GPL-3.0-or-later
"""Dressing beside ComfyUI's TorchCompileModel, which drops every guard on what our patches travel in.

Without a guard of our own a compiled U-Net ignores garments once an undressed run was compiled, and keeps the strength
of its first run. The backend "eager" traces and guards as inductor does, without generating code.
"""

from __future__ import annotations

import importlib

import pytest
import torch

pytestmark = pytest.mark.comfyui

CLOSE = 1e-5
"""Compiled and eager predictions differ by this much of the largest value at most."""


@pytest.fixture
def compiler(studio):
    """TorchCompileModel with a backend of our choice, in a process that has compiled nothing yet."""
    torch._dynamo.reset()
    yield lambda backend: lambda model: studio.stock("nodes_torch_compile", "TorchCompileModel", model, backend)
    torch._dynamo.reset()


def assert_close(got, want):
    assert (got - want).abs().max() < CLOSE * want.abs().max()


@pytest.mark.holds(
    "TorchCompileModel, before or after, after an undressed compiled run, with another strength",
    "equal to the uncompiled picture within 1e-5",
)
def test_compiled_pictures_wear_what_they_should(studio, compiler):
    """One process, in an order in which every missing guard would show."""
    compiled = compiler("eager")
    upper, lower, hat = studio.garments
    region = studio.settings(upper, region=torch.ones(1, 96, 64).tril())
    want = {
        "two garments": studio.sample(studio.dress(garments=[upper, lower])),
        "weaker": studio.sample(studio.dress(garments=[upper, lower], strength=0.35)),
        "others of the same shapes": studio.sample(studio.dress(garments=[lower, hat])),
        "one garment": studio.sample(studio.dress(garments=[upper])),
        "a region": studio.sample(studio.dress(garments=[region])),
        "stacked": studio.sample(studio.dress(studio.dress(garments=[upper]), garments=[lower])),
        "undressed": studio.sample(studio.model),
    }
    base = compiled(studio.model)
    assert_close(studio.sample(base), want["undressed"])  # an undressed compiled run comes first
    assert_close(studio.sample(studio.dress(base, [upper, lower])), want["two garments"])
    assert_close(studio.sample(studio.dress(base, [upper, lower], strength=0.35)), want["weaker"])
    assert_close(studio.sample(studio.dress(base, [lower, hat])), want["others of the same shapes"])
    assert_close(studio.sample(studio.dress(base, [upper])), want["one garment"])
    assert_close(studio.sample(studio.dress(base, [region])), want["a region"])
    assert_close(studio.sample(studio.dress(studio.dress(base, [upper]), [lower])), want["stacked"])
    assert_close(studio.sample(base), want["undressed"])
    assert_close(studio.sample(compiled(studio.dress(garments=[upper, lower]))), want["two garments"])
    assert_close(studio.sample(compiled(studio.dress(garments=[upper, lower], strength=0.35))), want["weaker"])


@pytest.fixture
def minimal(studio):
    """The smallest of our U-Nets, for which code is generated in half the time."""
    return studio.host.nodes.CheckpointLoaderSimple().load_checkpoint("anydressing_random_min.safetensors")[0]


@pytest.mark.holds("TorchCompileModel, before or after, after an undressed compiled run, with another strength")
def test_inductor_neither_ignores_garments_nor_keeps_a_stale_strength(studio, compiler, minimal):
    compiled = compiler("inductor")
    shape = importlib.import_module("comfyui_anydressing.nodes.unet").unet_shape(minimal)
    garment = [studio.garment("upper", model=minimal, file=studio.random_file("min.safetensors", unet=shape))]
    assert_close(studio.sample(compiled(minimal), steps=1), studio.sample(minimal, steps=1))
    for strength in (0.7, 0.35):
        want = studio.sample(studio.dress(minimal, garment, strength=strength), steps=1)
        assert_close(studio.sample(compiled(studio.dress(minimal, garment, strength=strength)), steps=1), want)


@pytest.mark.holds("TorchCompileModel, before or after, after an undressed compiled run, with another strength")
def test_compiled_unconditional_rows_stay_undressed(studio, compiler):
    compiled = compiler("eager")
    plain = studio.first_step(compiled(studio.model))
    dressed = studio.first_step(compiled(studio.dress()))
    for (name, before), (_, after) in zip(plain, dressed, strict=True):
        if name == "negative":
            assert_close(after, before)
        else:
            assert (before - after).abs().max() > 1e-3 * before.abs().max()


@pytest.mark.holds("garments only where they are worn, in tiles, windows or a compiled U-Net")
@pytest.mark.holds_by_reference("TorchCompileModel", "levels and places are those of the step")
def test_compiled_pictures_are_dressed_by_reference_as_they_should(studio_without_file, compiler):
    """Levels of noise and places change from step to step; nothing in the trace may keep those of the first."""
    studio, compiled = studio_without_file, compiler("eager")
    upper, lower, hat = studio.garments
    steps = {"steps": 4}
    want = {
        "two garments": studio.sample(studio.dress(garments=[upper, lower]), **steps),
        "weaker": studio.sample(studio.dress(garments=[upper, lower], strength=0.35), **steps),
        "others": studio.sample(studio.dress(garments=[lower, hat]), **steps),
        "undressed": studio.sample(studio.model, **steps),
    }
    base = compiled(studio.model)
    assert_close(studio.sample(base, **steps), want["undressed"])
    assert_close(studio.sample(studio.dress(base, [upper, lower]), **steps), want["two garments"])
    assert_close(studio.sample(studio.dress(base, [upper, lower], strength=0.35), **steps), want["weaker"])
    assert_close(studio.sample(studio.dress(base, [lower, hat]), **steps), want["others"])
    sparing = studio.dress(garments=[upper, lower], only_where_worn=True)  # which a compiled U-Net cannot be
    assert_close(studio.sample(compiled(sparing), **steps), want["two garments"])
    assert_close(studio.sample(base, **steps), want["undressed"])
