# SPDX-License-Identifier: GPL-3.0-or-later
"""The ablation's arms are what their names say."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from comfyui_anydressing.training.dressing.config import TrainConfig
from comfyui_anydressing.training.evaluation.arms import ARMS, POOLED_TOKENS, PooledTokens, SharedReference, arm_tensors
from comfyui_anydressing.training.model.adapter import Adapter
from comfyui_anydressing.training.model.dressing import DressingModel
from comfyui_anydressing.training.model.outfits import Outfits
from comfyui_anydressing.training.run.config import parse_config

NEEDED = ['folder="run"', 'data.manifest="m.jsonl"', 'base.checkpoint="b.safetensors"']


@pytest.fixture
def fresh(unet, make_info):
    """`fresh(kind)` is a model of that kind around one and the same untrained adapter."""
    adapter = Adapter(make_info(), unet)
    return lambda kind: kind(unet, adapter)


def outfits(worn):
    torch.manual_seed(6)
    return Outfits(torch.randn(3, 4, 8, 6), ("upper", "lower", "upper"), torch.tensor(worn))


def noise_of(model, worn, **changes):
    torch.manual_seed(5)
    noisy, text = torch.randn(len(worn), 4, 8, 6), torch.randn(len(worn), 7, 24)
    return model(noisy, torch.full((len(worn),), 300), text, replace(outfits(worn), **changes)).noise


@torch.no_grad()
def test_one_garment_alone_is_the_same_in_a_shared_pass(fresh):
    """Without training a LoRA adds nothing, so that one garment's pass is the frozen one in both."""
    shared, apart = (noise_of(fresh(kind), [[1]]) for kind in (SharedReference, DressingModel))
    torch.testing.assert_close(shared, apart, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_garments_see_each_other_in_a_shared_pass(fresh):
    shared, apart = (noise_of(fresh(kind), [[0, 1]]) for kind in (SharedReference, DressingModel))
    assert not torch.allclose(shared, apart, atol=1e-4)


@torch.no_grad()
def test_nobody_sees_a_garment_that_is_not_hers(fresh):
    """A blank place beside her own garment: what the batch's first garment looks like must not matter."""
    model, latents = fresh(SharedReference), outfits([[0, 1]]).latents
    before = noise_of(model, [[0, 1], [2, -1]])
    latents[0] += 1
    after = noise_of(model, [[0, 1], [2, -1]], latents=latents)
    assert not torch.allclose(before[0], after[0], atol=1e-4)
    torch.testing.assert_close(before[1], after[1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_pooled_garment_is_a_few_tokens(fresh):
    model = fresh(PooledTokens)
    for garments in model.garments(outfits([[0, 1]])).values():
        assert garments.counts == (POOLED_TOKENS, POOLED_TOKENS)
    noise_of(model, [[0, 1], [2, -1]])


@pytest.mark.parametrize("kind", [SharedReference, PooledTokens])
def test_what_an_arm_adds_is_trained_and_comes_back(fresh, kind):
    model = fresh(kind)
    noise_of(model, [[0, 1]]).square().mean().backward()
    trained = {name: value for name, value in model.named_parameters() if value.grad is not None}
    assert all(value.grad.abs().sum() > 0 for name, value in trained.items() if name.startswith("project"))
    assert any(name.startswith("project") for name in trained) == (kind is PooledTokens)
    named = {name: torch.full_like(value.detach(), 0.5) for name, value in trained.items()}
    arm_tensors(model, named)
    assert all(torch.equal(value, torch.full_like(value, 0.5)) for _, value in model.named_parameters())


def test_every_arm_is_a_setting_away_from_the_full_method():
    def config(name):
        settings = [f"{key}={json.dumps(value)}" for key, value in ARMS[name].settings.items()]
        return parse_config('preset = "paper-doll-ablation"', name, TrainConfig, [*NEEDED, *settings])

    full = config("full")
    for name, arm in ARMS.items():
        if arm.of is None:
            assert set(full.changes(config(name))) == set(arm.settings)
        else:
            assert not arm.settings
            assert ARMS[arm.of].of is None
