# SPDX-License-Identifier: GPL-3.0-or-later
"""Sites: every self-attention layer of an SD1.5-type U-Net has one key, and its right name in each host."""

import json

import pytest
import torch
from comfyui_anydressing.anydressing_core.sites import SD15, UNetShape, parse_unet_config
from diffusers import UNet2DConditionModel

REDUCED = {
    "block_out_channels": [32, 64],
    "layers_per_block": [1, 2],
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "attention_head_dim": 8,
    "cross_attention_dim": 48,
}


def tiny_unet(config):
    torch.manual_seed(0)
    return UNet2DConditionModel(**{**config, "norm_num_groups": 8}).eval()


def record_attention(unet):
    """Run once on a 24 x 16 latent; returns (name, tokens, channels) of each attn1 in the order of the calls."""
    calls = []
    for name, module in unet.named_modules():
        if name.endswith("attn1"):
            module.register_forward_hook(
                lambda _, args, out, name=name: calls.append((name, args[0].shape[1], out.shape[-1]))
            )
    with torch.no_grad():
        unet(torch.zeros(1, 4, 24, 16), torch.tensor([0]), torch.zeros(1, 1, unet.config.cross_attention_dim))
    return calls


def test_sd15_has_sixteen_sites():
    assert len(SD15.sites) == 16
    assert [site.key for site in SD15.sites[:7]] == [
        "down_0_0",
        "down_0_1",
        "down_1_0",
        "down_1_1",
        "down_2_0",
        "down_2_1",
        "mid_0_0",
    ]


def test_sd15_sites_carry_comfyuis_block_numbers():
    numbers = [site.ldm_block for site in SD15.sites]
    assert numbers == [("input", n) for n in (1, 2, 4, 5, 7, 8)] + [("middle", 0)] + [
        ("output", n) for n in range(3, 12)
    ]


def test_keys_are_valid_module_names():
    assert all("." not in site.key for site in SD15.sites)


@pytest.mark.parametrize("config", [{**SD15.to_diffusers(), "block_out_channels": [32, 64, 128, 128]}, REDUCED])
def test_every_site_fires_once_in_order_in_diffusers(config):
    sites = UNetShape.from_diffusers(config).sites
    expected = [(s.diffusers_name, s.grid(24, 16)[0] * s.grid(24, 16)[1], s.channels) for s in sites]
    assert record_attention(tiny_unet(config)) == expected


def test_diffusers_own_config_is_understood():
    unet = tiny_unet(REDUCED)
    text = unet.to_json_string()
    assert parse_unet_config(text) == UNetShape.from_diffusers(REDUCED)


def test_shape_survives_the_round_trip_through_diffusers_config():
    for shape in (SD15, UNetShape.from_diffusers(REDUCED)):
        assert parse_unet_config(json.dumps(shape.to_diffusers())) == shape


def test_odd_grids_round_up_as_the_strided_convolutions_do():
    mid = next(site for site in SD15.sites if site.stage == "mid")
    assert mid.grid(48, 36) == (6, 5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"use_linear_projection": True}, "SD2"),
        ({"addition_embed_type": "text_time"}, "SDXL"),
        ({"transformer_layers_per_block": [1, 2]}, "one transformer block"),
        ({"block_out_channels": []}, "1 to 8"),
        ({"block_out_channels": [32, -64]}, "positive"),
        ({"block_out_channels": [32, 10**30]}, "positive"),
        ({"attention_head_dim": [5, 10]}, "positive"),
        ({"layers_per_block": [1]}, "layers"),
        ({"layers_per_block": 10**6}, "layers"),
        ({"down_block_types": ["AttnDownBlock2D"] * 2}, "down_block_types"),
        ({"up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}, "mirror"),
        ({"mid_block_type": "Other"}, "mid_block_type"),
        ({"attention_head_dim": 7}, "heads"),
        ({"down_block_types": [[1], [2]]}, "down_block_types"),
        (
            {
                "down_block_types": ["DownBlock2D"] * 2,
                "up_block_types": ["UpBlock2D"] * 2,
                "mid_block_type": None,
            },
            "nowhere",
        ),
    ],
)
def test_other_architectures_are_refused_with_the_reason(change, reason):
    with pytest.raises(ValueError, match=reason):
        UNetShape.from_diffusers({**REDUCED, **change})


@pytest.mark.parametrize("text", ["", "[]", "3", '{"a":', "[" * 100_000])
def test_unreadable_unet_config_is_refused(text):
    with pytest.raises(ValueError, match="unet_config"):
        parse_unet_config(text)
