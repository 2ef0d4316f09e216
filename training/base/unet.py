# SPDX-License-Identifier: GPL-3.0-or-later
"""The base model's U-Net: its shape, read from the weights or from a folder's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from ...anydressing_core.refusals import quote
from ...anydressing_core.sites import SD15, UNetShape
from .names import ldm_unet_name
from .part import SD15_INSTEAD, Module, Part, config_beside, matched

V_PREDICTION = ("is a v-prediction model", "Its U-Net predicts velocity; AnyDressing trains one that predicts noise.")
HEADS = 8  # attention heads of every SD1.5 U-Net; the one number that weights cannot tell


def plan_ldm_unet(unet: Part) -> tuple[UNetShape, Module]:
    """Place every tensor of an original checkpoint's U-Net. Raises ValueError for one unlike SD1.5's."""
    shape = _shape_of_ldm(unet)
    return shape, matched(_empty(shape, unet), unet, lambda name: ldm_unet_name(name, shape))


def plan_folder_unet(unet: Part) -> tuple[UNetShape, Module]:
    """Place every tensor of a diffusers folder's U-Net. Raises ValueError for one unlike SD1.5's."""
    shape = _shape_of_folder(unet)
    return shape, matched(_empty(shape, unet), unet, lambda name: name)


def refuse_other_unets(unet: Part, shapes: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Raise ValueError for a U-Net of another family, named. shapes: all of the file's."""
    first = unet.shapes.get("input_blocks.0.0.weight", ())
    if len(first) != 4:
        why = "Its U-Net is missing or is no U-Net at all (Flux, SD3 and others have none)."
        raise unet.refuse("is not an SD1.5 checkpoint", why, SD15_INSTEAD)
    if "label_emb.0.0.weight" in unet.shapes:
        why = "Its U-Net takes a size or class embedding, which SD1.5 does not have."
        raise unet.refuse("is an SDXL checkpoint or one of its kind", why, SD15_INSTEAD)
    linear = any(name.endswith("proj_in.weight") and len(shape) == 2 for name, shape in unet.shapes.items())
    if linear or _text_width(unet) == 1024:
        why = f"Its U-Net reads text {_text_width(unet)} wide through other layers; SD1.5's is 768 wide."
        raise unet.refuse("is a Stable Diffusion 2 checkpoint or one of its kind", why, SD15_INSTEAD)
    if first[1] != 4:
        kind = {9: "an inpainting", 8: "an instruct-pix2pix"}.get(first[1], "an unusual")
        why = f"Its U-Net takes {first[1]} channels; training noises the 4 channels of a picture's latents."
        remedy = "train on the plain checkpoint of the same family."
        raise unet.refuse(f"is {kind} checkpoint", why, remedy)
    if "v_pred" in shapes or metadata.get("modelspec.prediction_type", "").startswith("v"):
        raise unet.refuse(*V_PREDICTION, SD15_INSTEAD)


def _empty(shape: UNetShape, part: Part) -> UNet2DConditionModel:
    if any(channels % 32 for channels in shape.block_channels):
        why = f"Its widths are {shape.block_channels}; every width must be a multiple of 32, for group normalisation."
        raise part.refuse("has a U-Net unlike SD1.5's", why)
    with torch.device("meta"):
        return UNet2DConditionModel(**shape.to_diffusers())


def _text_width(unet: Part) -> int:
    return next((unet.width(name, 1) for name in unet.shapes if name.endswith("attn2.to_k.weight")), 0)


def _shape_of_ldm(unet: Part) -> UNetShape:
    """Read the shape from an ldm U-Net's tensors; that nothing else is there is for `matched` to say."""
    levels: list[list[tuple[int, bool]]] = [[]]  # per level, per layer: width, whether it attends
    for index in range(1, 1 + len(unet.shapes)):
        block = f"input_blocks.{index}"
        if f"{block}.0.op.weight" in unet.shapes:
            levels.append([])
        elif f"{block}.0.out_layers.3.weight" in unet.shapes:
            width = unet.width(f"{block}.0.out_layers.3.weight")
            levels[-1].append((width, f"{block}.1.proj_in.weight" in unet.shapes))
        else:
            break
    try:
        if not all(len(set(level)) == 1 for level in levels):
            raise ValueError("The layers of one resolution differ, or there are none.")
        shape = UNetShape(
            block_channels=tuple(level[0][0] for level in levels),
            layers=tuple(len(level) for level in levels),
            attention=tuple(level[0][1] for level in levels),
            mid_attention="middle_block.1.proj_in.weight" in unet.shapes,
            heads=HEADS,
            cross_attention_dim=_text_width(unet),
        )
        return UNetShape.from_diffusers(shape.to_diffusers())  # which knows what is out of bounds
    except ValueError as error:
        raise unet.refuse("has a U-Net unlike SD1.5's", str(error), SD15_INSTEAD) from error


# Said by the shape itself, in more than one spelling, or (sample_size) of no effect on the result.
_SHAPE_SETTINGS = set(SD15.to_diffusers()) - {"in_channels", "out_channels"} | {
    "num_attention_heads",
    "transformer_layers_per_block",
    "sample_size",
}


def _shape_of_folder(unet: Part) -> UNetShape:
    config = config_beside(unet)
    if config.get("cross_attention_dim") == 1024:
        why = "Its U-Net reads text 1024 wide; SD1.5's is 768 wide."
        raise unet.refuse("is a Stable Diffusion 2 model or one of its kind", why, SD15_INSTEAD)
    try:
        shape = UNetShape.from_diffusers(config)
    except ValueError as error:
        raise unet.refuse("is not an SD1.5 U-Net", str(error), SD15_INSTEAD) from error
    for name, value in _empty(shape, unet).config.items():
        stated = config.get(name, value)
        if name not in _SHAPE_SETTINGS and not name.startswith("_") and (stated or None) != (value or None):
            why = f"unet/config.json says {name} = {quote(stated)}; SD1.5 has {value}, and ComfyUI knows only that."
            raise unet.refuse("is not an SD1.5 U-Net", why, SD15_INSTEAD)
    return shape
