# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways to show garments to a U-Net, each as what it computes at one self-attention layer.

The first two run the project's own code. The others are the schemes of other methods, re-stated from their
descriptions in the simplest form that does the same products. For counting all tensors are on the meta device: shapes, no values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from comfyui_anydressing.anydressing_core.defaults import RESOLUTION, STRENGTH
from comfyui_anydressing.anydressing_core.garment_kv import (
    GarmentKV,
    garment_kv,
    project_garment,
    scaled_dot_product,
)
from comfyui_anydressing.anydressing_core.latents import half_size, latent_size
from comfyui_anydressing.anydressing_core.reference_attention import reference_kv, reference_sites
from comfyui_anydressing.anydressing_core.sites import SD15, AttentionSite
from comfyui_anydressing.training.model.processors import DressingRole, ReferenceStep
from torch import Tensor

Layer = Callable[[AttentionSite, Any, Tensor], Tensor]
"""(site, diffusers' attention module with our processor, normalised image tokens (1, L, C)) -> (1, L, C)."""

FULL, HALF = latent_size(RESOLUTION), latent_size(half_size(RESOLUTION))
"""Latent height and width of 768x576 and of half that along each axis."""


@dataclass(frozen=True)
class Garments:
    """What one person wears.

    count: N. size: latent height and width of each garment. kept: the share of a garment's tokens that takes part. device,
    dtype: of the tensors, which hold noise where they hold anything.
    """

    count: int
    size: tuple[int, int] = FULL
    kept: float = 1.0
    device: str = "meta"
    dtype: torch.dtype = torch.float32

    def tokens(self, site: AttentionSite) -> int:
        """L_g at a site, of each garment."""
        return math.ceil(math.prod(site.grid(*self.size)) * self.kept)

    def features(self, site: AttentionSite) -> list[Tensor]:
        """N times F (1, L_g, C), the same whenever they are asked for."""
        return [noise((1, self.tokens(site), site.channels), self.device, self.dtype, one) for one in range(self.count)]


@cache
def noise(shape: tuple[int, ...], device: str, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """A tensor of noise, made once; on the meta device it has a shape alone."""
    if device == "meta":
        return torch.empty(shape, device=device, dtype=dtype)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def plain(_site: AttentionSite, attn: Any, image: Tensor) -> Tensor:
    """Self-attention, no garment."""
    return attn(image)


def dressed(site: AttentionSite, attn: Any, image: Tensor, *, garments: Garments, null_token: bool) -> Tensor:
    """Ours: Eq. 6 with K' and V' that were projected and laid out before the first step."""
    return attn(image, role=DressingRole({site.key: laid_out(site, garments, null_token)}, STRENGTH))


def by_reference(
    site: AttentionSite, attn: Any, image: Tensor, *, garments: Garments, picture: tuple[int, int] = FULL
) -> Tensor:
    """Reference mode: one softmax over the picture's tokens and the garments', with a place for each, at the decoder's sites.

    picture: its latent's height and width.
    """
    if site.key not in {one.key for one in reference_sites(SD15)}:
        return attn(image)
    weights = noise((garments.count,), garments.device, garments.dtype).abs()
    places = noise((1, garments.count, *picture), garments.device, garments.dtype).abs()
    step = ReferenceStep({site.key: read(site, garments)}, weights, places, None, "", picture)
    return attn(image, role=DressingRole({}, STRENGTH, step))


@cache
def read(site: AttentionSite, garments: Garments) -> GarmentKV:
    """All garments' K_g and V_g at one site and level of noise."""
    kept = garments.features(site)  # they have the features' shape
    return reference_kv(kept, kept, SD15.heads)


def dressed_from_features(site: AttentionSite, attn: Any, image: Tensor, *, garments: Garments) -> Tensor:
    """Eq. 6 when F is kept instead of K' and V': every step projects them again."""
    keys, values = zip(*(project(features) for features in garments.features(site)), strict=True)
    return attn(image, role=DressingRole({site.key: garment_kv(keys, values, attn.heads)}, STRENGTH))


def concatenated(site: AttentionSite, attn: Any, image: Tensor, *, garments: Garments) -> Tensor:
    """Garment tokens join the sequence as queries too; their half of the result is cut off again."""
    sequence = torch.cat([image, *garments.features(site)], dim=1)
    out = scaled_dot_product(attn.to_q(sequence), attn.to_k(sequence), attn.to_v(sequence), attn.heads)
    return attn.to_out[0](out[:, : image.shape[1]])


def called_twice(site: AttentionSite, attn: Any, image: Tensor, *, garments: Garments) -> Tensor:
    """Where the U-Net decodes (mid and up), the whole layer runs again with the garments' tokens as its context."""
    if site.stage == "down":
        return attn(image)
    context = torch.cat(garments.features(site), dim=1)
    again = scaled_dot_product(attn.to_q(image), attn.to_k(context), attn.to_v(context), attn.heads)
    return attn(image) + attn.to_out[0](again)


def extended(site: AttentionSite, attn: Any, image: Tensor, *, garments: Garments) -> Tensor:
    """One softmax over the image's own keys and the garments' keys, which are kept between steps."""
    kept = garments.features(site)  # keys and values have the features' shape
    key, value = (torch.cat([project(image), *kept], dim=1) for project in (attn.to_k, attn.to_v))
    return attn.to_out[0](scaled_dot_product(attn.to_q(image), key, value, attn.heads))


def project(features: Tensor) -> tuple[Tensor, Tensor]:
    """One garment's K' and V' at one site."""
    channels = features.shape[-1]
    weight = noise((channels, channels), str(features.device), features.dtype)
    return project_garment(features, weight, weight)


@cache
def laid_out(site: AttentionSite, garments: Garments, null_token: bool, *, maps: bool = False) -> GarmentKV:
    """All garments' K' and V' at one site, as Apply lays them out."""
    projected = garments.features(site)  # K' and V' have the features' shape
    null = None
    if null_token:
        null = (noise((site.channels,), garments.device, garments.dtype), noise((1,), garments.device, torch.float32))
    return garment_kv(projected, projected, SD15.heads, null=null, maps=maps)
