# SPDX-License-Identifier: GPL-3.0-or-later
"""Attention sites: the self-attention layers of an SD1.5-type U-Net, named once for every host.

AnyDressing touches a U-Net at its self-attention layers (`attn1`) only; SD1.5 has sixteen. A site's key is written in
diffusers' coordinates (`down_0_1`, `mid_0_0`, `up_3_2`); its names in diffusers and in ldm (ComfyUI) are derived.
It is never a running number: diffusers registers `mid_block` last although it runs in the middle, and ComfyUI counts
the middle block from zero.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

Stage = Literal["down", "mid", "up"]


@dataclass(frozen=True)
class AttentionSite:
    """One self-attention layer of the U-Net.

    stage, level, index: diffusers' coordinates, `{stage}_blocks[level].attentions[index]`.
    channels: C, the width of the layer. stride: latent pixels per token along each axis.
    ldm_block: the ldm block list and the position in it; the layer is `{list}.{position}.1`.
    """

    stage: Stage
    level: int
    index: int
    channels: int
    stride: int
    ldm_block: tuple[str, int]

    @property
    def key(self) -> str:
        """The site's name in files and dictionaries; it holds no dot, so it is a valid module name."""
        return f"{self.stage}_{self.level}_{self.index}"

    @property
    def diffusers_name(self) -> str:
        """The `attn1` module's path inside diffusers' `UNet2DConditionModel`."""
        block = "mid_block" if self.stage == "mid" else f"{self.stage}_blocks.{self.level}"
        return f"{block}.attentions.{self.index}.transformer_blocks.0.attn1"

    @property
    def ldm_name(self) -> str:
        """The `attn1` module's path inside ldm's (ComfyUI's) `UNetModel`."""
        name, position = self.ldm_block
        block = "middle_block" if name == "middle" else f"{name}_blocks.{position}"
        return f"{block}.1.transformer_blocks.0.attn1"

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """The token grid of this site for an h x w latent."""
        return halved(height, width, self.stride.bit_length() - 1)


def halved(height: int, width: int, times: int) -> tuple[int, int]:
    """What so many strided convolutions leave of a grid; each halving rounds up."""
    for _ in range(times):
        height, width = (height + 1) // 2, (width + 1) // 2
    return height, width


@dataclass(frozen=True)
class UNetShape:
    """What AnyDressing must know of a U-Net: where its attention sits and how wide it is.

    block_channels, layers, attention: one entry per resolution, finest first. heads: attention heads, the same at
    every site. cross_attention_dim: width of the text embedding (768 in SD1.5).
    """

    block_channels: tuple[int, ...]
    layers: tuple[int, ...]
    attention: tuple[bool, ...]
    mid_attention: bool
    heads: int
    cross_attention_dim: int

    def __post_init__(self) -> None:
        if not len(self.block_channels) == len(self.layers) == len(self.attention) > 0:
            raise ValueError("A U-Net shape needs one width, one layer count and one attention flag per resolution.")
        for channels, attends in zip(self.block_channels, self.attention, strict=True):
            if attends and channels % self.heads:
                raise ValueError(f"{channels} channels cannot be split over {self.heads} attention heads.")

    @property
    def stride(self) -> int:
        """Latent cells per token of the coarsest grid, along each axis."""
        return 2 ** (len(self.block_channels) - 1)

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any]) -> UNetShape:
        """Read a diffusers `UNet2DConditionModel` configuration.

        Raises ValueError for what is not an SD1.5-type U-Net: linear projections, several transformer blocks per
        attention, several head counts, class or size embeddings (SDXL), other block types.
        """
        widths = _positive_ints(config, "block_out_channels")
        down = _strings(config, "down_block_types", len(widths))
        up = _strings(config, "up_block_types", len(widths))
        attention = tuple(_DOWN_BLOCKS[name] for name in down)
        if tuple(_UP_BLOCKS[name] for name in reversed(up)) != attention:
            raise ValueError("unet_config: the up blocks must mirror the down blocks.")
        mid = config.get("mid_block_type", "UNetMidBlock2DCrossAttn")
        if mid not in (None, "UNetMidBlock2DCrossAttn", "UNetMidBlock2D"):
            raise ValueError(f"unet_config: mid_block_type {mid!r} is not one of SD1.5's.")
        if not any(attention) and mid != "UNetMidBlock2DCrossAttn":
            raise ValueError("unet_config: a U-Net without any attention has nowhere to put a garment.")
        _refuse_other_architectures(config)
        # diffusers' `attention_head_dim` is, for SD1.5, the *number* of heads.
        heads = config.get("num_attention_heads") or config.get("attention_head_dim", 8)
        return cls(
            block_channels=widths,
            layers=_per_level(config, "layers_per_block", 2, len(widths)),
            attention=attention,
            mid_attention=mid == "UNetMidBlock2DCrossAttn",
            heads=_positive_int("attention_head_dim", heads),
            cross_attention_dim=_positive_int("cross_attention_dim", config.get("cross_attention_dim", 1280)),
        )

    def to_diffusers(self) -> dict[str, Any]:
        """Return the diffusers configuration that describes this U-Net."""
        return {
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": list(self.block_channels),
            "layers_per_block": self.layers[0] if len(set(self.layers)) == 1 else list(self.layers),
            "down_block_types": [_name(_DOWN_BLOCKS, attends) for attends in self.attention],
            "mid_block_type": "UNetMidBlock2DCrossAttn" if self.mid_attention else None,
            "up_block_types": [_name(_UP_BLOCKS, attends) for attends in reversed(self.attention)],
            "attention_head_dim": self.heads,
            "cross_attention_dim": self.cross_attention_dim,
        }

    @property
    def sites(self) -> tuple[AttentionSite, ...]:
        """Every self-attention layer, in the order in which the U-Net runs them."""
        return (*self._down_sites(), *self._mid_sites(), *self._up_sites())

    def _down_sites(self) -> list[AttentionSite]:
        sites: list[AttentionSite] = []
        position = 1  # input_blocks.0 is the first convolution
        for level, (channels, layers) in enumerate(zip(self.block_channels, self.layers, strict=True)):
            for index in range(layers):
                if self.attention[level]:
                    block = ("input", position + index)
                    sites.append(AttentionSite("down", level, index, channels, 2**level, block))
            position += layers + 1  # the layers, then the downsampling convolution
        return sites

    def _mid_sites(self) -> list[AttentionSite]:
        if not self.mid_attention:
            return []
        return [AttentionSite("mid", 0, 0, self.block_channels[-1], 2 ** (len(self.layers) - 1), ("middle", 0))]

    def _up_sites(self) -> list[AttentionSite]:
        sites: list[AttentionSite] = []
        position = 0
        for up_level, level in enumerate(reversed(range(len(self.layers)))):
            count = self.layers[level] + 1  # one more than on the way down; upsampling shares the last block
            for index in range(count):
                if self.attention[level]:
                    block = ("output", position + index)
                    sites.append(AttentionSite("up", up_level, index, self.block_channels[level], 2**level, block))
            position += count
        return sites


SD15 = UNetShape(
    block_channels=(320, 640, 1280, 1280),
    layers=(2, 2, 2, 2),
    attention=(True, True, True, False),
    mid_attention=True,
    heads=8,
    cross_attention_dim=768,
)
"""Stable Diffusion 1.5: sixteen sites."""


def parse_unet_config(text: str) -> UNetShape:
    """Read a `unet_config` metadata entry (diffusers' configuration as JSON). Raises ValueError with the reason."""
    try:
        config: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("unet_config is not readable JSON.") from error
    if not isinstance(config, dict):
        raise ValueError("unet_config is not a JSON object.")
    return UNetShape.from_diffusers(config)  # pyright: ignore[reportUnknownArgumentType]


_DOWN_BLOCKS = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
_UP_BLOCKS = {"CrossAttnUpBlock2D": True, "UpBlock2D": False}
_LIMIT = 1 << 16  # no width or count in a U-Net is near this; a stranger's file may claim more


def _name(blocks: Mapping[str, bool], attends: bool) -> str:
    return next(name for name, value in blocks.items() if value is attends)


def _positive_int(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < _LIMIT:
        raise ValueError(f"unet_config: {name} must be a positive whole number, got {value!r}.")
    return value


def _positive_ints(config: Mapping[str, Any], name: str) -> tuple[int, ...]:
    value = config.get(name)
    entries = _entries(value)
    if not 1 <= len(entries) <= 8:
        raise ValueError(f"unet_config: {name} must be a list of 1 to 8 whole numbers, got {value!r}.")
    return tuple(_positive_int(name, entry) for entry in entries)


def _per_level(config: Mapping[str, Any], name: str, default: int, levels: int) -> tuple[int, ...]:
    value = config.get(name, default)
    values = tuple(_positive_int(name, entry) for entry in _entries(value) or [value] * levels)
    if len(values) != levels or max(values) > 16:
        raise ValueError(f"unet_config: {name} must give 1 to 16 layers for each of {levels} resolutions.")
    return values


def _strings(config: Mapping[str, Any], name: str, levels: int) -> tuple[str, ...]:
    value = config.get(name)
    entries = _entries(value)
    known = _DOWN_BLOCKS if name.startswith("down") else _UP_BLOCKS
    if len(entries) != levels or not all(isinstance(entry, str) and entry in known for entry in entries):
        raise ValueError(f"unet_config: {name} must list {levels} of {', '.join(known)}, got {value!r}.")
    return tuple(entries)


def _entries(value: Any) -> list[Any]:
    """The entries of a list or tuple; none for anything else."""
    return list(cast("Sequence[Any]", value)) if isinstance(value, list | tuple) else []


def _refuse_other_architectures(config: Mapping[str, Any]) -> None:
    if config.get("use_linear_projection"):
        raise ValueError("unet_config: linear projections belong to SD2 and SDXL; AnyDressing needs an SD1.5 U-Net.")
    for name in ("addition_embed_type", "class_embed_type"):
        if config.get(name):
            raise ValueError(f"unet_config: {name} belongs to SDXL; AnyDressing needs an SD1.5 U-Net.")
    blocks = config.get("transformer_layers_per_block", 1)
    if any(count != 1 for count in _entries(blocks) or [blocks]):
        raise ValueError("unet_config: an SD1.5 U-Net has one transformer block per attention layer.")
