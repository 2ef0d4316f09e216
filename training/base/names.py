# SPDX-License-Identifier: GPL-3.0-or-later
"""One tensor, two names: in an original checkpoint (ldm, TAESD; what ComfyUI opens) and in diffusers."""

from __future__ import annotations

import re

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from ...anydressing_core.sites import UNetShape

_UNET_NAMES = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_RESNET_NAMES = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def ldm_unet_name(name: str, shape: UNetShape) -> str:
    """The name in an original checkpoint of a tensor of diffusers' U-Net. Inside an attention both agree."""
    layer, kind, inner = _split_unet_name(name)
    if kind == "resnets":
        module, _, tensor = inner.partition(".")
        inner = f"{_RESNET_NAMES[module]}.{tensor}"
    elif kind == "downsamplers":
        inner = inner.replace("conv", "op")
    if layer in _UNET_NAMES:
        return f"{_UNET_NAMES[layer]}.{inner}"
    stage, level, _, index = layer.split(".")
    return f"{_ldm_unet_block(stage, int(level), kind, int(index), shape)}.{inner}"


def ldm_unet_tensors(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """The tensors of diffusers' U-Net under their names in an original checkpoint."""
    shape = UNetShape.from_diffusers(unet.config)
    return {ldm_unet_name(name, shape): tensor for name, tensor in unet.state_dict().items()}


def _split_unet_name(name: str) -> tuple[str, str, str]:
    """Split a name into the layer, its kind and the rest."""
    match = re.match(r"(?:\w+_blocks\.\d+|mid_block)\.(\w+)\.\d+(?=\.)", name)
    if match:
        return match.group(), match.group(1), name[match.end() + 1 :]
    layer, _, tensor = name.rpartition(".")
    return layer, "", tensor


def _ldm_unet_block(stage: str, level: int, kind: str, index: int, shape: UNetShape) -> str:
    if stage == "down_blocks":
        # input_blocks.0 is the first convolution; a level is its layers, then the downsampling convolution
        position = 1 + sum(layers + 1 for layers in shape.layers[:level])
        if kind == "downsamplers":
            return f"input_blocks.{position + shape.layers[level]}.0"
        return f"input_blocks.{position + index}.{int(kind == 'attentions')}"
    layers, attention = shape.layers[::-1], shape.attention[::-1]
    position = sum(count + 1 for count in layers[:level])
    if kind == "upsamplers":  # it shares the level's last block
        return f"output_blocks.{position + layers[level]}.{1 + attention[level]}"
    return f"output_blocks.{position + index}.{int(kind == 'attentions')}"


_VAE_NAMES = (
    (r"\.down_blocks\.(\d+)\.resnets\.", r".down.\1.block."),
    (r"\.down_blocks\.(\d+)\.downsamplers\.0\.", r".down.\1.downsample."),
    (r"\.up_blocks\.(\d+)\.resnets\.", lambda match: f".up.{3 - int(match[1])}.block."),
    (r"\.up_blocks\.(\d+)\.upsamplers\.0\.", lambda match: f".up.{3 - int(match[1])}.upsample."),
    (r"\.mid_block\.resnets\.(\d)\.", lambda match: f".mid.block_{1 + int(match[1])}."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.group_norm\.", ".norm."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
)


def ldm_vae_name(name: str) -> str:
    """The name in an original checkpoint of a tensor of diffusers' AutoencoderKL."""
    for pattern, replacement in _VAE_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def taesd_name(name: str) -> str:
    """The name in a checkpoint with a TAESD of a tensor of diffusers' AutoencoderTiny."""
    network, _, index, rest = name.split(".", 3)
    # In TAESD's decoder the clamp counts as a layer.
    return f"taesd_{network}.{int(index) + (network == 'decoder')}.{rest}"


_OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def old_attention_name(name: str) -> str:
    """The name that old diffusers gave to a tensor of AutoencoderKL."""
    match = re.search(r"(?<=\.attentions\.0\.)(to_q|to_k|to_v|to_out\.0)", name)
    return name[: match.start()] + _OLD_ATTENTION[match.group()] + name[match.end() :] if match else name
