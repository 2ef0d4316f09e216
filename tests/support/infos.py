# SPDX-License-Identifier: GPL-3.0-or-later
"""What an AnyDressing file says about itself, where a test cares for no more than a part of it."""

from __future__ import annotations

from comfyui_anydressing.anydressing_core.checkpoint_info import CheckpointInfo
from comfyui_anydressing.anydressing_core.sites import UNetShape


def make_info(unet: UNetShape, **changes) -> CheckpointInfo:
    """A description of a file for a U-Net; every entry may be changed."""
    slots = changes.get("slots", ("upper", "lower"))
    settings = {
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
        "title": "random numbers",
        "author": "the tests",
    }
    return CheckpointInfo(unet=unet, **{**settings, **changes})
