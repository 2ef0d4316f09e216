# SPDX-License-Identifier: GPL-3.0-or-later
"""The user's loaded U-Net, seen as core sees it: its shape, and whether AnyDressing can dress it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..anydressing_core.checkpoint_info import describe_unet
from ..anydressing_core.digests import ordered_digest
from ..anydressing_core.refusals import refusal
from ..anydressing_core.sites import SD15, UNetShape

SAMPLES = 64
"""Values of a weight that `unet_digest` looks at."""


def unet_shape(model: Any, name: str = "model") -> UNetShape:
    """Read the shape of a loaded MODEL. name: of the input that it came by. Raises ValueError when it is not an SD1.5-type U-Net."""
    config: dict[str, Any] = getattr(model.model.model_config, "unet_config", None) or {}
    try:
        shape = _shape_from_ldm(config)
    except (KeyError, TypeError, ValueError, IndexError):
        shape = None
    unet = model.model.diffusion_model
    if shape is None or not all(_has_module(unet, site.ldm_name) for site in shape.sites):
        raise refusal(
            f"{name}:",
            f"AnyDressing dresses Stable Diffusion 1.5, but the connected MODEL is {family(model)}",
            "Its layers are not where an SD1.5 U-Net has them, so no garment could be attached.",
            "connect an SD1.5 checkpoint.",
        )
    return shape


def require_file_match(shape: UNetShape, trained_for: UNetShape, name: str) -> None:
    """Raise ValueError unless the connected U-Net's shape is the one that a file was trained for."""
    remedy = "connect a checkpoint of that kind, or choose another file in the AnyDressing Loader."
    why = "Its weights fit only the layers that they were trained for."
    _require_match(shape, trained_for, f"{name!r} was trained for", why, remedy)


def require_garment_match(shape: UNetShape, encoded_with: UNetShape, slot: str) -> None:
    """Raise ValueError unless the connected U-Net's shape is the one that a garment was encoded with."""
    remedy = "connect the same checkpoint to AnyDressing Garment Encode and to AnyDressing Apply."
    why = "What one U-Net has read fits only the layers of its kind."
    _require_match(shape, encoded_with, f"the {slot!r} garment was encoded with", why, remedy)


def require_reader_match(shape: UNetShape, garment_model: Any, name: str) -> None:
    """Raise ValueError unless a garment model's U-Net has the shape of the connected one. name: of its input."""
    why = "What one U-Net has read fits only the layers of its kind."
    _require_match(shape, unet_shape(garment_model, name), "it is", why, "connect one of your checkpoint's kind.", name)


def require_standard_context(shape: UNetShape, model: Any) -> None:
    """Raise ValueError unless the text embedding has SD1.5's width: without a file nothing else tells SD2 apart."""
    if shape.cross_attention_dim != SD15.cross_attention_dim:
        raise refusal(
            "model:",
            f"AnyDressing dresses Stable Diffusion 1.5, but the connected MODEL is {family(model)} "
            f"(context {shape.cross_attention_dim})",
            f"SD1.5 reads text {SD15.cross_attention_dim} wide.",
            "connect an SD1.5 checkpoint.",
        )


def compute_dtype(model: Any) -> torch.dtype:
    """The dtype in which a loaded MODEL computes; weights may be stored in another one (fp8, manual cast)."""
    return dtype_of(model.model)


def dtype_of(base: Any) -> torch.dtype:
    """The same of the model within a MODEL."""
    return base.get_dtype() if base.manual_cast_dtype is None else base.manual_cast_dtype


def unet_digest(model: Any) -> str:
    """What tells two checkpoints' U-Nets apart: a sha256 over some values of every weight, in half precision.

    LoRAs do not count, whether they are merged in just now or not. Where another checkpoint is merged in there is none: "".
    """
    if any(is_merge(patch) for patches in model.patches.values() for patch in patches):
        return ""
    parts: list[Tensor | str] = []
    for name, weight in model.model.diffusion_model.named_parameters():
        kept = model.backup.get(f"diffusion_model.{name}")  # what ComfyUI gives back when a LoRA leaves
        values = (weight if kept is None else kept.weight).detach().flatten()
        parts += [name, values[:: max(1, len(values) // SAMPLES)][:SAMPLES].cpu().float().half()]
    return ordered_digest(*parts)


def is_merge(patch: Any) -> bool:
    """Whether one of a MODEL's patches merges another checkpoint in: ComfyUI keeps its weight, with its own patches, as a list."""
    return isinstance(patch[1], list)


def family(model: Any) -> str:
    """ComfyUI's name for the model's kind, for people: SDXL, SD20, Flux ..."""
    return type(model.model.model_config).__name__


def _require_match(
    shape: UNetShape, made_for: UNetShape, begin: str, why: str, remedy: str, name: str = "model"
) -> None:
    if shape != made_for:
        problem = f"{begin} {describe_unet(made_for)}, but the connected MODEL is {describe_unet(shape)}"
        raise refusal(f"{name}:", problem, why, remedy)


def _shape_from_ldm(config: dict[str, Any]) -> UNetShape:
    if config.get("adm_in_channels") is not None or config.get("use_linear_in_transformer"):
        raise ValueError("not an SD1.5-type U-Net")
    layers = tuple(config["num_res_blocks"])
    depth_in, depth_out = list(config["transformer_depth"]), list(config["transformer_depth_output"])
    attention = tuple(_level_attends(depth_in, count) for count in layers)
    attention_out = tuple(_level_attends(depth_out, count + 1) for count in layers)
    mid_depth = config.get("transformer_depth_middle", depth_in[-1] if depth_in else 0)
    if attention != attention_out or mid_depth > 1:
        raise ValueError("not an SD1.5-type U-Net")
    return UNetShape(
        block_channels=tuple(config["model_channels"] * mult for mult in config["channel_mult"]),
        layers=layers,
        attention=attention,
        mid_attention=mid_depth == 1,
        heads=config["num_heads"],
        cross_attention_dim=config["context_dim"],
    )


def _level_attends(depths: list[int], count: int) -> bool:
    """Take one level's transformer depths off the front of the list; they must all be 0 or all be 1."""
    level = {depths.pop(0) for _ in range(count)}
    if level not in ({0}, {1}):
        raise ValueError("attention depths differ within a level")
    return level == {1}


def _has_module(unet: torch.nn.Module, name: str) -> bool:
    try:
        unet.get_submodule(name)
    except AttributeError:
        return False
    return True
