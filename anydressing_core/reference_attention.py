# SPDX-License-Identifier: GPL-3.0-or-later
"""Reference attention: one softmax over the picture's own tokens and the garments', which takes no trained weights.

    Z = softmax([Q K^T, Q K_g^T] / sqrt d + [0, b]) [V; V_g]        b_k = log w_k + log p_k

K_g and V_g are what the frozen W_k, W_v make of the garments in a pass of the same U-Net, at about the picture's own
level of noise (`noise_levels`) and K_g times CONTRAST; or in that of a garment model. w_k is garment k's weight, p_k in [0, 1] says where it belongs: its region, or its place (see `places`).

Where something has computed the picture's own attention already, Z_0, the same call with V = 0 gives the garments' part
T and their mass m, and Z = (1 - m) Z_0 + T is the same joint softmax.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from .garment_kv import Attend, GarmentKV, garment_kv, scaled_dot_product, split_heads, widen_query
from .sites import AttentionSite, UNetShape

WITHOUT_FILE, WITH_FILE = 1.0, 0.5
"""w of a garment at the default strength: alone, and beside a trained file's own term."""

AS_TRAINED = 1.0
"""The same w of one that a garment model has read, which was trained in a plain joint softmax."""

CONTRAST = 1.5
"""What the keys of a garment that was read without any training are multiplied by: looking for a place in it, the picture
finds that place and less of all others, so patterns stay patterns."""

NOWHERE = -60.0
"""log p of what is as good as 0; exp(-60) is 1e-26, and no logit makes up for it."""


def reference_sites(shape: UNetShape) -> tuple[AttentionSite, ...]:
    """The sites at which garments join: the decoder's, nine of SD1.5's sixteen. Without any, all."""
    return tuple(site for site in shape.sites if site.stage == "up") or shape.sites


def reference_kv(
    keys: Sequence[Tensor], values: Sequence[Tensor], heads: int, token_mask: Tensor | None = None
) -> GarmentKV:
    """Lay out K_g and V_g of N garments: as `garment_kv`, always with columns for biases and maps."""
    return garment_kv(keys, values, heads, token_mask=token_mask, biased=True, maps=True)


def fair_weight(weight: float, canvas: tuple[int, int], size: tuple[int, int]) -> float:
    """w_k of a garment that counts as if its canvas had as many tokens as the picture.

    Else one that was read at half its size, or a second pass at twice the picture's, would show a quarter of it.
    canvas, size: h and w of the garment's latent and of the picture's.
    """
    return weight * math.prod(size) / math.prod(canvas)


def garment_bias(weights: Tensor, places: Tensor | None = None) -> Tensor:
    """b_k at every pixel: (B or 1, L or 1, N).

    weights: w_k (N,), above 0. places: p_k (B or 1, L, N) in [0, 1]; None lets every garment go everywhere.
    """
    bias = weights.float().log()[None, None]
    return bias if places is None else bias + places.float().clamp(min=math.exp(NOWHERE)).log()


def reference_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    garments: GarmentKV,
    bias: Tensor,
    *,
    attend: Attend = scaled_dot_product,
) -> tuple[Tensor, Tensor]:
    """Z (B, L, C), before the output projection, and A (B, L, N), what of each pixel's attention garment k has.

    query, key, value: (B, L, C), projected by the frozen W_q, W_k, W_v. garments: from `reference_kv`. bias: b, from
    `garment_bias`. A is averaged over heads, in fp32; 1 - sum_k A_k is the picture's own share.
    """
    out = _joint_call(query, key, _widened(value, garments), garments, bias, attend)
    dim = garments.columns.dim
    maps = out[..., [dim + column for column in garments.owners]].float().mean(dim=2)
    return rearrange(out[..., :dim], "b l h d -> b l (h d)"), maps


@dataclass(frozen=True)
class GarmentsPart:
    """What garments take of the softmax, apart from what the picture's own tokens give.

    term: (B, L, H, d). left: 1 - m, (B, L, H, 1). maps: A (B, L, N).
    """

    term: Tensor
    left: Tensor
    maps: Tensor

    def beside(self, own: Tensor) -> Tensor:
        """Z (B, L, C) around what something else has made of the picture's own tokens, Z_0 (B, L, C)."""
        joint = self.left.to(own) * split_heads(own, self.term.shape[2]) + self.term
        return rearrange(joint, "b l h d -> b l (h d)")


def garments_part(
    query: Tensor, key: Tensor, garments: GarmentKV, bias: Tensor, *, attend: Attend = scaled_dot_product
) -> GarmentsPart:
    """The garments' part of `reference_attention`, whose arguments these are, for `beside`."""
    nothing = key.new_zeros(*key.shape[:2], garments.heads * garments.columns.width)
    out = _joint_call(query, key, nothing, garments, bias, attend)
    dim = garments.columns.dim
    maps = out[..., [dim + column for column in garments.owners]].float()  # -> (B, L, H, N)
    return GarmentsPart(out[..., :dim], 1 - maps.sum(dim=-1, keepdim=True), maps.mean(dim=2))


def _joint_call(
    query: Tensor, key: Tensor, wide_value: Tensor, garments: GarmentKV, bias: Tensor, attend: Attend
) -> Tensor:
    """Attention to the picture's own tokens and the garments', heads apart: (B, L, H, d')."""
    batch = query.shape[0]
    keys = torch.cat([_widened(key, garments), garments.key.expand(batch, -1, -1)], dim=1)
    values = torch.cat([wide_value, garments.value.expand(batch, -1, -1)], dim=1)
    return split_heads(attend(widen_query(query, garments, bias), keys, values, garments.heads), garments.heads)


def _widened(own: Tensor, garments: GarmentKV) -> Tensor:
    """The picture's own keys or values with empty columns: no bias, nobody's."""
    columns = garments.columns
    wide = functional.pad(split_heads(own, garments.heads), (0, columns.width - columns.dim))
    return rearrange(wide, "b l h d -> b l (h d)")
