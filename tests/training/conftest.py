# SPDX-License-Identifier: GPL-3.0-or-later
"""A tiny SD1.5-type U-Net in diffusers, and AnyDressing files for it."""

from __future__ import annotations

import pytest
import torch
from comfyui_anydressing.anydressing_core.checkpoint_info import CheckpointInfo
from comfyui_anydressing.anydressing_core.sites import UNetShape
from comfyui_anydressing.training.adapter import Adapter
from comfyui_anydressing.training.dressing_model import DressingModel
from diffusers import UNet2DConditionModel

SHAPE = UNetShape((16, 32), (1, 1), (True, True), mid_attention=True, heads=4, cross_attention_dim=24)


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return UNet2DConditionModel(**SHAPE.to_diffusers(), norm_num_groups=8).eval().requires_grad_(False)


@pytest.fixture
def make_info():
    def make(**changes):
        slots = changes.get("slots", ("upper", "lower"))
        settings = {
            "unet": SHAPE,
            "slots": slots,
            "rank": dict.fromkeys(slots, 4),
            "alpha": dict.fromkeys(slots, 4.0),
            "lora_targets": ("q", "k", "v"),
            "feature_tap": "attn_input",
            "null_token": True,
            "garment_tokens": "all",
            "resolution": (64, 48),
            "loss_reading": "ldm mse, localisation l2",
            "steps": 0,
            "dataset": "none",
            "dataset_licence": "CC0-1.0",
            "training_config_hash": "0" * 64,
            "title": "test",
            "author": "the tests",
        }
        return CheckpointInfo(**{**settings, **changes})

    return make


@pytest.fixture
def make_model(unet, make_info):
    """A DressingModel whose LoRAs are not zero, so that they show."""

    def make(**changes):
        torch.manual_seed(1)
        adapter = Adapter(make_info(**changes), unet)
        with torch.no_grad():
            for name, parameter in adapter.named_parameters():
                if name.endswith(("up.weight", "null_key", "null_bias")):
                    parameter.normal_(std=0.3)
        return DressingModel(unet, adapter)

    return make
